"""CIFAR-10 in ten epochs of a network and a recipe made for speed (arXiv:2404.00498).

``--config configs/cifar10_fast.py:METHOD`` with any augmentation method; apr_sp is the
default.
"""

from apr_jax import presets

get_config = presets.cifar10_fast
