"""Numbers of the paper's tables, in percent: shown beside ours, never instead.

Source: Chen et al., "Amplitude-Phase Recombination: Rethinking Robustness of
Convolutional Neural Networks in Frequency Domain", ICCV 2021, Tables 1 to 4. Later
methods: HybridAugment++-PS (Yucel et al., ICCV 2023) and PRIME with the Jensen-Shannon
loss (Modas et al., ECCV 2022), both ResNet-18.
"""

from collections.abc import Iterable, Mapping, Sequence

from apr_jax.corruptions import CORRUPTIONS

Cells = dict[str, float]

# Rows of table 1, by the keys of the experiments' tables, as the paper calls them.
METHODS = {
    "standard": "Standard",
    "cutout": "Cutout",
    "mixup": "Mixup",
    "cutmix": "CutMix",
    "adversarial": "AT",
    "apr_p": "APR-P",
    "autoaugment": "AutoAugment",
    "augmix": "AugMix",
    "apr_s": "APR-S",
    "apr_sp": "APR-SP",
}
# Our names of networks -> the paper's.
NETWORKS = {
    "allconv": "AllConvNet",
    "densenet_bc_100_12": "DenseNet",
    "densenet_40_12": "DenseNet",
    "wrn_40_2": "WRN-40-2",
    "resnext29_32x4": "ResNeXt-29",
    "resnext29_4x32": "ResNeXt-29",
}
EPOCHS = 200
# Mean error over the fifteen corruptions: data -> network -> one for each of METHODS.
TABLE_1: dict[str, dict[str, tuple[float, ...]]] = {
    "cifar10-c": {
        "AllConvNet": (30.8, 32.9, 24.6, 31.3, 28.1, 21.5, 29.2, 15.0, 14.8, 11.5),
        "DenseNet": (30.7, 32.1, 24.6, 33.5, 27.6, 20.3, 26.6, 12.7, 12.3, 10.3),
        "WRN-40-2": (26.9, 26.8, 22.3, 27.1, 26.2, 18.3, 23.9, 11.2, 10.6, 9.1),
        "ResNeXt-29": (27.5, 28.9, 22.6, 29.5, 27.0, 18.5, 24.2, 10.9, 11.0, 9.1),
    },
    "cifar100-c": {
        "AllConvNet": (56.4, 56.8, 53.4, 56.0, 56.0, 47.5, 55.1, 42.7, 39.8, 35.9),
        "DenseNet": (59.3, 59.6, 55.4, 59.2, 55.2, 49.8, 53.9, 39.6, 38.3, 35.8),
        "WRN-40-2": (53.3, 53.5, 50.4, 52.9, 55.1, 44.7, 49.6, 35.9, 35.5, 32.9),
        "ResNeXt-29": (53.4, 54.6, 51.4, 54.1, 54.4, 44.2, 51.3, 34.9, 33.7, 31.0),
    },
}


def table_1() -> dict[str, Cells]:
    """Row -> "SET NETWORK" -> mean error under corruption."""
    ours = {theirs: name for name, theirs in reversed(NETWORKS.items())}
    found: dict[str, Cells] = {
        row: {
            f"{data.removesuffix('-c')} {ours[network]}": values[at]
            for data, networks in TABLE_1.items()
            for network, values in networks.items()
        }
        for at, row in enumerate(METHODS)
    }
    found["hybrid_augment_pp_ps"] = {"cifar10 resnet18": 8.2, "cifar100 resnet18": 29.9}
    found["prime_jsd"] = {"cifar10 resnet18": 11.0, "cifar100 resnet18": 31.7}
    return found


# CIFAR-10, ResNet-18, 200 epochs: accuracy; AUROC of the maximum softmax probability.
_OUT = ("svhn", "lsun", "imagenet", "lsun_fix", "imagenet_fix", "cifar100", "mean")
_TABLE_2 = {
    "standard": (93.0, 88.6, 90.7, 88.3, 87.5, 87.4, 85.8, 88.1),
    "cutout": (95.8, 93.6, 94.5, 90.2, 92.2, 89.0, 86.4, 91.0),
    "mixup": (96.1, 78.1, 80.7, 76.5, 80.7, 76.0, 74.9, 77.8),
    "apr_p": (95.0, 98.1, 93.7, 95.2, 91.4, 91.1, 88.9, 93.1),
    "supclr": (93.8, 97.3, 92.8, 91.4, 91.6, 90.5, 88.6, 92.0),
    "csi": (94.8, 96.5, 96.3, 96.2, 92.1, 92.4, 90.5, 94.0),
    "apr_s": (95.1, 90.4, 96.1, 94.2, 90.9, 89.1, 86.8, 91.3),
    "apr_sp": (95.6, 97.7, 97.9, 96.3, 93.7, 92.8, 89.5, 94.7),
}


def table_2() -> dict[str, Cells]:
    """Row -> "accuracy", or out set, or "mean" -> accuracy, or AUROC."""
    return _named(("accuracy", *_OUT), _TABLE_2)


def _named(
    names: Sequence[str], rows: Mapping[str, Iterable[float]]
) -> dict[str, Cells]:
    """The values of each row, in order, by name."""
    return {row: dict(zip(names, rows[row], strict=True)) for row in rows}


# Data sets of unknown images -> the paper's, and the rows of table 2 that a page shows.
OUT_SETS = {
    "svhn": "svhn",
    "svhn_cropped": "svhn",
    "lsun_resize": "lsun",
    "imagenet_resize": "imagenet",
    "lsun_fix": "lsun_fix",
    "imagenet_fix": "imagenet_fix",
    "cifar100": "cifar100",
}
OUT_METHODS = {
    "standard": "Cross-entropy",
    "apr_p": "APR-P",
    "apr_s": "APR-S",
    "apr_sp": "APR-SP",
    "csi": "CSI",
}


def table_3() -> dict[str, Cells]:
    """Row -> "accuracy", "robust" -> accuracy, that under AutoAttack at 8/255."""
    rows = {
        "standard": (83.3, 43.2),
        "cutout": (81.3, 41.6),
        "apr_p": (85.3, 44.1),
        "apr_s": (83.5, 45.0),
        "apr_sp": (84.3, 45.7),
    }
    return _named(("accuracy", "robust"), rows)


# PreAct-ResNet-18 on CIFAR-10: the rows of table 3 that a page shows, and the radius.
FGSM = {
    "standard": "FGSM",
    "apr_p": "FGSM + APR-P",
    "apr_s": "FGSM + APR-S",
    "apr_sp": "FGSM + APR-SP",
}
FGSM_EPS = 8 / 255

# Clean error; the fifteen CE; mCE.
_TABLE_4 = {
    "standard": "23.9 79 80 82 82 90 84 80 86 81 75 65 79 91 77 80 80.6",
    "patch_uniform": "24.5 67 68 70 74 83 81 77 80 74 75 62 77 84 71 71 74.3",
    "autoaugment": "22.8 69 68 72 77 83 80 81 79 75 64 56 70 88 57 71 72.7",
    "random_autoaugment": "23.6 70 71 72 80 86 82 81 81 77 72 61 75 88 73 72 76.1",
    "max_blur_pool": "23.0 73 74 76 74 86 78 77 77 72 63 56 68 86 71 71 73.4",
    "stylized": "27.2 69 70 70 77 84 76 82 74 75 69 65 69 80 64 77 73.3",
    "augmix": "22.4 65 66 67 70 80 66 66 75 72 67 58 58 79 69 69 68.4",
    "apr_s": "24.5 61 64 60 73 87 72 81 72 67 62 56 70 83 79 71 70.5",
    "apr_p": "24.4 64 68 68 70 89 69 81 69 69 55 57 58 85 66 72 69.3",
    "apr_sp": "24.4 55 61 54 68 84 68 80 62 62 49 53 57 83 70 69 65.0",
    "deepaugment": "26.3 49 49 48 62 74 68 79 68 64 64 57 63 78 50 73 63.1",
    "deepaugment+apr_sp": "26.4 44 45 41 57 70 60 79 56 56 50 54 54 78 47 71 57.5",
}


def table_4() -> dict[str, Cells]:
    """Row -> "error", corruption, "mce" -> clean error, CE, mCE."""
    rows = {row: map(float, line.split()) for row, line in _TABLE_4.items()}
    return _named(("error", *CORRUPTIONS, "mce"), rows)
