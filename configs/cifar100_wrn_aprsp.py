"""WRN-40-2 on CIFAR-100 with APR-SP: the paper's 32.9 % on CIFAR-100-C."""

import ml_collections

from configs import cifar


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration."""
    return cifar.get_config("wrn_40_2,apr_sp,cifar100")
