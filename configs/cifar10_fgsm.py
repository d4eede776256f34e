"""FGSM adversarial training on CIFAR-10: the networks of the paper's Table 3.

``--config configs/cifar10_fgsm.py:METHOD`` with standard, cutout, apr_p, apr_s or
apr_sp (the default). The recipe is that of Wong et al. ("Fast is better than free",
ICLR 2020): one signed step of 10/255 from a random start in a ball of 8/255, a rate
that rises to its highest and falls to 0 again, padding with black. Highest rate,
epochs and the chances of APR are those of the paper's code; both halves of a batch are
attacked.
"""

import ml_collections

from configs import cifar

# method -> highest rate, epochs, chance of APR-P, chance of APR-S.
PRESETS = {
    "standard": (0.2, 30.0, 0.0, 0.0),
    "cutout": (0.2, 30.0, 0.0, 0.0),
    "apr_p": (0.22, 55.0, 0.16, 0.0),
    "apr_s": (0.23, 65.0, 0.0, 1.0),
    "apr_sp": (0.20, 90.0, 0.16, 0.90),
}


def get_config(method: str = "apr_sp") -> ml_collections.ConfigDict:
    """Returns the preset; ``method`` follows the file name and a colon."""
    if method not in PRESETS:
        raise ValueError(f"unknown preset {method!r}; choose from {', '.join(PRESETS)}")
    rate, epochs, pair, single = PRESETS[method]
    config = cifar.get_config(f"preact_resnet18,{method},cifar10")
    config.name = f"cifar10_fgsm_{method}"
    config.data.std = (0.2471, 0.2435, 0.2616)
    config.augment.update(crop_fill=0, pair_prob=pair, single_prob=single)
    config.adversary.attack = "fgsm"
    config.optim.update(
        learning_rate=rate, epochs=epochs, schedule="cyclic", nesterov=False
    )
    config.eval.parts = ("clean", "adversarial")
    return config
