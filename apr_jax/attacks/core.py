"""The form of an attack, and the loop that runs one over many images.

An attack is a frozen dataclass with pure functions for one batch on one device:
``init`` makes its state, ``step`` advances it, ``result`` reads it. What is in the
state of an example depends on that example alone, so each may be at a step of its own.
The caller owns the loop, as where it belongs differs: on an accelerator inside the
compiled program, on a CPU outside, where convolutions in a compiled loop lose their
fast kernels.
"""

import dataclasses
import functools
import inspect
import os
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr

from apr_jax.attacks import losses, norms
from apr_jax.gates import answers, callbacks
from apr_jax.target import target_platform

# Pixels [B, H, W, C] in [0, 1] -> logits [B, K]; one that draws at random takes a
# keyword ``key`` as well. Any, as Flax's ``apply`` says that it may return more.
LogitsFn = Callable[..., Any]
Array: TypeAlias = Any  # NumPy's or JAX's

# Steps between looks at who is done; on an accelerator they are one call, which a
# gradient attack fits into.
_STRIDE_CPU = 4
_STRIDE = 128
# A CPU is as fast with small batches, of which fewer places run empty, while each core
# has some of them; below the least it is not. An accelerator compiles for longer and
# has two sizes, of chunks that are worth it.
_PER_CORE, _LEAST_CPU = 16, 8
_SMALLEST_DIVIDED = 64
# What a step costs beside its examples, in examples.
_STEP_COST = 4
# A step leaves a core idle a third of the time, so batches of a CPU are worked on side
# by side; more of them Python does not keep going.
_MOST_LANES = 8


class Points(NamedTuple):
    """The examples that an attack works on; a row of each array is an example.

    Attributes:
        keys: random keys [B]; all that happens to an example is drawn from its own.
        images: float32 [B, H, W, C] in [0, 1].
        labels: int32 [B].
        targets: int32 [B], the class that a targeted attack is after.
        eps: float32 [B], radii.
        noise: float32 [B], 1 to start at random, 0 at the image.
    """

    keys: jax.Array
    images: Array
    labels: Array
    targets: Array
    eps: Array
    noise: Array


class Attack(Protocol):
    """One attack with its settings; equal settings share compiled programs."""

    @property
    def steps(self) -> int:
        """The number of calls of ``step``."""

    def init(self, points: Points) -> Any:
        """Returns the state before the first step, each leaf [B, ...]."""

    def step(self, logits_fn: LogitsFn, state: Any) -> Any:
        """Returns the state after one more step."""

    def done(self, state: Any) -> jax.Array:
        """The examples, bool [B], whose outcome no further step can change."""

    def result(self, state: Any) -> jax.Array:
        """Returns images [B, H, W, C] in the ball and the box, to be judged."""


def as_argument(logits_fn: LogitsFn) -> jax.tree_util.Partial:
    """Returns a function that a compiled program takes as an argument.

    The arrays that ``functools.partial`` binds (a model's variables) become part of
    the argument, so other weights need no other program. Whatever else it binds, such
    as ``train=False`` or a module before its variables, belongs to the program.
    """
    if isinstance(logits_fn, jax.tree_util.Partial):
        return logits_fn
    if not isinstance(logits_fn, functools.partial):
        return jax.tree_util.Partial(logits_fn)
    fixed = {k: v for k, v in logits_fn.keywords.items() if not _is_arrays(v)}
    bound = {k: v for k, v in logits_fn.keywords.items() if k not in fixed}
    own = {i: v for i, v in enumerate(logits_fn.args) if not _is_arrays(v)}
    arrays = [v for i, v in enumerate(logits_fn.args) if i not in own]
    function = logits_fn.func
    if fixed or own:
        function = _Fixed(function, tuple(own.items()), tuple(fixed.items()))
    return jax.tree_util.Partial(function, *arrays, **bound)


@dataclasses.dataclass(frozen=True)
class _Fixed:
    """A function with some arguments set; equal ones share compiled programs."""

    function: Callable[..., Any]
    places: tuple[tuple[int, Any], ...]  # of the arguments, in their order
    keywords: tuple[tuple[str, Any], ...]

    @property
    def __signature__(self) -> inspect.Signature:
        left = inspect.signature(
            functools.partial(self.function, **dict(self.keywords))
        )
        taken = {place for place, _ in self.places}
        kept = [p for i, p in enumerate(left.parameters.values()) if i not in taken]
        return left.replace(parameters=kept)

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        given = list(args)
        for place, value in self.places:
            given.insert(place, value)
        return self.function(*given, **keywords, **dict(self.keywords))


def _is_arrays(value: Any) -> bool:
    leaves = jax.tree.leaves(value)
    return bool(leaves) and all(isinstance(x, jax.Array | np.ndarray) for x in leaves)


def is_stochastic(logits_fn: LogitsFn) -> bool:
    """Whether a function takes a keyword ``key`` to draw with."""
    found = inspect.signature(logits_fn).parameters.get("key")
    return found is not None and found.default is inspect.Parameter.empty


def logits_of(logits_fn: LogitsFn, images: jax.Array, key: jax.Array) -> jax.Array:
    """Returns float32 logits [B, K]; ``key`` is used by a stochastic function.

    Raises:
        ArgumentError: the function returns something else; the message says what.
    """
    options = {"key": key} if is_stochastic(logits_fn) else {}
    found = logits_fn(images, **options)
    checked = answers.logits(found, name="the function's logits", count=len(images))
    return checked.astype(jnp.float32)


def fold_all(keys: jax.Array, number: int | jax.Array) -> jax.Array:
    """Returns each example's key for a step or a purpose."""
    return jax.vmap(jax.random.fold_in, (0, None))(keys, number)


def answers_wrong(logits: Array, labels: Array) -> Array:
    """The misclassified examples, bool [B]; the first of equal logits counts.

    Without an answer (NaN) every label is wrong.
    """
    return answers.answer(logits) != labels


def look(
    logits_fn: LogitsFn,
    loss_fn: losses.Loss,
    points: Points,
    images: jax.Array,
    key: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns losses [B] at some images, their gradient, and the logits [B, K]."""

    def loss_of(images: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        logits = logits_of(logits_fn, images, key)
        loss = loss_fn(logits, points.labels, points.targets)
        return loss.sum(), (loss, logits)

    grad, (loss, logits) = jax.grad(loss_of, has_aux=True)(images)
    return loss, grad, logits


def gradient_size(logits_fn: LogitsFn, points: Points, loss: str = "dlr") -> jax.Array:
    """Returns the l1 norm [B] of a loss's gradient at the images.

    Infinite where an image is misclassified: the loss may well be flat there.
    """

    loss_fn = losses.get_loss(loss)
    _, grad, logits = look(logits_fn, loss_fn, points, points.images, points.keys[0])
    wrong = answers_wrong(logits, points.labels)
    return jnp.where(wrong, jnp.inf, jnp.abs(grad).sum((1, 2, 3)))


def gradient(logits_fn: LogitsFn, points: Points, loss: str = "ce") -> jax.Array:
    """Returns a loss's gradient [B, H, W, C] at the images."""
    loss_fn = losses.get_loss(loss)
    return look(logits_fn, loss_fn, points, points.images, points.keys[0])[1]


def sizes(
    chunk: int, multiple: int = 1, *, accelerated: bool, cores: int | None = None
) -> tuple[int, ...]:
    """Returns the sizes of batches, largest first: multiples of ``multiple``.

    ``chunk`` is the most that was asked for, a multiple too; ``cores`` are those of the
    machine, if None is given.
    """
    if accelerated:
        small = -(-chunk // (8 * multiple)) * multiple
        return (chunk,) if chunk < _SMALLEST_DIVIDED else (chunk, small)
    most = _PER_CORE * max(cores or os.cpu_count() or 1, 2 * multiple)
    found = [min(chunk, most // multiple * multiple)]
    while found[-1] >= 2 * _LEAST_CPU * multiple:
        whole = found[-1] // multiple
        found += [-(-whole * share // 4) * multiple for share in (3, 2)]
    return tuple(found)


class Engine:
    """Runs attacks on chunks of fixed shape on the default device.

    A subclass that works on several devices replaces ``programs``, ``predict``,
    ``slopes``, ``directions``, ``traced``, ``lanes`` and ``put``. Batches that are
    worked on side by side call ``put`` and what ``programs`` returns from threads.
    """

    _calls_python: bool | None = None  # not looked at yet

    def __init__(self, logits_fn: LogitsFn, chunk: int) -> None:
        """Takes a function of pixels, and how many examples to work on at a time."""
        self.logits_fn = as_argument(logits_fn)
        accelerated = target_platform() != "cpu"
        self.sizes = sizes(chunk, accelerated=accelerated)
        self.accelerated = accelerated

    @property
    def chunk(self) -> int:
        """The largest number of examples in a batch."""
        return self.sizes[0]

    @property
    def stride(self) -> int:
        """The number of steps between looks at who is done."""
        return _STRIDE if self.accelerated else _STRIDE_CPU

    def rows(self, count: int) -> int:
        """Returns the size of the chunk that ``count`` examples are judged in.

        On a CPU another size takes longer to compile than it saves.
        """
        least = self.sizes[-1]
        return least if self.accelerated and count <= least else self.chunk

    def lanes(self, images: np.ndarray, count: int) -> int:
        """Returns how many batches to work on side by side, each in its thread.

        One on an accelerator, and where the function calls back into Python: calls
        that wait for each other could wait for ever.

        Args:
            images: [N, H, W, C], as the function will get them.
            count: of examples to work on, in all their rounds.
        """
        if self.accelerated:
            return 1
        wanted = min(-(-self.chunk // _PER_CORE), -(-count // self.sizes[-1]))
        if wanted > 1 and self._calls_python is None:
            self._calls_python = bool(callbacks.of_program(self.traced(images[:1])))
        return 1 if self._calls_python else min(wanted, _MOST_LANES)

    def slots(self, count: int, lanes: int = 1) -> int:
        """Returns the size of the batches that ``count`` examples cost least in."""
        share = -(-count // lanes)
        fits = [size for size in self.sizes if size * lanes <= self.chunk]
        return min(
            fits or self.sizes[-1:], key=lambda s: -(-share // s) * (s + _STEP_COST)
        )

    def logits(self, images: np.ndarray, number: int = 0) -> np.ndarray:
        """Returns logits [B, K] of a chunk; ``number`` tells random draws apart."""
        return self.predict(np.asarray(images, np.float32), jax.random.key(number))

    def gradient_sizes(
        self, images: np.ndarray, labels: np.ndarray, loss: str = "dlr"
    ) -> np.ndarray:
        """Returns the l1 norm [B] of a loss's gradient at a chunk of images."""
        return self.slopes(_points(images, labels), loss)

    def gradients(
        self, images: np.ndarray, labels: np.ndarray, loss: str = "ce"
    ) -> np.ndarray:
        """Returns a loss's gradient [B, H, W, C] at a chunk of images."""
        return self.directions(_points(images, labels), loss)

    def programs(self, attack: Attack) -> tuple[Callable[..., Any], ...]:
        """Returns compiled init(points), merge(old, new, fresh), advance(state, count),
        done(state) and result(state)."""
        logits_fn = self.logits_fn

        def advance(state: Any, count: int) -> Any:
            if self.accelerated:
                return _advance(attack, logits_fn, state, count)
            for _ in range(count):
                state = _step(attack, logits_fn, state)
            return state

        return (
            functools.partial(_init, attack),
            _merge,
            advance,
            functools.partial(_done, attack),
            attack.result,
        )

    def predict(self, images: np.ndarray, key: jax.Array) -> np.ndarray:
        """Returns logits [B, K] of a chunk; ``key`` is for a stochastic function."""
        return np.asarray(_predict(self.logits_fn, images, key))

    def slopes(self, points: Points, loss: str) -> np.ndarray:
        """Returns what ``gradient_size`` makes of a chunk [B]."""
        return np.asarray(_gradient_size(self.logits_fn, points, loss))

    def directions(self, points: Points, loss: str) -> np.ndarray:
        """Returns what ``gradient`` makes of a chunk [B, H, W, C]."""
        return np.asarray(_gradient(self.logits_fn, points, loss))

    def traced(self, images: np.ndarray) -> ClosedJaxpr:
        """Returns the operations by which images [N, H, W, C] are answered."""
        pixels = jax.ShapeDtypeStruct(images.shape, np.float32)
        return jax.make_jaxpr(logits_of)(self.logits_fn, pixels, jax.random.key(0))

    def put(self, points: Points) -> Points:
        """Returns a chunk as ``init`` takes it."""
        return points


def _points(images: np.ndarray, labels: np.ndarray) -> Points:
    """Images to look at where they are."""
    keys = jax.random.split(jax.random.key(0), len(images))
    zeros = np.zeros(len(images), np.float32)
    return Points(keys, images, labels, labels, zeros, zeros)


def merge(old: Any, new: Any, fresh: jax.Array) -> Any:
    """Returns a state with the examples of ``new`` where ``fresh`` [B] says so."""
    return jax.tree.map(lambda a, b: norms.pick(fresh, b, a), old, new)


def advance(
    attack: Attack, logits_fn: LogitsFn, state: Any, count: int | jax.Array
) -> Any:
    """Returns the state ``count`` steps later, by a loop inside the program."""
    return jax.lax.fori_loop(
        0, count, lambda _, state: attack.step(logits_fn, state), state
    )


_init = jax.jit(lambda attack, points: attack.init(points), static_argnums=0)
_merge = jax.jit(merge, donate_argnums=0)
_step = jax.jit(
    lambda attack, logits_fn, state: attack.step(logits_fn, state),
    static_argnums=0,
    donate_argnums=2,
)
_advance = jax.jit(advance, static_argnums=0, donate_argnums=2)
_done = jax.jit(lambda attack, state: attack.done(state), static_argnums=0)
_predict = jax.jit(logits_of)
_gradient_size = jax.jit(gradient_size, static_argnums=2)
_gradient = jax.jit(gradient, static_argnums=2)
