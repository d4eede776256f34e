"""ResNet-18 on CIFAR-10 with APR-SP: the network of the paper's OOD table."""

import ml_collections

from configs import cifar


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration."""
    return cifar.get_config("resnet18,apr_sp,cifar10")
