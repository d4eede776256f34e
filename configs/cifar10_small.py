"""CIFAR-10 for two processor cores: a small network and twelve epochs.

``--config configs/cifar10_small.py:standard`` or ``:apr_sp`` (the default). The
numbers are not those of the paper, whose networks train for 200 epochs; they are
for comparing methods where there is no accelerator.
"""

from apr_jax import presets

get_config = presets.cifar10_small
