"""The platform that a program is for, which need not be that of its host.

A CPU exports programs and compiles them ahead of time for chips that it hasn't got, so
`jax.default_backend()` is not the question. Numerical code offers a function for each
platform (`by_platform`), and the one taken is chosen when the program is lowered; the
sizes of chunks and loops, which have to be known before, follow `target_platform`.
"""

import contextlib
from collections.abc import Callable
from typing import Any, TypeVar

import jax

from apr_jax.errors import ArgumentError

PLATFORMS = ("cpu", "gpu", "tpu")
# What the compiler calls them.
_LOWERED = {"cpu": ("cpu",), "gpu": ("cuda", "rocm"), "tpu": ("tpu",)}

_Result = TypeVar("_Result")

# Programs are traced anew where it differs. Empty: nothing is said.
_possible = jax.make_user_context(default_value=())


def for_platform(platform: str) -> contextlib.AbstractContextManager[Any]:
    """Within this context programs are traced for a platform, whatever the host's is.

    For exporting and compiling ahead of time, where sizes and loops are to be those of
    the target too::

        with target.for_platform("tpu"):
            exported = jax.export.export(jax.jit(function), platforms=["tpu"])(images)

    Raises:
        ArgumentError: `platform` is none of `PLATFORMS`.
    """
    if platform not in PLATFORMS:
        raise ArgumentError(f"platform is {platform!r}; choose from {PLATFORMS}")
    context: contextlib.AbstractContextManager[Any] = _possible((platform,))
    return context


def target_platform() -> str:
    """The platform to choose sizes and loops for: "cpu", "gpu" or "tpu".

    What `for_platform` says; otherwise that of the devices that JAX works on.
    """
    possible: tuple[str, ...] = _possible.value
    own = jax.default_backend()
    return own if not possible or own in possible else possible[0]


def by_platform(
    *args: Any, default: Callable[..., _Result], **own: Callable[..., _Result]
) -> _Result:
    """`own[platform](*args)`, or `default(*args)` on a platform that isn't named.

    All of them are traced and one is lowered (`jax.lax.platform_dependent`), unless
    `for_platform` has said which. Results have the same shapes and types.

    Args:
        *args: trees of arrays.
        default: for every platform without a function of its own.
        **own: functions by name, of `PLATFORMS`.
    """
    possible: tuple[str, ...] = _possible.value or PLATFORMS
    own = {name: own[name] for name in possible if name in own}
    others = tuple(name for name in possible if name not in own)
    if not others and len(own) == 1:
        return next(iter(own.values()))(*args)
    if not own:
        return default(*args)
    branches: dict[str, Callable[..., _Result]] = {}
    for name, function in own.items():
        branches |= dict.fromkeys(_LOWERED[name], _within((name,), function))
    rest = _within(others, default) if others else None
    chosen: _Result = jax.lax.platform_dependent(*args, default=rest, **branches)
    return chosen


def _within(
    platforms: tuple[str, ...], function: Callable[..., _Result]
) -> Callable[..., _Result]:
    """The function, knowing on which platforms it is to run."""

    def run(*args: Any) -> _Result:
        with _possible(platforms):
            return function(*args)

    return run
