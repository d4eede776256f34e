"""Networks of torchvision by name."""

import hashlib
import pathlib
from typing import Any

from apr_jax.errors import ConfigError, words
from apr_jax.foreign.fill import fill
from apr_jax.foreign.preprocessing import Given, interpolated, square, synsets, unknown
from apr_jax.models import state_dicts

# What the makers of these networks change for weights of torchvision's own.
_TRAINED = {
    name: {"transform_input": True, "init_weights": False}
    for name in ("googlenet", "inception_v3")
}


def load(name: str, weights: pathlib.Path | None) -> Given:
    """A network that torchvision has, such as "resnet50" or "resnet50.IMAGENET1K_V1".

    Args:
        name: of a network that classifies, and of its weights where there are several.
        weights: a file of them, torchvision's if its checksum says so; None:
            torchvision's, which are downloaded.

    Raises:
        ConfigError: torchvision hasn't it, the weights don't fit or can't be
            downloaded.
    """
    import torchvision

    models = torchvision.models
    arch, _, tag = name.partition(".")
    names = models.list_models(module=models)
    if arch not in names:
        raise unknown("torchvision", name, names)
    entries = {entry.name: entry for entry in models.get_model_weights(arch)}
    if tag and tag not in entries:
        raise unknown("torchvision", name, [f"{arch}.{entry}" for entry in entries])
    entry = entries[tag] if tag else models.get_model_weights(arch).DEFAULT
    apart: tuple[str, ...] = ()
    if weights is None:
        content, path = _downloaded(name, entry), pathlib.Path(entry.url).name
    else:
        content, path = state_dicts.read(weights), str(weights)
        own = _of_checksum(weights, list(entries.values()))
        if own is None and not tag:
            apart = (f"as for {entry.name}, since the file is none of torchvision's",)
        entry = own or entry
    told = entry.transforms()
    (size,), (resize,) = told.crop_size, told.resize_size
    options = dict(_TRAINED.get(arch, {}))
    if arch.startswith("vit_"):
        options["image_size"] = size

    def make(classes: int | None) -> Any:
        count = {} if classes is None else {"num_classes": classes}
        return models.get_model(arch, weights=None, **options, **count)

    filled = fill(make, content, path)
    return Given(
        module=filled.module,
        name=arch,
        image_size=square(name, 3, size, size),
        resize=resize,
        mean=filled.mean or tuple(told.mean),
        std=filled.std or tuple(told.std),
        classes=_classes(filled.class_names, entry, filled.module),
        apart=(*interpolated(told.interpolation), *apart),
    )


def _classes(
    said: tuple[str, ...], entry: Any, module: Any
) -> tuple[tuple[str, ...], ...]:
    """Names of the classes: the file's, or ImageNet's in words and as synsets."""
    if said:
        return (said,)
    names = tuple(entry.meta["categories"])
    *_, last = module.state_dict().values()
    return (names, *synsets(len(names))) if len(last) == len(names) else ()


def _of_checksum(path: pathlib.Path, entries: list[Any]) -> Any:
    """The weights whose address ends with the beginning of a file's checksum."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    for entry in entries:
        if digest.startswith(pathlib.Path(entry.url).stem.rpartition("-")[2]):
            return entry
    return None


def _downloaded(name: str, entry: Any) -> Any:
    try:
        return entry.get_state_dict(
            progress=False, check_hash=True, weights_only=True, map_location="cpu"
        )
    except Exception as error:  # of the network, the disk, the file
        raise ConfigError(
            f"torchvision can't load the weights of {name!r}: {words(error)}. "
            "--weights FILE names a file of them"
        ) from error
