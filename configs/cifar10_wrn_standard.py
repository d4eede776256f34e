"""WRN-40-2 on CIFAR-10 with crop and flip only: the paper's 26.9 % on CIFAR-10-C."""

import ml_collections

from configs import cifar


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration."""
    return cifar.get_config("wrn_40_2,standard,cifar10")
