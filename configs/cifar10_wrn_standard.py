"""WRN-40-2 on CIFAR-10 with crop and flip only: the paper's 26.9 % on CIFAR-10-C."""

from apr_jax import presets

get_config = lambda: presets.cifar("wrn_40_2,standard")
