"""WRN-40-2 on CIFAR-100 with APR-SP: the paper's 32.9 % on CIFAR-100-C."""

from apr_jax import presets

get_config = lambda: presets.cifar("wrn_40_2,apr_sp,cifar100")
