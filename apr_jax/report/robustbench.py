"""RobustBench's entries for common corruptions on CIFAR, as facts beside ours.

Source: the files of ``model_info/cifar10/corruptions`` and ``.../cifar100/corruptions``
of https://github.com/RobustBench/robustbench as of 31 March 2025 (commit 78fcc9e):
accuracy in percent on CIFAR's test images, and the mean over all fifteen corruptions in
five severities of CIFAR-10-C or CIFAR-100-C, 10,000 images each. Croce et al.,
"RobustBench: a standardized adversarial robustness benchmark", NeurIPS 2021.
"""

from typing import NamedTuple

SOURCE = "RobustBench, 31 March 2025"
IMAGES = 75 * 10_000  # behind each mean


class Entry(NamedTuple):
    """A network of the benchmark.

    Attributes:
        name: of its file there; who and when, and which network.
        architecture: as it is called there.
        clean, corrupted: accuracy in percent.
        extra_data: whether it learned from other images, too.
    """

    name: str
    architecture: str
    clean: float
    corrupted: float
    extra_data: bool


# Name, architecture, accuracy, accuracy under corruption, whether from extra data.
_ROWS = {
    "cifar10-c": """
Diffenderfer2021Winning_LRR_CARD_Deck WideResNet-18-2 96.56 92.78 -
Erichson2022NoisyMix WideResNet-28-4 96.73 92.78 -
Calian2021Defending ResNet-50 94.93 92.17 extra
Diffenderfer2021Winning_LRR WideResNet-18-2 96.66 90.94 -
Diffenderfer2021Winning_Binary_CARD_Deck WideResNet-18-2 95.09 90.15 -
Kireev2021Effectiveness_RLATAugMix ResNet-18 94.75 89.60 -
Hendrycks2020AugMix_ResNeXt ResNeXt29_32x4d 95.83 89.09 -
Modas2021PRIMEResNet18 ResNet-18 93.06 89.05 -
Hendrycks2020AugMix_WRN WideResNet-40-2 95.08 88.82 -
Kireev2021Effectiveness_RLATAugMixNoJSD PreActResNet-18 94.77 88.53 -
Diffenderfer2021Winning_Binary WideResNet-18-2 94.87 88.32 -
Rebuffi2021Fixing_70_16_cutmix_extra_L2 WideResNet-70-16 95.74 88.23 extra
Gowal2020Uncovering_70_16_extra_L2 WideResNet-70-16 94.74 87.68 extra
Kireev2021Effectiveness_AugMixNoJSD PreActResNet-18 94.97 86.60 -
Kireev2021Effectiveness_Gauss50percent PreActResNet-18 93.24 85.04 -
Gowal2020Uncovering_70_16_L2 WideResNet-70-16 90.90 84.90 -
Kireev2021Effectiveness_RLAT PreActResNet-18 93.10 84.10 -
Rebuffi2021Fixing_70_16_cutmix_extra_Linf WideResNet-70-16 92.23 82.82 extra
Gowal2020Uncovering_70_16_extra_Linf WideResNet-70-16 91.10 81.84 extra
Addepalli2022Efficient_WRN_34_10 WideResNet-34-10 88.71 80.12 -
Addepalli2021Towards_WRN34 WideResNet-34-10 85.32 76.78 -
Gowal2020Uncovering_70_16_Linf WideResNet-70-16 85.29 76.37 -
Standard WideResNet-28-10 94.78 73.46 -
""",
    "cifar100-c": """
Erichson2022NoisyMix WideResNet-28-4 81.16 72.06 -
Diffenderfer2021Winning_LRR_CARD_Deck WideResNet-18-2 79.93 71.08 -
Diffenderfer2021Winning_Binary_CARD_Deck WideResNet-18-2 78.50 69.09 -
Modas2021PRIMEResNet18 ResNet-18 77.60 68.28 -
Diffenderfer2021Winning_LRR WideResNet-18-2 78.41 66.45 -
Diffenderfer2021Winning_Binary WideResNet-18-2 77.69 65.26 -
Hendrycks2020AugMix_ResNeXt ResNeXt29_32x4d 78.90 65.14 -
Hendrycks2020AugMix_WRN WideResNet-40-2 76.28 64.11 -
Addepalli2022Efficient_WRN_34_10 WideResNet-34-10 68.75 56.95 -
Gowal2020Uncovering_extra_Linf WideResNet-70-16 69.15 56.00 extra
Addepalli2021Towards_WRN34 WideResNet-34-10 65.73 54.88 -
Addepalli2021Towards_PARN18 PreActResNet-18 62.02 51.77 -
Gowal2020Uncovering_Linf WideResNet-70-16 60.86 49.46 -
""",
}


def entries(data: str) -> tuple[Entry, ...]:
    """The entries of "cifar10-c" or "cifar100-c", the best first; none of others."""
    found = []
    for line in _ROWS.get(data, "").split("\n"):
        if line:
            name, architecture, clean, corrupted, extra = line.split()
            numbers = float(clean), float(corrupted)
            found.append(Entry(name, architecture, *numbers, extra == "extra"))
    return tuple(found)
