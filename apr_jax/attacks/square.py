"""Square attack: random squares, kept where they lower the margin; no gradients.

Andriushchenko et al., "Square Attack: a query-efficient black-box adversarial attack
via random search", ECCV 2020; for l1, Croce and Hein 2021, section 5.
"""

import dataclasses
import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from apr_jax.attacks import arguments, losses, norms
from apr_jax.attacks.core import LogitsFn, Points, fold_all, logits_of
from apr_jax.attacks.rounds import Result, Stage, run_alone
from apr_jax.gates import answers

_START = 0x5A0A  # keeps the start's draws apart from those of the steps
_TINY = 1e-12
# Up to which of 10,000 queries the share of changed pixels is halved how often.
_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
_TILES = 5  # l2, l1: patterns along a side of the first perturbation


class SquareState(NamedTuple):
    """The best image so far, and the one to be judged next."""

    points: Points
    iteration: jax.Array
    images: jax.Array
    proposal: jax.Array
    margin: jax.Array  # label's logit less the largest other; 0 or less is broken


class Plan(NamedTuple):
    """The squares of each query, and the l2 patterns to put into them."""

    side: np.ndarray  # pixels, by query
    kind: np.ndarray  # which of the patterns, by query
    patterns: np.ndarray  # float32 [kinds, S, S], each in its upper left corner


@functools.cache
def make_plan(
    norm: str, queries: int, p_init: float, rescale: bool, shape: tuple[int, int]
) -> Plan:
    """Returns the squares of a search over images of a height and width (section 3.3).

    ``rescale`` fits the schedule, made for 10,000 queries, to another number of them.
    """
    size = min(shape)
    at = np.arange(queries)
    if rescale:
        at = at * 10_000 // queries
    share = p_init / 2.0 ** np.searchsorted(_HALVINGS, at)
    side = np.round(np.sqrt(share * shape[0] * shape[1]))
    side = np.maximum(side, 1).astype(np.int32)
    if norm != "linf":
        side = np.maximum(side, 3)
        side += side % 2 == 0
    side = np.minimum(side, size)
    sides = np.unique(side)
    patterns = np.zeros((len(sides), sides.max(), sides.max()), np.float32)
    if norm != "linf":
        for kind, s in enumerate(sides):
            patterns[kind, :s, :s] = pattern(int(s), norm)
    return Plan(side, np.searchsorted(sides, side), patterns)


def pattern(side: int, norm: str) -> np.ndarray:
    """A bump above its negative, each as long as the other, length 1, [side, side].

    Equation 2 of the paper; lengths, and the heights for l1, as in AutoAttack's code.
    """
    upper = side // 2
    first, second = (
        _unit(_bump(height, side, norm), norm) for height in (upper, side - upper)
    )
    return _unit(np.concatenate([first, -second]), norm)


def _unit(values: np.ndarray, norm: str) -> np.ndarray:
    if not values.size:
        return values
    length = np.abs(values).sum() if norm == "l1" else np.sqrt(np.square(values).sum())
    return values / length


def _bump(height: int, width: int, norm: str) -> np.ndarray:
    """Rectangles around the middle upon each other, the k-th 1 / k^2 high.

    For l1 1 / k^4.
    """
    far = np.maximum(
        abs(np.arange(height)[:, None] - height // 2),
        abs(np.arange(width)[None] - width // 2),
    )
    power = 4 if norm == "l1" else 2
    heights = 1.0 / np.arange(1, max(height, width) // 2 + 2) ** power
    above = np.cumsum(heights[::-1])[::-1]  # of all rectangles that reach so far
    return above[far]


@dataclasses.dataclass(frozen=True)
class Square:
    """``queries`` proposals, each a square of the image changed at once."""

    norm: str
    queries: int  # after that of the first image
    p_init: float = 0.8  # share of the pixels in the first squares
    rescale: bool = False

    @property
    def steps(self) -> int:
        """Images that are asked about; the first one is the start."""
        return self.queries + 1

    def init(self, points: Points) -> SquareState:
        """Starts with stripes for "linf", with a grid of bumps otherwise."""
        keys = fold_all(points.keys, _START)
        if self.norm == "linf":
            _, _, width, channels = points.images.shape
            signs = _signs(keys, (1, width, channels))
            start = signs * norms.column(points.eps, signs)
        else:
            start = first_tiles(keys, points.images.shape[1:], self.norm)
        images = self._put(start, points)
        return SquareState(
            points=points,
            iteration=jnp.zeros(len(images), jnp.int32),
            images=images,
            proposal=jnp.array(images),
            margin=jnp.full(len(images), jnp.inf, jnp.float32),
        )

    def step(self, logits_fn: LogitsFn, state: SquareState) -> SquareState:
        """Keeps the proposal where the margin falls; proposes another square."""
        points = state.points
        margin = self._margin(logits_fn, state)
        better = (margin < state.margin) & ~self.done(state)
        state = state._replace(
            images=norms.pick(better, state.proposal, state.images),
            margin=jnp.where(better, margin, state.margin),
        )
        height, width = points.images.shape[1:3]
        plan = make_plan(
            self.norm, self.queries, self.p_init, self.rescale, (height, width)
        )
        number = jnp.minimum(state.iteration, self.queries - 1)
        side = jnp.asarray(plan.side)[number]
        keys = jax.vmap(jax.random.fold_in)(points.keys, state.iteration)
        if self.norm == "linf":
            proposal = self._flip(keys, state, side)
        else:
            shapes = jnp.asarray(plan.patterns)[jnp.asarray(plan.kind)[number]]
            proposal = self._shift(keys, state, side, shapes)
        return state._replace(iteration=state.iteration + 1, proposal=proposal)

    def done(self, state: SquareState) -> jax.Array:
        """A broken point is left alone."""
        return state.margin < 0

    def result(self, state: SquareState) -> jax.Array:
        """The image of the lowest margin."""
        return state.images

    def _margin(self, logits_fn: LogitsFn, state: SquareState) -> jax.Array:
        points = state.points
        key = jax.random.fold_in(points.keys[0], state.iteration[0])
        logits = logits_of(logits_fn, state.proposal, key)
        margin = -losses.margin(logits, points.labels, points.targets)
        # An image without an answer is broken, though its margin is NaN.
        return jnp.where(answers.answer(logits) >= 0, margin, -jnp.inf)

    def _put(self, delta: jax.Array, points: Points) -> jax.Array:
        """Images with a perturbation that fills the ball."""
        if self.norm == "l2":
            limit = norms.radius(points.eps, self.norm)
            delta = norms.unit(delta, self.norm) * norms.column(limit, delta)
        moved = points.images + delta
        return norms.project(moved, points.images, points.eps, self.norm)

    def _flip(self, keys: jax.Array, state: SquareState, side: jax.Array) -> jax.Array:
        """Moves a square by 2 eps up or down, channel by channel."""
        place_keys, sign_keys = _split(keys, 2)
        images, points = state.images, state.points
        inside, _, _ = _square(place_keys, images, side)
        signs = _signs(sign_keys, (1, 1, images.shape[3]))
        change = 2.0 * norms.column(points.eps, signs) * signs
        moved = images + jnp.where(inside, change, 0.0)
        return norms.project(moved, points.images, points.eps, self.norm)

    def _shift(
        self, keys: jax.Array, state: SquareState, side: jax.Array, shapes: jax.Array
    ) -> jax.Array:
        """Moves what the perturbation has in one square into another as a bump.

        Bumps have length 1 in each channel, which then gets what was freed in it and
        its share of what was left of the ball; for l1 so many times as there are
        channels, as in AutoAttack's code. The whole is then brought to the ball.
        """
        to_keys, from_keys, sign_keys, turn_keys = _split(keys, 4)
        points = state.points
        delta = state.images - points.images
        channels = delta.shape[3]
        inside, rows, columns = _square(to_keys, delta, side)
        other, _, _ = _square(from_keys, delta, side)
        per_channel = lambda x: self._length(x, (1, 2))
        whole = lambda x: self._length(x, (1, 2, 3))

        turned = norms.column(jax.vmap(jax.random.bernoulli)(turn_keys), inside)
        which = jnp.arange(len(delta))[:, None, None, None]
        upright, lying = shapes[which, rows, columns], shapes[which, columns, rows]
        bump = jnp.where(turned, lying, upright)
        bump = jnp.where(inside, bump * _signs(sign_keys, (1, 1, channels)), 0.0)
        old = jnp.where(inside, delta, 0.0)
        bump += old / (per_channel(old) + _TINY)
        bump /= per_channel(bump) + _TINY
        freed = per_channel(jnp.where(inside | other, delta, 0.0))
        eps = norms.column(points.eps, delta)
        if self.norm == "l2":
            unused = jnp.maximum(jnp.square(eps) - jnp.square(whole(delta)), 0.0)
            length = jnp.sqrt(unused / channels + jnp.square(freed))
        else:
            unused = jnp.maximum(eps - whole(delta), 0.0)
            length = unused + channels * freed
        kept = jnp.where(other, 0.0, delta)
        return self._put(jnp.where(inside, bump * length, kept), points)

    def _length(self, delta: jax.Array, axes: tuple[int, ...]) -> jax.Array:
        if self.norm == "l2":
            return jnp.sqrt(jnp.square(delta).sum(axes, keepdims=True))
        return jnp.abs(delta).sum(axes, keepdims=True)


def _split(keys: jax.Array, count: int) -> tuple[jax.Array, ...]:
    return jnp.unstack(jax.vmap(lambda key: jax.random.split(key, count))(keys), axis=1)


def _signs(keys: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """-1 or 1 at random, [B, *shape]."""
    draw = lambda key: jax.random.rademacher(key, shape, jnp.float32)
    return jax.vmap(draw)(keys)


def _square(
    keys: jax.Array, like: jax.Array, side: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """A square somewhere in each image, ``side`` [B] pixels wide.

    Returns:
        Whether a pixel is in it, bool [B, H, W, 1], and the row and the column of each
        pixel in the square, int [B, H, 1, 1] and [B, 1, W, 1], clipped to it.
    """
    height, width = like.shape[1:3]
    share = jax.vmap(lambda key: jax.random.uniform(key, (2,)))(keys)
    places = []
    for axis, extent in enumerate((height, width)):
        free = extent - side
        start = jnp.floor(share[:, axis] * (free + 1).astype(jnp.float32)).astype(
            jnp.int32
        )
        places.append(jnp.arange(extent)[None] - jnp.minimum(start, free)[:, None])
    rows, columns = places[0][:, :, None, None], places[1][:, None, :, None]
    wide = side[:, None, None, None]
    inside = (rows >= 0) & (rows < wide) & (columns >= 0) & (columns < wide)
    inner = lambda place: jnp.clip(place, 0, wide - 1)
    return inside, inner(rows), inner(columns)


def first_tiles(keys: jax.Array, shape: tuple[int, ...], norm: str) -> jax.Array:
    """The first perturbation [B, H, W, C]: bumps side by side, signs at random."""
    height, width, channels = shape
    side = max(min(height, width) // _TILES, 1)
    across = math.ceil(max(height, width) / side)
    bump = jnp.asarray(pattern(side, norm), jnp.float32)
    sign_keys, turn_keys = _split(keys, 2)
    signs = _signs(sign_keys, (across, across, channels))
    turned = jax.vmap(lambda k: jax.random.bernoulli(k, shape=(across, across)))(
        turn_keys
    )
    first = max((min(height, width) - side * _TILES) // 2, 0)
    (row_tile, row), (column_tile, column) = (
        np.divmod(np.arange(extent) - first, side) for extent in (height, width)
    )
    inside = ((row_tile >= 0)[:, None] & (column_tile >= 0))[None, :, :, None]
    upright, lying = (b[row][:, column][None, :, :, None] for b in (bump, bump.T))
    of_tile = lambda values: values[:, row_tile][:, :, column_tile]
    placed = jnp.where(of_tile(turned)[..., None], lying, upright)
    return jnp.where(inside, placed * of_tile(signs), 0.0)


@arguments.gated("square")
def square(
    key: jax.Array,
    logits_fn: LogitsFn,
    images: jax.Array | np.ndarray,
    labels: jax.Array | np.ndarray,
    *,
    eps: float,
    norm: str = "linf",
    queries: int = 5000,
    restarts: int = 1,
    p_init: float = 0.8,
    rescale: bool = True,
    chunk: int = 256,
) -> Result:
    """Attacks by random search; survivors are in ``survived["square"]``.

    Args:
        key: one key.
        logits_fn: pixels [B, H, W, C] in [0, 1] -> logits [B, K]; see ``pgd``. It
            needn't have a gradient.
        images: floating point [N, H, W, C] in [0, 1].
        labels: int [N].
        eps: radius of the ball.
        norm: a name of ``NORMS``.
        queries: of each restart, for each image.
        restarts: each attacks what is left.
        p_init: share of the pixels that the first squares cover.
        rescale: fit the schedule of the squares, made for 10,000 queries, to
            ``queries``; AutoAttack doesn't.
        chunk: images worked on at a time, at most.

    Raises:
        TypeError: pixels are not floating point.
        ArgumentError: a setting under which nothing is done, an unknown name, or
            images, labels or logits of another shape or range.
    """
    attack = Square(norm, queries, p_init, rescale)
    stage = Stage("square", attack, restarts=restarts)
    return run_alone(stage, key, logits_fn, images, labels, norm, eps, chunk)
