"""WRN-40-2 on CIFAR-10 with APR-S: the paper's 10.6 % on CIFAR-10-C."""

from apr_jax import presets

get_config = lambda: presets.cifar("wrn_40_2,apr_s")
