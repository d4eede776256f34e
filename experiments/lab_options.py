"""What the command line of an experiment asks for: knobs of a size, and the data."""

import argparse
import json
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import ml_collections

from apr_jax import presets
from apr_jax.errors import ConfigError


def turned(knobs: Mapping[str, Any], given: Sequence[str]) -> dict[str, Any]:
    """The knobs of a size, with those that the command line sets.

    Raises:
        ConfigError: no such knob, no JSON, or a value of another type.
    """
    found = dict(knobs)
    for text in given:
        name, _, value = text.partition("=")
        if name not in knobs:
            listed = ", ".join(knobs)
            raise ConfigError(f"--knob is {text!r}; choose from {listed}")
        try:
            new = json.loads(value)
        except json.JSONDecodeError:
            new = value  # a word needs no quotes
        if isinstance(new, list):
            new = tuple(new)
        if isinstance(knobs[name], float) and type(new) is int:
            new = float(new)
        if type(new) is not type(knobs[name]):
            raise ConfigError(
                f"--knob is {text!r}; {name} must be like {knobs[name]!r}"
            )
        found[name] = new
    return found


def unusual(
    options: argparse.Namespace, parser: argparse.ArgumentParser
) -> Iterator[str]:
    """Words for the data, size and seed where they aren't an experiment's default.

    What they give never stands beside the default's numbers in one file.
    """
    for flag in ("set", "size", "seed"):
        value = getattr(options, flag)
        if value != parser.get_default(flag):
            word = re.sub(r"\W+", "_", str(value)).strip("_")
            yield word if flag != "seed" else f"seed{word}"


def base_of(options: argparse.Namespace) -> ml_collections.ConfigDict:
    """The configuration that the command line's data options describe."""
    kind, _, where = options.set.partition(":")
    if kind == "bundled":
        base = presets.quickstart("standard")
    elif kind in ("arrays", "folder", "parquet"):
        if not where:
            raise ConfigError(f"--set {kind}: needs a folder, {kind}:FOLDER")
        base = presets.cifar("wrn_10_1,standard,cifar10")
        name = pathlib.Path(where).name
        base.data.update(
            source=kind, name=name, data_dir=where, image_size=options.image_size
        )
    else:
        try:
            base = presets.cifar(f"wrn_10_1,standard,{kind}")
        except ValueError as error:
            raise ConfigError(f"--set: {error}") from error
        base.data.data_dir = options.data_dir
    base.seed = options.seed
    base.data.cache_dir = options.cache_dir
    base.train.update(tensorboard=False, watch=())
    return base
