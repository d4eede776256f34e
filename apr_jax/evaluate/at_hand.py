"""What a part of the card measures by default: what the data at hand allow."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from apr_jax import config as config_lib
from apr_jax import console
from apr_jax.corruptions import frost_files
from apr_jax.data import tfds
from apr_jax.errors import DataError
from apr_jax.evaluate import corruption

# Out sets of CIFAR in the literature that TensorFlow Datasets has; for a network of
# CIFAR's the other one is near, as OpenOOD counts.
_USUAL_OUT_SETS = ("svhn_cropped", "cifar10", "cifar100")
# Natural shifts that it has, by the set whose classes they are of.
_USUAL_SHIFTS = {
    "cifar10": ("cifar10_1",),
    "imagenet2012": ("imagenet_v2", "imagenet_a", "imagenet_r", "imagenet_sketch"),
}


def settings_of(part: str, config: config_lib.Config) -> Any:
    """The settings of a part, less all that can't be measured; "clean" has none.

    Raises:
        DataError: there are no data for it.
    """
    if part == "corruption":
        return _where_frost_is(config.eval.corruption, config.data)
    if part == "shift":
        return _with_shifted_sets(config)
    return with_out_sets(config) if part == "ood" else getattr(config.eval, part, None)


def _where_frost_is(
    settings: config_lib.Corruption, described: config_lib.Data
) -> config_lib.Corruption:
    """The same corruptions, but frost only where its photographs are."""
    names = corruption.names_of(settings, described)
    if "frost" in names and settings.source == "generated":
        try:
            frost_files.load(settings.frost_dir)
        except FileNotFoundError as why:
            console.say(f"frost is left out: {why}")
            names = tuple(name for name in names if name != "frost")
    sets = config_lib.Corruption().sets
    return dataclasses.replace(settings, corruptions=names, sets=sets)


def _prepared(described: config_lib.Data, names: Sequence[str]) -> list[str]:
    """Those of TFDS's sets that are where the data are, without the data's own."""
    if described.source != "tfds":
        return []
    return [
        name
        for name in names
        if name != described.name.partition(":")[0]
        and tfds.is_prepared(dataclasses.replace(described, name=name))
    ]


def _with_shifted_sets(config: config_lib.Config) -> config_lib.Shift:
    """The shifted sets that are listed, or the usual ones that are prepared."""
    settings, described = config.eval.shift, config.data
    usual = _USUAL_SHIFTS.get(described.name.partition(":")[0], ())
    if settings.shift:
        return settings
    found = _prepared(described, usual)
    if not found and not settings.cue_conflict and not settings.perturbations:
        about = f", and of the usual sets ({', '.join(usual)}) none is prepared in "
        raise DataError(
            f"eval.shift.shift is empty{about + 'data.data_dir' if usual else ''}"
        )
    sets = tuple(f"{name}=tfds:{name}" for name in found)
    return dataclasses.replace(settings, shift=sets)


def with_out_sets(config: config_lib.Config) -> config_lib.Ood:
    """The out sets that are listed, or the usual ones that are prepared."""
    settings, described = config.eval.ood, config.data
    if settings.out or settings.scores_file or settings.protocol != "own":
        return settings
    # Of cifar10_1 and cifar10_corrupted cifar10 has the known classes.
    family = described.name.partition(":")[0].partition("_")[0]
    others = [n for n in _USUAL_OUT_SETS if n.partition("_")[0] != family]
    found = [] if described.streaming else _prepared(described, others)
    if not found:
        raise DataError(
            "eval.ood.out is empty, and of the usual sets "
            f"({', '.join(_USUAL_OUT_SETS)}) none is prepared in data.data_dir"
        )
    near = [n for n in found if {n, family} == {"cifar10", "cifar100"}]
    return dataclasses.replace(
        settings,
        out=tuple(f"{name}=tfds:{name}" for name in found),
        near=settings.near or tuple(near),
    )
