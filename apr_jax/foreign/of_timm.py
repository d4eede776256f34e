"""Networks of timm by name."""

import math
import pathlib
from collections.abc import Mapping
from typing import Any

from apr_jax.errors import ConfigError, words
from apr_jax.foreign.fill import Filled, fill
from apr_jax.foreign.preprocessing import Given, interpolated, square, synsets, unknown
from apr_jax.models import state_dicts


def load(name: str, weights: pathlib.Path | None) -> Given:
    """A network that timm has, such as "resnet18" or "resnet18.a1_in1k".

    Args:
        name: with or without the tag of its weights.
        weights: a file of them; None: timm's own, which it downloads.

    Raises:
        ConfigError: timm hasn't it, the weights don't fit or can't be downloaded.
    """
    import timm

    if not timm.is_model(name):
        raise unknown("timm", name, timm.list_models())
    arch, _, tag = name.partition(".")
    tags = timm.list_pretrained(f"{arch}.*")
    if tag and name not in tags:
        raise unknown("timm", name, tags)
    if weights is not None:
        return _filled(name, {}, state_dicts.read(weights), weights)
    try:
        module = timm.create_model(name, pretrained=True)
    except Exception as error:  # of any of the ways to download
        raise ConfigError(
            f"timm can't load the weights of {name!r}: {_line(error)}. --weights FILE "
            "names a file of them"
        ) from error
    return _given(name, Filled(module.eval(), None, None, ()))


def from_config(
    config: Mapping[str, Any], content: Mapping[str, Any], path: pathlib.Path
) -> Given:
    """A network of timm as a repository on the hub describes it.

    Args:
        config: of its ``config.json``: architecture, arguments, preprocessing.
        content: of its file of weights.
        path: the file's.
    """
    import timm

    name = str(config["architecture"])
    if not timm.is_model(name):
        raise unknown("timm", name, timm.list_models())
    own = dict(config.get("pretrained_cfg") or {})
    options = dict(config.get("model_args") or {})
    given = _filled(name, {"pretrained_cfg": own, **options}, content, path)
    names = tuple(map(str, config.get("label_names") or own.get("label_names") or ()))
    return given._replace(classes=(names,)) if names else given


def _filled(
    name: str, options: dict[str, Any], content: Mapping[str, Any], path: pathlib.Path
) -> Given:
    import timm

    def make(classes: int | None) -> Any:
        count = {} if classes is None else {"num_classes": classes}
        return timm.create_model(name, pretrained=False, **{**options, **count})

    return _given(name, fill(make, content, path))


def _given(name: str, filled: Filled) -> Given:
    from timm.data import resolve_data_config

    told = resolve_data_config({}, model=filled.module)
    size = square(name, *told["input_size"])
    apart = interpolated(told["interpolation"])
    if told["crop_mode"] != "center":
        apart = (*apart, f"the centre where theirs is {told['crop_mode']!r}")
    return Given(
        module=filled.module,
        name=name,
        image_size=size,
        resize=max(size, math.floor(size / told["crop_pct"])),
        mean=filled.mean or tuple(told["mean"]),
        std=filled.std or tuple(told["std"]),
        classes=(filled.class_names,)
        if filled.class_names
        else synsets(filled.module.num_classes),
        apart=apart,
    )


def _line(error: Exception) -> str:
    return " ".join(words(error).split())[:200]
