"""CIFAR-10 for two processor cores: a small network and twelve epochs.

``--config configs/cifar10_small.py:standard`` or ``:apr_sp`` (the default). The
numbers are not those of the paper, whose networks train for 200 epochs; they are
for comparing methods where there is no accelerator.
"""

import ml_collections

from configs import base, cifar


def get_config(method: str = "apr_sp") -> ml_collections.ConfigDict:
    """Returns the small recipe; ``method`` follows the file name and a colon."""
    config = base.get_config()
    config.name = f"cifar10_small_{method}"
    config.augment.method = method
    cifar.suit_method(config, method, "cifar10")
    config.model.name = "wrn_10_1"
    config.optim.update(epochs=12.0, schedule="cyclic", peak=0.3, learning_rate=0.2)
    config.checkpoint.every_steps = 500
    return config
