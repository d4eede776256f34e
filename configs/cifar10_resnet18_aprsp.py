"""ResNet-18 on CIFAR-10 with APR-SP: the network of the paper's OOD table."""

from apr_jax import presets

get_config = lambda: presets.cifar("resnet18,apr_sp")
