"""Networks that users write in Flax Linen, trained and measured as the built-in ones.

A file of theirs has a function that makes the module,

    def create(num_classes: int) -> flax.linen.Module: ...

and ``model.name`` says which: ``FILE.py``, or ``FILE.py:FUNCTION``. The module takes
normalised images [N, H, W, 3] and gives logits [N, num_classes].
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from apr_jax.gates import code_files

FIELD = "model.name"
# Arguments by which networks are told whether they learn, and what says that they do.
_LEARNING = {
    "train": True,
    "training": True,
    "is_training": True,
    "deterministic": False,
    "use_running_average": False,
}


def told(call: Callable[..., Any], *, learns: bool) -> dict[str, bool]:
    """The arguments of a network's call that say whether it learns."""
    taken = inspect.signature(call).parameters
    return {name: learns is value for name, value in _LEARNING.items() if name in taken}


class Own(nn.Module):
    """A module of a user's in the form of ``layers.Network``.

    Its features are what its last ``nn.Dense`` takes; those of a network without one
    are its logits.

    Attributes:
        inner: the module; its call may take ``train``, ``training``, ``is_training``,
            ``deterministic`` or ``use_running_average``.
        num_classes: outputs.
        called: the network in messages.
    """

    inner: nn.Module
    num_classes: int
    called: str
    minimum_size: ClassVar[int] = 1

    def __call__(self, images: jax.Array, *, train: bool, capture: bool = False) -> Any:
        """Logits float32 [N, K], with ``capture`` also the features [N, F]."""
        given = told(type(self.inner).__call__, learns=train)
        seen: list[jax.Array] = []

        def note(function: Any, args: Any, kwargs: Any, context: Any) -> Any:
            if isinstance(context.module, nn.Dense) and args:
                seen.append(args[0])
            return function(*args, **kwargs)

        with nn.intercept_methods(note):
            logits = self.inner(images, **given)
        shape = (len(images), self.num_classes)
        if getattr(logits, "shape", None) != shape:
            found = getattr(logits, "shape", type(logits).__name__)
            raise ValueError(
                f"{self.called} gives {found} for {list(images.shape)} images; it must "
                f"give logits {list(shape)}"
            )
        logits = logits.astype(jnp.float32)
        if not capture:
            return logits
        last = seen[-1] if seen and seen[-1].ndim == 2 else logits
        return logits, last

    @nn.nowrap
    def constants_of(self, images: Any) -> Mapping[str, Any]:
        """Nothing: only built-in networks have constants."""
        del images
        return {}


def factory(spec: str) -> Callable[..., Own]:
    """Returns what makes the network of a file; see the module's documentation.

    The user's function is given ``num_classes``, and ``dtype`` and ``axis_name`` (over
    which BatchNorm may share its statistics) if it takes them.

    Raises:
        ConfigError: there is no such function, or it makes no module of Flax Linen.
    """
    name, create = code_files.load(spec, FIELD)
    return functools.partial(_made, name, create)


def _made(
    name: str,
    create: Callable[..., Any],
    *,
    num_classes: int,
    dtype: Any,
    sync_axis: str | None,
) -> Own:
    taken = inspect.signature(create).parameters
    every = any(p.kind is p.VAR_KEYWORD for p in taken.values())
    offered = {"dtype": dtype, "axis_name": sync_axis}
    given = {k: v for k, v in offered.items() if every or k in taken}
    if "dtype" not in given and dtype != jnp.float32:
        raise ValueError(f"{name} takes no dtype, so it can't be computed in {dtype}")
    if not every and "num_classes" not in taken:
        raise ValueError(f"{name} must take num_classes, how many logits it is to give")
    module = create(num_classes=num_classes, **given)
    if not isinstance(module, nn.Module):
        raise ValueError(
            f"{name} makes a {type(module).__name__}; it must make a module of Flax "
            "Linen"
        )
    return Own(module, num_classes, name)
