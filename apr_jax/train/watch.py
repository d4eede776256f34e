"""What is watched while a network learns: rows of ``watch.jsonl``, epoch by epoch.

``train.watch`` names what is measured before the first step and at the end of every
epoch, on the same test images each time. Watching draws no random numbers and changes
no bit of the training.
"""

import dataclasses
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from apr_jax import config as config_lib
from apr_jax import data, parallel, spectral
from apr_jax.data import samples
from apr_jax.errors import ConfigError
from apr_jax.pixels import to_pixels
from apr_jax.runs import jsonl
from apr_jax.runs.epochs import FILE_NAME, epoch_ends, read
from apr_jax.train.meter import Meter

# The radii of HFC (CVPR 2020), section 5, as shares of a side of 32 pixels.
_BAND_SHARES = tuple(r / 32 for r in (4, 8, 12, 16, 20, 24, 28))

Predict = Callable[[Any, jax.Array], tuple[jax.Array, jax.Array]]


@dataclasses.dataclass(frozen=True)
class Watch:
    """One kind of measurement.

    Attributes:
        knobs: side of the images -> values of a scalar; one program serves all.
        each: (predict, variables, images uint8 [B, H, W, C], labels [B], knob) -> what
            is found for each image, [B, ...].
        summarise: knobs, and for each of them what was found for all N images,
            [N, ...] -> what a row says, by name.
    """

    knobs: Callable[[int], Sequence[float]]
    each: Callable[[Predict, Any, jax.Array, jax.Array, jax.Array], jax.Array]
    summarise: Callable[[Sequence[float], Sequence[np.ndarray]], dict[str, Any]]


def input_gradient(
    predict: Predict, variables: Any, images: jax.Array, labels: jax.Array
) -> jax.Array:
    """Gradient of each image's cross-entropy to its pixels in [0, 1].

    Args:
        predict: of ``network.make_predict``, with running statistics, so that no image
            depends on another.
        variables: its first argument.
        images: uint8, or pixels in [0, 1], [B, H, W, C].
        labels: integers [B].

    Returns:
        float32 [B, H, W, C].
    """

    def loss(pixels: jax.Array) -> jax.Array:
        logits, _ = predict(variables, pixels)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return losses.sum()

    return jax.grad(loss)(to_pixels(images))


def _gradient_profile(
    predict: Predict,
    variables: Any,
    images: jax.Array,
    labels: jax.Array,
    _: jax.Array,
) -> jax.Array:
    gradient = input_gradient(predict, variables, images, labels)
    return spectral.azimuthal_profile(
        gradient, channels="sum", log=False, normalise=False
    )


def _summarise_profile(
    _: Sequence[float], found: Sequence[np.ndarray]
) -> dict[str, Any]:
    raw = found[0].astype(np.float64).mean(axis=0)
    span = raw.max() - raw.min()
    return {"raw": raw, "spectrum": (raw - raw.min()) / (span or 1.0)}


def _right_by_band(
    predict: Predict,
    variables: Any,
    images: jax.Array,
    labels: jax.Array,
    radius: jax.Array,
) -> jax.Array:
    parts = spectral.split_bands(to_pixels(images), radius)
    answers = [jnp.argmax(predict(variables, part)[0], axis=-1) for part in parts]
    return jnp.stack([answer == labels for answer in answers], axis=-1)


def _summarise_bands(
    radii: Sequence[float], found: Sequence[np.ndarray]
) -> dict[str, Any]:
    *bands, everything = [right.mean(axis=0) for right in found]
    return {
        "radius": list(radii[:-1]),
        "low": [band[0] for band in bands],
        "high": [band[1] for band in bands],
        "accuracy": everything[0],
    }


WATCHES: dict[str, Watch] = {
    # Learning priority (IJCAI 2022): "spectrum" and "raw" [K], the mean amplitude of
    # the loss's gradient to the pixels over rings of frequency (see
    # ``spectral.azimuthal_profile``), scaled to [0, 1] and as it is.
    "input_spectrum": Watch(lambda _: (0.0,), _gradient_profile, _summarise_profile),
    # HFC (CVPR 2020): "low" and "high" [R], accuracy on what lies within and beyond
    # each "radius" (never clipped), and "accuracy" on all of it.
    "bands": Watch(
        # Within an infinite radius lies the whole image.
        lambda size: (*(share * size for share in _BAND_SHARES), float("inf")),
        _right_by_band,
        _summarise_bands,
    ),
}


def check(config: config_lib.Config) -> None:
    """Raises ConfigError, listing the choices, for what can't be watched."""
    for name in config.train.watch:
        if name not in WATCHES:
            listed = ", ".join(WATCHES)
            raise ConfigError(f"train.watch has {name!r}; choose from {listed}")
    everything = config.train.watch_examples == 0
    if config.train.watch and config.data.streaming and everything:
        raise ConfigError(
            "train.watch_examples is 0, all test images; they are held in memory, and "
            "with data.streaming they may not fit: give a number"
        )


class Watcher:
    """Measures at the ends of epochs and keeps the rows; does nothing without names.

    An epoch ends with the step nearest to it, and so that of the last epoch is the
    run's last. Where one call of the devices does several steps the measurement waits
    for its end, rather than have other programs compiled.
    """

    def __init__(
        self,
        config: config_lib.Config,
        predict: Predict,
        test: data.ArraySplit | None,
        layout: parallel.Layout,
        root: pathlib.Path,
        *,
        epoch_steps: float,
        total_steps: int,
        resume_step: int,
    ) -> None:
        """Rows beyond ``resume_step``, of a killed run, are dropped.

        Args:
            config: ``train.watch`` and ``train.watch_examples`` are used.
            predict: of ``network.make_predict``.
            test: the test split, or what was drawn of it; None where nothing is
                watched.
            layout: the devices.
            root: the run's directory.
            epoch_steps: steps of an epoch, not necessarily whole.
            total_steps: of the run.
            resume_step: where training goes on, 0 for a new run.
        """
        self._names = config.train.watch
        if not self._names:
            return
        assert test is not None, "something is watched"
        self._epoch_steps = epoch_steps
        self._path = root / FILE_NAME
        self._layout = layout
        self._ends = epoch_ends(epoch_steps, total_steps)
        self._images = samples.watched(test, config.train.watch_examples)
        self._batch_size = config.train.batch_size
        self._knobs = {n: WATCHES[n].knobs(config.data.image_size) for n in self._names}
        self._gather = {
            name: parallel.make_gather(_masked(WATCHES[name].each, predict), layout)
            for name in self._names
        }
        kept = read(self._path) if self._path.exists() else []
        kept = [row for row in kept if row["step"] <= resume_step]
        self._known = {(row["step"], row["watch"]) for row in kept}
        if parallel.is_primary() and self._path.exists():
            jsonl.replace(self._path, kept)

    def follow(self, meter: Meter, variables: Any, before: int, done: int) -> None:
        """Measures if an epoch ended after step ``before`` and up to ``done``.

        Args:
            meter: looks at the losses first, so that nothing is measured of a state
                that is not finite, and leaves the time out of the speed.
            variables: replicated, after step ``done``.
            before: step of the last call; -1 for the state that training begins with.
            done: steps done.
        """
        if not self._names:
            return
        ended = bool(np.any((self._ends > before) & (self._ends <= done)))
        if before < 0:
            ended = done in self._ends
        names = [n for n in self._names if (done, n) not in self._known]
        if not ended or not names:
            return
        meter.flush()
        started = time.monotonic()
        rows = [self._row(name, variables, done) for name in names]
        if parallel.is_primary():
            jsonl.append(self._path, rows)
        self._known.update((done, name) for name in names)
        meter.leave_out(time.monotonic() - started)

    def _row(self, name: str, variables: Any, done: int) -> dict[str, Any]:
        knobs = self._knobs[name]
        found = [self._all(name, variables, knob) for knob in knobs]
        values = WATCHES[name].summarise(knobs, found)
        return {
            "step": done,
            "epoch": done / self._epoch_steps,
            "watch": name,
            "examples": len(self._images.labels),
            **{key: _finite(value) for key, value in values.items()},
        }

    def _all(self, name: str, variables: Any, knob: float) -> np.ndarray:
        """What a watch finds for each image, in order."""
        rows = parallel.local_rows(self._batch_size, self._layout)
        knobs = np.full(len(self._layout.local), knob, np.float32)
        parts = []
        for batch in data.eval_batches(self._images, self._batch_size):
            mine = data.Batch(*(part[rows] for part in batch))
            shared = parallel.split_batch(mine, self._layout)
            found = self._gather[name](variables, (shared, knobs))
            parts.append(found[batch.mask])
        return np.concatenate(parts)


def _masked(each: Callable[..., jax.Array], predict: Predict) -> Callable[..., Any]:
    def run(variables: Any, both: tuple[data.Batch, jax.Array]) -> jax.Array:
        batch, knob = both
        return each(predict, variables, batch.image, batch.label, knob)

    return run


def _finite(values: Any) -> Any:
    """Numbers and lists of them for JSON, which has no NaN: null in its place."""
    array = np.asarray(values, np.float64).astype(object)
    array[~np.isfinite(array.astype(np.float64))] = None
    return array.tolist()
