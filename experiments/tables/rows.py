"""The methods that the tables compare: one row each, one program trains them all."""

import dataclasses
from typing import Any

from apr_jax import augment, presets


@dataclasses.dataclass(frozen=True)
class Row:
    """One method: the heading of its row, and how its configuration differs."""

    label: str
    method: str  # of apr_jax.augment.AUGMENTS, or several joined by "+"
    changes: dict[str, Any] = dataclasses.field(default_factory=dict)
    small: dict[str, Any] = dataclasses.field(default_factory=dict)  # on top of them
    run: str = ""  # the row whose runs this one shows too; "": it has its own

    @property
    def mixes(self) -> bool:
        """Whether it mixes in images of ``data.extra_dirs``."""
        return "data.extra_ratio" in self.changes


def _mixed(*names: str) -> dict[str, Any]:
    """The difference of a configuration with images of ``presets.EXTRA``."""
    return {"data.extra_ratio": presets.extra_ratio(*names)}


# One program trains them all; the keys are those of ``--rows``, which takes any other
# method, too.
ROWS: dict[str, Row] = {
    "standard": Row("Standard", "standard"),
    "cutout": Row("Cutout", "cutout"),
    "mixup": Row("Mixup", "mixup"),
    "cutmix": Row("CutMix", "cutmix"),
    "adversarial": Row(
        "Adversarial training (PGD)",
        "standard",
        {
            "adversary.attack": "pgd",
            "adversary.step_size": 2 / 255,
            "adversary.steps": 7,
        },
        # So small a network resists no more.
        {"adversary.eps": 4 / 255, "adversary.steps": 3},
    ),
    "apr_p": Row("APR-P", "apr_p"),
    "autoaugment": Row("AutoAugment", "autoaugment"),
    "random_autoaugment": Row("Random AutoAugment", "random_autoaugment"),
    "augmix": Row("AugMix", "augmix"),
    "augmix_no_jsd": Row("AugMix without its loss", "augmix_no_jsd"),
    "patch_gaussian": Row("Patch Gaussian", "patch_gaussian"),
    "patch_uniform": Row("Patch Uniform", "patch_uniform"),
    "max_blur_pool": Row("MaxBlurPool", "standard", {"model.name": "resnet50_blur"}),
    "supclr": Row("SupCLR", "supclr"),
    "csi": Row("CSI", "csi"),
    "csi_turns": Row("CSI, over four turns", "csi", run="csi"),
    "apr_s": Row("APR-S", "apr_s"),
    "apr_sp": Row("APR-SP", "apr_sp"),
    **{
        f"apr_sp_js{weight}": Row(
            f"APR-SP, like answers × {weight}",
            "apr_sp",
            {"augment.pair_consistency": float(weight)},
        )
        for weight in (2, 6, 12)
    },
    # Recipes that smooth labels do so for all rows but these.
    **{
        f"{name}_hard_labels": Row(
            f"{label}, labels not smoothed", name, {"augment.label_smoothing": 0.0}
        )
        for name, label in (("standard", "Standard"), ("apr_sp", "APR-SP"))
    },
    "apr_p_heads": Row("APR-P, two heads", "apr_p_heads"),
    "hybrid_augment": Row("HybridAugment-P", "hybrid_augment"),
    "hybrid_augment_pp": Row("HybridAugment++-P", "hybrid_augment_pp"),
    "hybrid_augment_pp_ps": Row(
        "HybridAugment++-PS", "hybrid_augment_pp_s+hybrid_augment_pp"
    ),
    "amplitude_mix": Row("Amplitude mix (FACT)", "amplitude_mix"),
    "low_amplitude_swap": Row("Low amplitudes swapped (FDA)", "low_amplitude_swap"),
    "afa": Row("Fourier-basis waves, own BatchNorm (AFA)", "afa"),
    "vital_phase": Row("Vital phase (VIPAug)", "vital_phase"),
    "trivialaugment": Row("TrivialAugment", "trivialaugment"),
    "prime": Row("PRIME without the Jensen-Shannon loss", "prime"),
    "prime_jsd": Row("PRIME", "prime_jsd"),
    "noisymix": Row("NoisyMix", "noisymix"),
    "mollify": Row("Mollification", "mollify"),
    "stylized": Row("Stylised ImageNet", "standard", _mixed("stylized")),
    "deepaugment": Row("DeepAugment", "standard", _mixed("deepaugment")),
    "deepaugment+apr_sp": Row(
        "DeepAugment and APR-SP", "apr_sp", _mixed("deepaugment")
    ),
}


# What may be joined by "+": methods, and images that are mixed in.
_PARTS = (*augment.AUGMENTS, augment.ONE_VIEW, *presets.EXTRA)

# What ``row_of`` takes, for people to read.
CHOICES = (
    f'{", ".join(ROWS)}; or methods joined by "+", as in apr_p+patch_uniform, of '
    + ", ".join(_PARTS)
)


def row_of(name: str) -> Row:
    """The entry of ``ROWS``; any other method, or several joined by "+", is a row, too.

    Raises:
        ValueError: neither, or methods that don't go together.
    """
    if name in ROWS:
        return ROWS[name]
    parts = name.split("+")
    if not set(parts) <= set(_PARTS):
        raise ValueError(f"unknown row {name!r}; choose from {CHOICES}")
    mixed = [part for part in parts if part in presets.EXTRA]
    methods = [part for part in parts if part not in mixed]
    method = "+".join(methods) or "standard"
    augment.get_method(method)  # raises where they don't
    if len(set(mixed)) < len(mixed):
        raise ValueError(f"row {name!r} mixes in the same images twice")
    labels = [_LABELS.get(part, part) for part in (*mixed, *methods)]
    return Row(" + ".join(labels), method, _mixed(*mixed) if mixed else {})


def canonical(name: str) -> str:
    """The one name of a row that can be spelled in several ways.

    The key of ``ROWS`` where it is one of those; otherwise its parts in order, where
    the order makes no difference.

    Raises:
        ValueError: as ``row_of``.
    """
    row = row_of(name)
    if name in ROWS:
        return name
    alike = lambda r: (augment.get_method(r.method), r.changes, r.small, r.run)
    for key in (*ROWS, "+".join(sorted(name.split("+")))):
        if alike(row_of(key)) == alike(row):
            return key
    return name


# Of rows that are one method, or one set of images, and nothing else.
_LABELS = {
    key if row.mixes else row.method: row.label
    for key, row in ROWS.items()
    if (row.method in augment.AUGMENTS and not row.changes and not row.run)
    or key in presets.EXTRA
} | {augment.ONE_VIEW: "one view"}
