"""The frequencies that a classifier listens to, and whether to phase or to amplitude.

    python -m apr_jax.evaluate.fourier RUN
    python -m apr_jax.evaluate.fourier RUN --parts heatmap --examples 500

Three parts: ``heatmap``, the error under a wave of each frequency (Yin et al. 2019);
``bands``, the error on images that are low-pass or high-pass filtered (Wang et al.,
CVPR 2020); and ``phase``, whose label the answer is on images that join the phase of
one image with the amplitude of another (Figures 2 and 3 of the APR paper as numbers).
"""

import dataclasses
import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from apr_jax import config as config_lib
from apr_jax import metrics, parallel
from apr_jax import settings as settings_lib
from apr_jax.data import samples
from apr_jax.errors import ConfigError
from apr_jax.evaluate import classifier as classifier_lib
from apr_jax.evaluate import fourier_probe
from apr_jax.evaluate.context import Context
from apr_jax.evaluate.measurement import Measurement
from apr_jax.runs.records import Record

JOB = "evaluate.fourier"
PARTS = settings_lib.choices(config_lib.Fourier, "parts")
# The sizes that a choice of norm and extent has been published for.
_SMALL, _SMALL_NORM, _LARGE_NORM, _LARGE_EXTENT = 64, 4.0, 15.7, 63


def measure(
    classifier: classifier_lib.Classifier,
    settings: config_lib.Fourier,
    context: Context,
) -> Iterator[Record]:
    """Measures a classifier by frequency, on images of its test split.

    Args:
        classifier: the classifier.
        settings: the parts, and how they are measured. Images are drawn by the seed
            of the configuration. ``norm`` is of a wave in one channel, of pixels in
            [0, 1]; ``extent`` the side of the heatmap in frequencies around zero,
            even only if it is all; ``radii`` are in cycles an image.
        context: its surroundings; the counts of a heatmap under way are kept.

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
    settings = check(settings, config.data)
    parallel.check_batch("eval.batch_size", config.eval.batch_size, context.layout)
    wide, dtype = classifier_lib.in_float32(classifier)
    common = {
        "examples": settings.examples,
        "weights": classifier_lib.weights_digest(classifier),
        **dtype,
    }
    plans: dict[str, dict[str, Any]] = {
        "heatmap": {"norm": settings.norm, "extent": settings.extent},
        "bands": {"radii": list(settings.radii)},
        "phase": {"axes": list(config.augment.axes)},
    }
    missing = []
    for part in PARTS:
        if part not in settings.parts:
            continue
        plan = {**common, "part": part, **plans[part]}
        job = Measurement(JOB, classifier, context, plan)
        found = job.found().values()
        lacks = part == "phase" and job.lacks_answers(config.data.test_split)
        if any(record.extra.get("last") for record in found) and not lacks:
            yield from job.hidden(found)
        else:
            missing.append(job)
    if not missing:
        return
    chosen = samples.load(
        config.data,
        config.data.test_split,
        examples=settings.examples,
        seed=config.seed,
        resident=context.resident,
    )
    probe = fourier_probe.Probe(wide, context, chosen)
    for job in missing:
        assert job.settings is not None
        part = job.settings["part"]
        numbers, extra_of = _MAKERS[part](probe, job)
        clean = metrics.wilson(probe.clean_wrong(), probe.size)
        # The last one is marked, so that a part counts as done.
        last = list(numbers)[-1]
        extra_of = {**extra_of, last: {**extra_of.get(last, {}), "last": True}}
        yield from job.records(
            {f"{part}.clean_error": clean, **numbers},
            config.data.test_split,
            extra_of=extra_of,
            not_finite=probe.take_not_finite(),
        )


# Numbers by metric, and more for the records of some.
_Found = tuple[dict[str, metrics.Measured], dict[str, dict[str, Any]]]


def _heatmap(probe: fourier_probe.Probe, job: Measurement) -> _Found:
    settings = job.settings or {}
    errors = probe.heatmap(settings["norm"], settings["extent"]) / probe.size
    mean = float(errors.mean())
    return (
        {"heatmap_error": metrics.Measured(mean, None, None, "fraction", probe.size)},
        {"heatmap_error": {"heatmap": errors.round(4)}},
    )


def _bands(probe: fourier_probe.Probe, job: Measurement) -> _Found:
    settings = job.settings or {}
    numbers, extra_of = {}, {}
    counts = probe.bands(settings["radii"])
    for radius, (low, high) in zip(settings["radii"], counts, strict=True):
        for band, wrong in (("low", low), ("high", high)):
            name = f"{band}_pass_error.r{radius:g}"
            numbers[name] = metrics.wilson(wrong, probe.size)
            extra_of[name] = {"band": band, "radius": radius}
    return numbers, extra_of


def _phase(probe: fourier_probe.Probe, job: Measurement) -> _Found:
    pairs = probe.phase_or_amplitude((job.settings or {})["axes"])
    follows, both = pairs.follows, pairs.recognised
    job.keep_arrays(
        job.classifier.config.data.test_split,
        {
            "index": np.arange(len(follows)),
            "label": pairs.labels,
            "predicted": pairs.answers,
            "confidence": np.full(len(follows), np.nan, np.float32),
        },
        images=hashlib.sha256(
            pairs.labels.tobytes() + pairs.donors.tobytes()
        ).hexdigest(),
    )
    numbers = {}
    for suffix, rows in (("", np.ones_like(both)), (".recognised", both)):
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


def check(settings: config_lib.Fourier, data: config_lib.Data) -> config_lib.Fourier:
    """Settings of ``measure``, with those that depend on the size of images filled in.

    Raises:
        ConfigError: for one that isn't allowed.
    """
    settings_lib.check(settings)
    if not settings.parts:
        raise ConfigError(f"parts is empty; choose from {', '.join(PARTS)}")
    size = data.image_size
    small = size <= _SMALL
    extent = settings.extent or (size if small else min(_LARGE_EXTENT, size))
    if extent > size or (extent % 2 == 0 and extent != size):
        raise ConfigError(
            f"extent is {extent}; for images of {size} pixels it must be odd and up to "
            f"{size}, or {size}"
        )
    eighths = tuple(round(size * k / 8, 2) for k in range(1, 8))
    return dataclasses.replace(
        settings,
        norm=settings.norm or (_SMALL_NORM if small else _LARGE_NORM),
        extent=extent,
        radii=settings.radii or eighths,
    )


if __name__ == "__main__":
    from apr_jax.cli import measure as command_line

    command_line.main("fourier")
