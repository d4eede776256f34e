"""Signs of gradient masking as records, a radius at a time; see ``attacks.masking``."""

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from apr_jax import config as config_lib
from apr_jax import console, fast_random, metrics
from apr_jax.attacks import masking, rounds, surface
from apr_jax.evaluate import adversarial_state as state
from apr_jax.evaluate.adversarial_engine import DeviceEngine
from apr_jax.evaluate.measurement import Measurement
from apr_jax.runs.records import Record

JOB = "evaluate.masking"
_SHOWN = 3  # surfaces on the page


def measured(
    job: Measurement,
    engine: DeviceEngine,
    balls: Sequence[tuple[str, float]],
    images: np.ndarray,
    labels: np.ndarray,
) -> Iterator[Record]:
    """Measures the signs in some balls.

    Args:
        job: the measurement, whose settings have "steps", "queries" and "seed".
        engine: attacks the network.
        balls: norms and radii; "l1" is left out, and that is said.
        images: float32 [N, H, W, C] in [0, 1].
        labels: int32 [N].

    Yields:
        For each ball, as split "linf/0.03137" and so on: each sign of
        ``attacks.masking.SIGNS`` with its excess; its record says what was
        "measured", what would be suspicious, and whether it is, and that of
        "loss_surface" has the "surface" around some of the images; then
        "off_tangent" and "ups_and_downs" of ``attacks.Surface``, means over its
        images, and "suspicious_signs", how many are. The surface is left out where
        no answer is right, or logits are not finite.
    """
    for norm, eps in balls:
        if norm not in masking.NORMS:
            console.say(f"signs of gradient masking are for linf and l2, not {norm}")
            continue
        split = state.ball(norm, eps)
        found = job.of_split(split)
        # Records of before there were surfaces don't say how many there are.
        if any("surfaces" in record.extra for record in found):
            yield from job.hidden(found)
        else:
            yield from _in_ball(job, engine, norm, eps, split, images, labels)


def _in_ball(
    job: Measurement,
    engine: DeviceEngine,
    norm: str,
    eps: float,
    split: str,
    images: np.ndarray,
    labels: np.ndarray,
) -> list[Record]:
    """The records of one ball; the attacks that are over are kept meanwhile."""
    assert job.settings is not None
    assert job.seed is not None
    path = job.context.kept(
        f"masking/{{}}/{split.replace('/', '_')}.npz",
        lambda: [
            job.settings,  # with a digest of the weights
            config_lib.config_hash(job.classifier.config),
            job.classifier.step,
            labels.tolist(),
        ],
        alone=False,
    )
    none = images[..., :0]  # who withstood is kept, not the images
    before, seconds = state.restore(path, none, labels)
    kept = {} if before is None else before.survived
    survived = dict(kept)
    steps, queries = job.settings["steps"], job.settings["queries"]
    total = len(masking.stages(norm, steps, queries))
    started = time.monotonic()
    with job.context.bar() as bar:
        what = f"masking, {split}"
        task = bar.add_task(what, total=total, completed=max(len(kept) - 1, 0))
        for survived in masking.survivors(
            engine,
            fast_random.key_of(job.seed),
            images,
            labels,
            norm=norm,
            eps=eps,
            steps=steps,
            queries=queries,
            before=kept,
        ):
            seconds.append(time.monotonic() - started)
            started = time.monotonic()
            state.save(path, rounds.Result(none, survived), labels, seconds)
            bar.update(task, advance=1)
    sizes = rounds.gradient_sizes(engine, images, labels, "ce")
    key = fast_random.key_of(job.seed)
    around = surface.measure(engine, key, images, labels, norm=norm, eps=eps)
    told = masking.signs(survived, sizes, steps=steps) + masking.of_surface(around)
    return _records(job, told, around, norm, eps, split)


def _records(
    job: Measurement,
    signs: Sequence[masking.Sign],
    around: surface.Surface,
    norm: str,
    eps: float,
    split: str,
) -> list[Record]:
    number = lambda value, n, unit: metrics.Measured(value, None, None, unit, n)
    told = [sign.name for sign in signs if sign.suspicious]
    numbers = {s.name: number(s.excess, s.n, "fraction") for s in signs}
    about: dict[str, dict[str, Any]] = {
        sign.name: {
            "measured": dict(sign.measured),
            "suspicious_if": masking.SIGNS[sign.name],
            "suspicious": sign.suspicious,
        }
        for sign in signs
    }
    about["suspicious_signs"] = {"surfaces": len(around.rows)}
    if count := len(around.rows):
        for name in ("off_tangent", "ups_and_downs"):
            mean = float(getattr(around, name).mean())
            numbers[name] = number(mean, count, "fraction")
        about["loss_surface"]["surface"] = _drawn(around)
    numbers["suspicious_signs"] = number(float(len(told)), signs[0].n, "1")
    listed = ", ".join(told).replace("_", " ") or "none"
    console.say(f"{split}: signs of gradient masking: {listed}")
    bad = around.not_finite
    return job.records(
        numbers, split, extra_of=about, not_finite=bad, norm=norm, eps=eps
    )


def _drawn(around: surface.Surface) -> dict[str, Any]:
    """Of a few images what the page draws, to four digits; "example" counts from 0."""
    return {
        "offsets": surface.OFFSETS.tolist(),
        "images": [
            {
                "example": int(row),
                "losses": [[float(f"{x:.4g}") for x in line] for line in losses],
            }
            for row, losses in zip(around.rows, around.losses[:_SHOWN], strict=False)
        ],
    }
