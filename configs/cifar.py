"""Any network, method and data set: ``--config configs/cifar.py:MODEL,METHOD,SET``.

For example ``--config configs/cifar.py:resnext29_32x4,apr_sp,cifar100``. What is left
out is wrn_40_2, apr_sp, cifar10.
"""

import ml_collections

from configs import base

# Mean and standard deviation of each channel over the training images.
STATISTICS = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "svhn_cropped": ((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)),
}


def suit_method(config: ml_collections.ConfigDict, method: str, dataset: str) -> None:
    """Sets what the authors of other methods chose for small images."""
    if dataset == "cifar100":
        config.augment.cutout_size = 8
        config.augment.strengths = "cifar100"
    if "cutmix" in method.split("+"):
        config.augment.mix_prob = 0.5


def get_config(
    choice: str = "wrn_40_2,apr_sp,cifar10",
) -> ml_collections.ConfigDict:
    """Returns the recipe of the paper for one network, method and data set."""
    given = [part.strip() for part in choice.split(",")]
    if len(given) > 3:
        raise ValueError(f"give MODEL,METHOD,SET after the colon, got {choice!r}")
    default = ["wrn_40_2", "apr_sp", "cifar10"]
    model, method, dataset = given + default[len(given) :]
    if dataset not in STATISTICS:
        listed = ", ".join(STATISTICS)
        raise ValueError(f"unknown data set {dataset!r}; choose from {listed}")
    config = base.get_config()
    config.name = f"{dataset}_{model}_{method}"
    config.model.name = model
    config.augment.method = method
    config.data.name = dataset
    config.data.mean, config.data.std = STATISTICS[dataset]
    suit_method(config, method, dataset)
    # A mirrored digit is another sign.
    config.augment.flip = dataset != "svhn_cropped"
    return config
