"""Weights of files in PyTorch modules, tensor by tensor, without running their code."""

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from apr_jax.errors import ConfigError
from apr_jax.models import state_dicts


class Filled(NamedTuple):
    """A module with the weights of a file.

    Attributes:
        module: in evaluation mode.
        mean, std: of the normalisation among the tensors; None without.
        class_names: as the file says them; () where it doesn't.
    """

    module: Any
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    class_names: tuple[str, ...]


def fill(
    make: Callable[[int | None], Any],
    content: Mapping[str, Any],
    path: str | os.PathLike[str],
) -> Filled:
    """A module with the tensors of a file, of as many classes as they are for.

    Args:
        make: gives a ``torch.nn.Module`` for a number of classes; None: its usual one.
        content: of the file, as ``state_dicts.read`` gives it: wrappers are opened,
            prefixes of names taken off, a normalisation is put aside.
        path: its name, for messages.

    Raises:
        ConfigError: tensors are missing, unexpected, of another shape, or not finite.
    """
    try:
        tensors, mean, std = state_dicts.split_normalisation(state_dicts.flat(content))
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error
    tensors = state_dicts.without_common(tensors)
    module = make(None)
    own = _own(module)
    if (count := _classes(own, tensors)) is not None:
        module = make(count)
        own = _own(module)
    _check(own, tensors, f"{path} has no weights of {type(module).__name__}")
    _put(own, tensors)
    names = state_dicts.class_names(content)
    return Filled(module.eval(), mean, std, names)


def _own(module: Any) -> dict[str, Any]:
    """A module's tensors by names as short as those of a file become."""
    found = {
        state_dicts.short(name): tensor for name, tensor in module.state_dict().items()
    }
    return state_dicts.without_common(
        {k: v for k, v in found.items() if not state_dicts.counts(k)}
    )


def _classes(own: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> int | None:
    return classes_of(
        {
            (tuple(own[name].shape), tensor.shape)
            for name, tensor in tensors.items()
            if name in own and tuple(own[name].shape) != tensor.shape
        }
    )


def classes_of(differ: Collection[tuple[Sequence[int], Sequence[int]]]) -> int | None:
    """The classes of a last layer that differs from a module's by nothing else.

    Args:
        differ: the shapes of tensors in the module and in the file, where they differ.
    """
    if not differ or not all(a and b and a[1:] == b[1:] for a, b in differ):
        return None
    counts = {(a[0], b[0]) for a, b in differ}
    return counts.pop()[1] if len(counts) == 1 else None


def _check(
    own: Mapping[str, Any], tensors: Mapping[str, np.ndarray], first: str
) -> None:
    wrong = [
        f"{name} {list(tensor.shape)} instead of {list(own[name].shape)}"
        for name, tensor in tensors.items()
        if name in own and tuple(own[name].shape) != tensor.shape
    ]
    problems = {
        "missing": [name for name in own if name not in tensors],
        "unexpected": [name for name in tensors if name not in own],
        "wrong shape": wrong,
        "NaN or infinite": [k for k, v in tensors.items() if not np.isfinite(v).all()],
    }
    complain(problems, first)


def complain(problems: Mapping[str, list[str]], first: str) -> None:
    """Raises ConfigError, beginning with ``first``, where there are problems."""
    said = [
        f"{what}: {state_dicts.some(names, 3)}"
        for what, names in problems.items()
        if names
    ]
    if said:
        raise ConfigError(f"{first}; {'; '.join(said)}")


def _put(own: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> None:
    import torch

    with torch.no_grad():
        for name, tensor in tensors.items():
            own[name].copy_(torch.from_numpy(np.array(tensor)))
