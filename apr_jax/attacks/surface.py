"""The loss around images, along the direction of its gradient and along a random one.

Tramèr et al., "Ensemble adversarial training", ICLR 2018, draw it to show masked
gradients: a bump at the image, and a slope elsewhere. How far a loss departs from its
tangent is the measure of Qin et al., "Adversarial robustness through local
linearization", NeurIPS 2019, here as a share of what changes.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from apr_jax.attacks import arguments, rounds
from apr_jax.attacks.core import Engine, LogitsFn, answers_wrong
from apr_jax.attacks.norms import random_direction
from apr_jax.gates import answers

NORMS = ("linf", "l2")
# Places along each direction, of the radius. Eighths are exact.
OFFSETS = np.linspace(-1.0, 1.0, 17)
EXAMPLES = 8  # the first so many that are classified correctly


@dataclasses.dataclass(frozen=True)
class Surface:
    """The loss around some images, on a grid of two directions.

    A direction's unit is the radius: for "linf" each pixel goes so far, up or down by
    the sign of the gradient or by chance; for "l2" along the gradient, or along a
    Gaussian one. What leaves [0, 1] is clipped.

    Attributes:
        rows: int [N], which examples.
        losses: float64 [N, G, G], cross-entropy in nats at ``OFFSETS`` along the
            gradient (first) and along the random direction.
        tangents: float64 [N, G, G], what the loss at the image and its gradient there
            say of the same points.
        not_finite: how many logits behind it are NaN or infinite; such examples are
            left out.
    """

    rows: np.ndarray
    losses: np.ndarray
    tangents: np.ndarray
    not_finite: int = 0

    @property
    def rises(self) -> np.ndarray:
        """By how many nats the loss rises at the radius, [N, 2].

        Along the gradient, and along the random direction.
        """
        middle = len(OFFSETS) // 2
        ends = np.stack(
            [self.losses[:, -1, middle], self.losses[:, middle, -1]], axis=1
        )
        return ends - self.losses[:, middle, middle, None]

    @property
    def off_tangent(self) -> np.ndarray:
        """How far the loss departs from its tangent at most, [N] in [0, 2].

        Over the largest change of the one or of the other, if that is larger: 0 of a
        plane, 1 where the gradient says nothing of what changes.
        """
        middle = len(OFFSETS) // 2
        start = self.losses[:, middle, middle, None, None]
        most = lambda values: np.abs(values).max((1, 2), initial=0.0)
        scale = np.maximum(most(self.losses - start), most(self.tangents - start))
        return most(self.losses - self.tangents) / np.where(scale > 0, scale, 1.0)

    @property
    def ups_and_downs(self) -> np.ndarray:
        """How much farther than once through its range the loss goes, [N].

        Along all lines of the grid together: 0 where it rises or falls on each of them,
        1 in an even valley, more where it is jagged; at most two less than there are
        places.
        """
        ways, ranges = np.zeros(len(self.rows)), np.zeros(len(self.rows))
        for axis in (1, 2):
            ways += np.abs(np.diff(self.losses, axis=axis)).sum((1, 2))
            ranges += np.ptp(self.losses, axis=axis).sum(1)
        return np.maximum(ways / np.where(ranges > 0, ranges, 1.0) - 1.0, 0.0)


def measure(
    engine: Engine,
    key: jax.Array,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    norm: str,
    eps: float,
) -> Surface:
    """Measures the loss around the first images that are classified correctly.

    Args:
        engine: answers for the network.
        key: one key.
        images: float32 [N, H, W, C] in [0, 1].
        labels: int32 [N].
        norm: "linf" or "l2".
        eps: radius.
    """
    right = ~answers_wrong(rounds.predict(engine, images), labels)
    rows = np.flatnonzero(right)[:EXAMPLES]
    if not len(rows):
        empty = np.zeros((0, len(OFFSETS), len(OFFSETS)))
        return Surface(rows, empty, empty)
    slopes = rounds.gradients(engine, images[rows], labels[rows])
    numbers = rows.astype(np.int32)
    aside = _aside(
        rounds.keys_of(key, np.zeros_like(numbers), numbers), images[rows], norm
    )
    found, bad = [], 0
    for row, slope, direction in zip(rows, slopes, aside, strict=True):
        points = _grid(images[row], _along(slope, norm), direction, eps)
        logits = rounds.predict(engine, points.reshape(-1, *images[row].shape))
        bad += answers.not_finite(logits)
        losses = _cross_entropy(logits, labels[row]).reshape(points.shape[:2])
        middle = losses[len(losses) // 2, len(losses) // 2]
        found.append((losses, middle + _told(points, images[row], slope)))
    losses, tangents = (np.stack(parts) for parts in zip(*found, strict=True))
    sound = np.isfinite(losses + tangents).all((1, 2))
    return Surface(rows[sound], losses[sound], tangents[sound], bad)


@arguments.gated("loss_surface", choices=NORMS)
def loss_surface(
    key: jax.Array,
    logits_fn: LogitsFn,
    images: jax.Array | np.ndarray,
    labels: jax.Array | np.ndarray,
    *,
    eps: float,
    norm: str = "linf",
    chunk: int = 256,
) -> Surface:
    """Measures the loss around the first eight images that are classified correctly.

    Args:
        key: one key.
        logits_fn: pixels [B, H, W, C] in [0, 1] -> logits [B, K]; see ``pgd``.
        images: floating point [N, H, W, C] in [0, 1].
        labels: int [N].
        eps: how far it goes in either direction.
        norm: "linf" or "l2".
        chunk: images asked about at a time, at most.

    Raises:
        TypeError: pixels are not floating point.
        ArgumentError: a radius of nothing, an unknown norm, or images, labels or
            logits of another shape or range.
    """
    engine, clean, found = rounds.prepare(logits_fn, images, labels, chunk)
    classes = rounds.predict(engine, clean[:1]).shape[1]
    answers.labels(found, count=len(clean), classes=classes)
    return measure(engine, key, clean, found, norm=norm, eps=eps)


def _along(slope: np.ndarray, norm: str) -> np.ndarray:
    """The direction of steepest ascent of norm 1, or 0 where there is none."""
    if norm == "linf":
        return np.sign(slope)
    size = np.sqrt(np.square(slope.astype(np.float64)).sum())
    scaled: np.ndarray = slope / size if size > 0 else 0 * slope
    return scaled


def _aside(keys: jax.Array, images: np.ndarray, norm: str) -> np.ndarray:
    """Random directions [N, H, W, C] of norm 1."""
    if norm == "l2":
        return np.asarray(random_direction(keys, jnp.asarray(images), norm))
    signs = jax.vmap(lambda key: jax.random.rademacher(key, images.shape[1:]))(keys)
    return np.asarray(signs)


def _grid(
    image: np.ndarray, along: np.ndarray, aside: np.ndarray, eps: float
) -> np.ndarray:
    """The points [G, G, H, W, C] around an image [H, W, C]."""
    steps = (eps * OFFSETS)[:, None, None, None]
    one, other = steps * along, steps * aside
    rows = [np.float32(np.clip(image + step + other, 0.0, 1.0)) for step in one]
    return np.stack(rows)


def _told(points: np.ndarray, image: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """What the gradient says of the change [G, G] to each point, in nats."""
    flat = slope.astype(np.float64).ravel()
    moved = lambda row: (row.astype(np.float64) - image).reshape(len(row), -1)
    return np.stack([moved(row) @ flat for row in points])


def _cross_entropy(logits: np.ndarray, label: int) -> np.ndarray:
    """Cross-entropy [B] of one label, in nats; NaN where a logit isn't finite."""
    wide = np.where(np.isfinite(logits), logits, np.nan).astype(np.float64)
    wide = wide - wide.max(1, keepdims=True)
    loss: np.ndarray = np.log(np.exp(wide).sum(1)) - wide[:, label]
    return loss
