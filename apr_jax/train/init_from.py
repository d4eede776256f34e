"""Trained weights that a run begins with, instead of random ones.

They are those of another run, or of a file of PyTorch or safetensors. Where they tell
other classes apart, the last layer begins anew; so do layers that a method has beside
the network.
"""

import functools
import pathlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from apr_jax import augment, network
from apr_jax import config as config_lib
from apr_jax.console import say
from apr_jax.errors import ConfigError, DataError
from apr_jax.gates import code_files, places, stores
from apr_jax.models import torch_weights
from apr_jax.models.projected import HEADS
from apr_jax.runs import checkpoint, weights
from apr_jax.runs import workdir as workdir_lib
from apr_jax.train import auxiliary_norm
from apr_jax.train.state import TrainState, state_of

_FIELD = "train.init_from"
Flat = dict[tuple[str, ...], Any]


def read_run(
    root: stores.Place, config: config_lib.Config, names: tuple[str, ...]
) -> tuple[int, Mapping[str, Any]]:
    """Returns (step, variables) of a run, in the last state that was saved.

    Args:
        root: the work directory, which is only read.
        config: the run's own.
        names: of the classes that it tells apart.

    Raises:
        ConfigError: it has no checkpoint yet.
        CheckpointError: none of its checkpoints can be read.
        DataError: it is reduced to its weights, and they can't be read.
    """
    run = workdir_lib.RunDir(root)
    if workdir_lib.is_reduced(root):
        return weights.read(run)
    model = network.make_model(config, num_classes=len(names))
    like = jax.eval_shape(lambda: state_of(config, model))
    owner = config_lib.config_hash(config)
    saved = checkpoint.Reader(run.checkpoints, owner=owner)
    found = saved.restore(like)
    saved.close()
    if found is None:
        raise ConfigError(
            f"{root} has no checkpoint yet; its training has not got that far"
        )
    step, state = found
    return step, state.variables


def _place(config: config_lib.Config) -> pathlib.Path:
    """The run or file that a configuration names, ``zoo:NAME`` among them."""
    given = config.train.init_from
    if given.startswith(places.ZOO):
        return places.zoo(given, _FIELD)
    return pathlib.Path(given)


def check(config: config_lib.Config) -> None:
    """Raises ConfigError if there are no weights to begin with, or another network's.

    Of a file that is seen when it is read.
    """
    place = _place(config)
    if place.is_dir():
        _, other = workdir_lib.open_run(place)
        # A network's file may have moved.
        one, its = (config_lib.identity(c).get("model.name") for c in (config, other))
        if one != its:
            raise ConfigError(
                f"{_FIELD} is {str(place)!r}, a {other.model.name}; model.name is "
                f"{config.model.name!r}"
            )
    elif not place.is_file():
        raise ConfigError(
            f"{_FIELD} is {str(place)!r}, which isn't there; give a run's directory or "
            "a file of weights"
        )


def begin(
    config: config_lib.Config, state: TrainState, names: tuple[str, ...]
) -> TrainState:
    """Returns the first state of a run with trained weights in it.

    Args:
        config: that of the run; ``train.init_from`` says where the weights are.
        state: the first state with random weights.
        names: of the classes that the run tells apart.

    Raises:
        ConfigError: the weights don't fit the network or its normalisation.
        DataError, CheckpointError: they can't be read.
    """
    check(config)
    place = _place(config)
    if place.is_dir():
        run, other = workdir_lib.open_run(place)
        theirs = workdir_lib.read_class_names(run)
        step, variables = read_run(place, other, theirs)
        mean, std = other.data.mean, other.data.std
        said = f"{place}, step {step:,}"
    else:
        loaded = _read(place, config)
        variables, theirs = loaded.variables, loaded.class_names
        mean, std = (loaded.mean or config.data.mean, loaded.std or config.data.std)
        said = str(place)
    if not (_same(mean, config.data.mean) and _same(std, config.data.std)):
        raise ConfigError(
            f"{_FIELD}: {place} was trained with data.mean {tuple(mean)} and data.std "
            f"{tuple(std)}; this run has {config.data.mean} and {config.data.std}"
        )
    hidden = _hidden(config, state, names)
    params, fresh = _merged(
        place, state.params, variables["params"], theirs, names, hidden
    )
    stats, _ = _merged(place, state.batch_stats, variables.get("batch_stats", {}))
    if augment.get_method(config.augment.method).auxiliary:
        params, stats = auxiliary_norm.add(
            auxiliary_norm.without(params), auxiliary_norm.without(stats)
        )
    beginning = f"; begins anew: {', '.join(fresh)}" if fresh else ""
    say(f"begins with the weights of {said}{beginning}")
    average = state.average
    if average != ():
        average = jax.tree.map(np.copy, {"params": params, "batch_stats": stats})
    return state.replace(
        params=params,
        batch_stats=stats,
        average=average,
        constants=variables.get("constants", state.constants),
    )


def _read(place: pathlib.Path, config: config_lib.Config) -> torch_weights.Loaded:
    """A file's weights of the network of a run."""
    try:
        return torch_weights.load_file(config.model.name, place)
    except DataError:
        raise
    except (ImportError, ValueError) as error:
        raise ConfigError(f"{_FIELD}: {place}: {error}") from error


def _same(theirs: Any, ours: tuple[float, ...]) -> bool:
    """Whether numbers of each channel, or one for all, are these."""
    return np.allclose(np.broadcast_to(theirs, len(ours)), ours, atol=1e-3)


def _hidden(
    config: config_lib.Config, state: TrainState, names: Sequence[str]
) -> set[tuple[str, ...]]:
    """The linear layers of a network of one's own that aren't its last.

    Built-in networks have none.
    """
    if not code_files.named(config.model.name):
        return set()
    seen: list[tuple[str, ...]] = []

    def note(function: Any, args: Any, kwargs: Any, context: Any) -> Any:
        if isinstance(context.module, nn.Dense) and context.method_name == "__call__":
            seen.append(context.module.path)
        return function(*args, **kwargs)

    model = network.make_model(config, num_classes=len(names))
    size = config.data.image_size
    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    see = functools.partial(model.apply, train=False)
    with nn.intercept_methods(note):
        jax.eval_shape(see, state.variables, images)
    return {path for path in seen if path != seen[-1] and HEADS not in path}


def _merged(
    place: pathlib.Path,
    own: Mapping[str, Any],
    found: Mapping[str, Any],
    theirs: tuple[str, ...] = (),
    names: tuple[str, ...] = (),
    hidden: Collection[tuple[str, ...]] = (),
) -> tuple[Any, list[str]]:
    """Weights found, in the tree of a run's own; and the layers that begin anew.

    The last layer does where its classes are others in number, or by their names.

    Raises:
        ConfigError: other layers differ.
    """
    here: Flat = traverse_util.flatten_dict(dict(auxiliary_norm.without(own)))
    there: Flat = traverse_util.flatten_dict(dict(found))
    last = {path[:-1] for path in here if path[-1] == "kernel"}
    last = {path for path in last if here[*path, "kernel"].ndim == 2} - {*hidden}
    others = bool(theirs) and tuple(theirs) != tuple(names)
    fresh, odd = set(), []
    for path, value in here.items():
        layer = path[:-1]
        if path in there and np.shape(there[path]) == np.shape(value):
            if not (others and layer in last):
                continue
        elif layer not in last and HEADS not in path:
            odd.append("/".join(path))
        fresh.add(layer)
    odd += ["/".join(p) for p in there if p not in here and p[:-1] not in last]
    if odd:
        more = ", …" if len(odd) > 3 else ""
        raise ConfigError(
            f"{_FIELD}: {place} has another network's weights: {len(odd)} of them are "
            f"not in both, or differ in shape: {', '.join(odd[:3])}{more}"
        )
    merged = {
        path: value if path[:-1] in fresh else jnp.asarray(there[path], value.dtype)
        for path, value in here.items()
    }
    kept = {k: v for k, v in own.items() if k == auxiliary_norm.KEY}
    tree = traverse_util.unflatten_dict(jax.tree.map(np.asarray, merged))
    return tree | kept, sorted("/".join(layer) for layer in fresh)
