"""Classifiers of weights in PyTorch files, for the networks of this project."""

import dataclasses
import pathlib
from collections.abc import Sequence

from apr_jax import augment, console, data
from apr_jax import config as config_lib
from apr_jax.data import imagenet
from apr_jax.errors import ConfigError, DataError
from apr_jax.evaluate.classifier import Classifier, make
from apr_jax.models import torch_weights


def from_weights(
    path: pathlib.Path,
    config: config_lib.Config,
    names: Sequence[str] | int | None = None,
) -> Classifier:
    """A network with weights of a PyTorch file.

    Args:
        path: a state dictionary that ``torch.save`` wrote; reading it needs PyTorch.
            A normalisation in it takes the place of the configuration's.
        config: names the network, and the data whose classes it tells apart.
        names: of its classes in the order of its logits, or how many there are; then
            the data needn't be there. None: those of the data.

    Raises:
        ConfigError: PyTorch isn't installed, or the file's tensors don't fit.
        DataError: the file can't be read, or the data aren't there.
    """
    method = augment.get_method(config.augment.method)
    if method.loss.projects:
        raise ConfigError(
            f"augment.method is {config.augment.method!r}, whose networks have further "
            f"layers, which {path} hasn't; choose 'standard'"
        )
    try:
        loaded = torch_weights.load_file(config.model.name, path)
    except DataError:
        raise
    except (ImportError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from error
    if names is None:
        names = _names_of_data(config.data)
    elif isinstance(names, int):
        own = loaded.class_names
        names = own if len(own) == names else tuple(map(str, range(names)))
    _check_classes(path, loaded, names, method.heads)
    config = _with_normalisation(config, path, loaded)
    made = make(config, loaded.variables, names, name=path.stem)
    return dataclasses.replace(made, file=str(path))


def _names_of_data(described: config_lib.Data) -> Sequence[str]:
    if described.streaming:
        return imagenet.class_names(described)
    return data.load(described, splits=[described.test_split]).class_names


def _check_classes(
    path: pathlib.Path, loaded: torch_weights.Loaded, names: Sequence[str], heads: int
) -> None:
    """Raises ConfigError where weights tell other classes apart than the data have."""
    if loaded.outputs != heads * len(names):
        raise ConfigError(
            f"{path} has {loaded.outputs} outputs; the data have {len(names)} classes, "
            f"{', '.join(names[:3])}, …{f', for {heads} heads' if heads > 1 else ''}"
        )
    theirs = loaded.class_names
    if theirs and theirs != tuple(names):
        first = f"{path} calls its classes {', '.join(theirs[:3])}, …, the data theirs "
        text = first + f"{', '.join(names[:3])}, …"
        if sorted(theirs) == sorted(names):
            raise ConfigError(f"{text}: the same ones in another order")
        console.say(f"{text}; they are taken to be the same, in this order")


def _with_normalisation(
    config: config_lib.Config, path: pathlib.Path, loaded: torch_weights.Loaded
) -> config_lib.Config:
    """The configuration with the normalisation that weights brought, if they did."""
    if loaded.mean is None or loaded.std is None:
        return config
    channels = len(config.data.mean)
    if len(loaded.mean) not in (1, channels):
        raise ConfigError(
            f"{path}: its normalisation has {len(loaded.mean)} channels, data.mean "
            f"{channels}"
        )
    repeats = channels // len(loaded.mean)
    mean, std = loaded.mean * repeats, loaded.std * repeats
    described = dataclasses.replace(config.data, mean=mean, std=std)
    if described != config.data:
        console.say(
            f"{path.name} brings its own normalisation, mean {mean} and standard "
            f"deviation {std}; it takes the configuration's place"
        )
    return dataclasses.replace(config, data=described)
