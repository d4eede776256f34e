"""The frequencies that a classifier listens to, and whether to phase or to amplitude.

    python -m apr_jax.evaluate.fourier RUN
    python -m apr_jax.evaluate.fourier RUN --parts heatmap --examples 500

Three parts: ``heatmap``, the error under a wave of each frequency (Yin et al. 2019);
``bands``, the error on images that are low-pass or high-pass filtered (Wang et al.,
CVPR 2020); and ``phase``, whose label the answer is on images that join the phase of
one image with the amplitude of another (Figures 2 and 3 of the APR paper as numbers).
"""

import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from absl import flags

from apr_jax import data, metrics, parallel
from apr_jax.data import samples
from apr_jax.errors import ConfigError
from apr_jax.evaluate import classifier as classifier_lib
from apr_jax.evaluate import command, fourier_probe
from apr_jax.evaluate.measurement import Measurement
from apr_jax.runs.records import Record

JOB = "evaluate.fourier"
PARTS = ("heatmap", "bands", "phase")
# The sizes that a choice of norm and extent has been published for.
_SMALL, _SMALL_NORM, _LARGE_NORM, _LARGE_EXTENT = 64, 4.0, 15.7, 63


def measure(
    classifier: classifier_lib.Classifier,
    layout: parallel.Layout,
    *,
    parts: Sequence[str] = PARTS,
    examples: int = 1000,
    norm: float = 0.0,
    extent: int = 0,
    radii: Sequence[float] = (),
    resident: data.DataSet | None = None,
    done: Iterable[Record] = (),
    scratch: pathlib.Path | None = None,
    quiet: bool = False,
) -> Iterator[Record]:
    """Measures a classifier by frequency, on images of its test split.

    Args:
        classifier: the classifier.
        layout: the devices.
        parts: which of ``PARTS``.
        examples: images, drawn by the seed; 0 is all.
        norm: L2 norm of a wave in one channel, of pixels in [0, 1]; 0 is 4 for images
            of up to 64 pixels and 15.7 for larger ones.
        extent: side of the heatmap, in frequencies around zero; 0 is all for images
            of up to 64 pixels and 63 for larger ones. Even only if it is all.
        radii: of the filters, in cycles an image; empty is 4, 8, ... 28 for 32
            pixels, and in proportion for other sizes.
        resident: the data, where they are in memory already.
        done: records of earlier calls; what they hold is not measured again.
        scratch: keeps what was measured of a heatmap that is under way.
        quiet: no progress bar.

    Yields:
        "heatmap_error", the mean over the map, with the map itself; "low_pass_error"
        and "high_pass_error" of each radius; "follows_phase", "follows_amplitude"
        and "follows_neither", over all pairs and over those whose two images are
        both recognised. Before each part, "clean_error" on the same images.

    Raises:
        ConfigError: a setting can't be used; the message names it and the choices.
        DataError: the data aren't there, or hold one class only.
    """
    config = classifier.config
    size = config.data.image_size
    norm = norm or (_SMALL_NORM if size <= _SMALL else _LARGE_NORM)
    extent = extent or (size if size <= _SMALL else min(_LARGE_EXTENT, size))
    radii = tuple(radii) or tuple(round(size * k / 8, 2) for k in range(1, 8))
    _check(parts, examples, norm, extent, radii, size)
    parallel.check_batch("eval.batch_size", config.eval.batch_size, layout)
    common = {
        "examples": examples,
        "weights": classifier_lib.weights_digest(classifier),
    }
    wide = classifier_lib.in_float32(classifier)
    if wide is not classifier:
        # What was measured in the network's own type isn't taken for this.
        common["dtype"] = "float32"
    plans: dict[str, dict[str, Any]] = {
        "heatmap": {**common, "part": "heatmap", "norm": norm, "extent": extent},
        "bands": {**common, "part": "bands", "radii": list(radii)},
        "phase": {**common, "part": "phase", "axes": list(config.augment.axes)},
    }
    done = tuple(done)
    missing = []
    for part in PARTS:
        if part not in parts:
            continue
        job = Measurement(JOB, classifier, layout, done, plans[part])
        found = job.found().values()
        if any(record.extra.get("last") for record in found):
            yield from job.hidden(found)
        else:
            missing.append(job)
    if not missing:
        return
    chosen = samples.load(
        config.data,
        config.data.test_split,
        examples=examples,
        seed=config.seed,
        resident=resident,
    )
    probe = fourier_probe.Probe(wide, layout, chosen, quiet=quiet, scratch=scratch)
    for job in missing:
        assert job.settings is not None
        part = job.settings["part"]
        numbers, extra_of = _MAKERS[part](probe, job.settings)
        clean = metrics.wilson(probe.clean_wrong(), probe.size)
        # The last one is marked, so that a part counts as done.
        last = list(numbers)[-1]
        extra_of = {**extra_of, last: {**extra_of.get(last, {}), "last": True}}
        yield from job.records(
            {f"{part}.clean_error": clean, **numbers},
            config.data.test_split,
            extra_of=extra_of,
        )


# Numbers by metric, and more for the records of some.
_Found = tuple[dict[str, metrics.Measured], dict[str, dict[str, Any]]]


def _heatmap(probe: fourier_probe.Probe, settings: Mapping[str, Any]) -> _Found:
    errors = probe.heatmap(settings["norm"], settings["extent"]) / probe.size
    mean = float(errors.mean())
    return (
        {"heatmap_error": metrics.Measured(mean, None, None, "fraction", probe.size)},
        {"heatmap_error": {"heatmap": errors.round(4)}},
    )


def _bands(probe: fourier_probe.Probe, settings: Mapping[str, Any]) -> _Found:
    numbers, extra_of = {}, {}
    counts = probe.bands(settings["radii"])
    for radius, (low, high) in zip(settings["radii"], counts, strict=True):
        for band, wrong in (("low", low), ("high", high)):
            name = f"{band}_pass_error.r{radius:g}"
            numbers[name] = metrics.wilson(wrong, probe.size)
            extra_of[name] = {"band": band, "radius": radius}
    return numbers, extra_of


def _phase(probe: fourier_probe.Probe, settings: Mapping[str, Any]) -> _Found:
    follows, both_right = probe.phase_or_amplitude(settings["axes"])
    numbers = {}
    for suffix, rows in (("", np.ones_like(both_right)), (".recognised", both_right)):
        if count := int(rows.sum()):
            for k, name in enumerate(fourier_probe.FOLLOWS):
                hits = int(np.sum(follows[rows] == k))
                numbers[f"follows_{name}{suffix}"] = metrics.wilson(hits, count)
    return numbers, {}


_MAKERS: dict[str, Callable[..., _Found]] = {
    "heatmap": _heatmap,
    "bands": _bands,
    "phase": _phase,
}


# --- Settings ------------------------------------------------------------------------


def _check(
    parts: Sequence[str],
    examples: int,
    norm: float,
    extent: int,
    radii: Sequence[float],
    size: int,
) -> None:
    """Refuses settings that can't be used."""
    for part in parts:
        if part not in PARTS:
            raise ConfigError(f"parts has {part!r}; choose from {', '.join(PARTS)}")
    if not parts:
        raise ConfigError(f"parts is empty; choose from {', '.join(PARTS)}")
    if examples < 0:
        raise ConfigError(f"examples is {examples}; it must be at least 0")
    if not 0 < norm < float("inf"):
        raise ConfigError(f"norm is {norm}; it must be above 0")
    if not 1 <= extent <= size or (extent % 2 == 0 and extent != size):
        raise ConfigError(
            f"extent is {extent}; for images of {size} pixels it must be odd and up to "
            f"{size}, or {size}"
        )
    for radius in radii:
        if not radius > 0:
            raise ConfigError(f"radii has {radius}; each must be above 0")


def _settings() -> Callable[[], dict[str, Any]]:
    """Defines the flags of this evaluation."""
    parts = flags.DEFINE_list("parts", list(PARTS), "Which parts to measure.")
    examples = flags.DEFINE_integer("examples", 1000, "Images; 0 is all.")
    norm = flags.DEFINE_float(
        "norm", 0.0, "L2 norm of a wave; 0: 4 up to 64 pixels, 15.7 beyond."
    )
    extent = flags.DEFINE_integer(
        "extent", 0, "Side of the heatmap; 0: all up to 64 pixels, 63 beyond."
    )
    radii = flags.DEFINE_list(
        "radii", [], "Of the filters; eighths of the side if unset."
    )

    def values() -> dict[str, Any]:
        try:
            numbers = tuple(float(radius) for radius in radii.value)
        except ValueError as error:
            raise ConfigError(f"radii: {error}") from error
        return {
            "parts": tuple(parts.value),
            "examples": examples.value,
            "norm": norm.value,
            "extent": extent.value,
            "radii": numbers,
        }

    return values


if __name__ == "__main__":
    command.main(measure, _settings)
