"""The form of an attack, and the loop that runs one over many images.

An attack is a frozen dataclass with three pure functions for one batch on one device:
``init`` makes its state, ``step`` advances it, ``result`` reads it. The caller owns
the loop, as where it belongs differs: on an accelerator inside the compiled program,
on a CPU outside, where convolutions in a compiled loop lose their fast kernels.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from apr_jax.attacks import losses
from apr_jax.gates import answers

# Pixels [B, H, W, C] in [0, 1] -> logits [B, K]; one that draws at random takes a
# keyword ``key`` as well.
LogitsFn = Callable[..., jax.Array]
Array: TypeAlias = Any  # NumPy's or JAX's

# Steps between looks at whether anything is left to attack; on an accelerator they
# are one call.
_STRIDE_CPU = 10
_STRIDE = 100
# Chunks of fewer examples have no second size: it would compile for little.
_SMALLEST_DIVIDED = 64


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

    def init(self, logits_fn: LogitsFn, points: Points) -> Any:
        """Returns the state before the first step."""

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
    as ``train=False``, belongs to the program.
    """
    if isinstance(logits_fn, jax.tree_util.Partial):
        return logits_fn
    if not isinstance(logits_fn, functools.partial):
        return jax.tree_util.Partial(logits_fn)
    fixed = {k: v for k, v in logits_fn.keywords.items() if not _is_arrays(v)}
    bound = {k: v for k, v in logits_fn.keywords.items() if k not in fixed}
    function = _Fixed(logits_fn.func, tuple(fixed.items())) if fixed else logits_fn.func
    return jax.tree_util.Partial(function, *logits_fn.args, **bound)


@dataclasses.dataclass(frozen=True)
class _Fixed:
    """A function with keywords set; equal ones share compiled programs."""

    function: Callable[..., Any]
    keywords: tuple[tuple[str, Any], ...]

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(
            functools.partial(self.function, **dict(self.keywords))
        )

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        return self.function(*args, **keywords, **dict(self.keywords))


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


def gradient_size(logits_fn: LogitsFn, points: Points) -> jax.Array:
    """Returns the l1 norm [B] of the DLR loss's gradient at the images.

    Infinite where an image is misclassified: the loss may well be flat there.
    """

    _, grad, logits = look(logits_fn, losses.dlr, points, points.images, points.keys[0])
    wrong = answers_wrong(logits, points.labels)
    return jnp.where(wrong, jnp.inf, jnp.abs(grad).sum((1, 2, 3)))


def small_chunk(chunk: int, multiple: int = 1) -> int:
    """Returns a second size of chunks, for when few points stand; or the first."""
    if chunk < _SMALLEST_DIVIDED:
        return chunk
    return -(-chunk // (8 * multiple)) * multiple


class Engine:
    """Runs attacks on chunks of fixed shape on the default device.

    A subclass that works on several devices replaces ``programs``, ``predict``,
    ``slopes`` and ``put``.
    """

    def __init__(self, logits_fn: LogitsFn, chunk: int) -> None:
        """Takes a function of pixels, and how many examples to work on at a time."""
        self.logits_fn = as_argument(logits_fn)
        self.chunk = chunk
        self.least = small_chunk(chunk)
        self.accelerated = jax.default_backend() != "cpu"

    def rows(self, count: int) -> int:
        """Returns the size of the chunk that ``count`` examples go into."""
        return self.least if count <= self.least else self.chunk

    def logits(self, images: np.ndarray, number: int = 0) -> np.ndarray:
        """Returns logits [B, K] of a chunk; ``number`` tells random draws apart."""
        return self.predict(np.asarray(images, np.float32), jax.random.key(number))

    def gradient_sizes(self, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Returns the l1 norm [B] of the DLR loss's gradient at a chunk of images."""
        keys = jax.random.split(jax.random.key(0), len(images))
        zeros = np.zeros(len(images), np.float32)
        points = Points(keys, images, labels, labels, zeros, zeros)
        return self.slopes(points)

    def run(self, attack: Attack, points: Points) -> np.ndarray:
        """Attacks a chunk; returns the images [B, H, W, C] it ends with."""
        init, advance, done, result = self.programs(attack)
        state = init(self.put(points))
        stride = _STRIDE if self.accelerated else 1
        look = stride if self.accelerated else _STRIDE_CPU
        for start in range(0, attack.steps, stride):
            if start % look == 0 and start and done(state).all():
                break
            state = advance(state, min(stride, attack.steps - start))
        return np.asarray(result(state))

    def programs(self, attack: Attack) -> tuple[Callable[..., Any], ...]:
        """Returns compiled init(points), advance(state, count), done(state) and
        result(state)."""
        init = functools.partial(_init, attack, self.logits_fn)
        advance: Callable[..., Any] = functools.partial(
            _advance, attack, self.logits_fn
        )
        if not self.accelerated:
            step = functools.partial(_step, attack, self.logits_fn)
            advance = lambda state, _: step(state)
        return init, advance, functools.partial(_done, attack), attack.result

    def predict(self, images: np.ndarray, key: jax.Array) -> np.ndarray:
        """Returns logits [B, K] of a chunk; ``key`` is for a stochastic function."""
        return np.asarray(_predict(self.logits_fn, images, key))

    def slopes(self, points: Points) -> np.ndarray:
        """Returns what ``gradient_size`` makes of a chunk [B]."""
        return np.asarray(_gradient_size(self.logits_fn, points))

    def put(self, points: Points) -> Points:
        """Returns a chunk as ``init`` takes it."""
        return points


@functools.partial(jax.jit, static_argnums=0)
def _init(attack: Attack, logits_fn: LogitsFn, points: Points) -> Any:
    return attack.init(logits_fn, points)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=2)
def _step(attack: Attack, logits_fn: LogitsFn, state: Any) -> Any:
    return attack.step(logits_fn, state)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=2)
def _advance(
    attack: Attack, logits_fn: LogitsFn, state: Any, count: int | jax.Array
) -> Any:
    return advance(attack, logits_fn, state, count)


@functools.partial(jax.jit, static_argnums=0)
def _done(attack: Attack, state: Any) -> jax.Array:
    return attack.done(state)


_gradient_size = jax.jit(gradient_size)


@jax.jit
def _predict(logits_fn: LogitsFn, images: jax.Array, key: jax.Array) -> jax.Array:
    return logits_of(logits_fn, images, key)


def advance(
    attack: Attack, logits_fn: LogitsFn, state: Any, count: int | jax.Array
) -> Any:
    """Returns the state ``count`` steps later, by a loop inside the program."""
    return jax.lax.fori_loop(
        0, count, lambda _, state: attack.step(logits_fn, state), state
    )
