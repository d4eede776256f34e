"""Signs of gradient masking as records, a radius at a time; see ``attacks.masking``."""

import time
from collections.abc import Iterator, Sequence

import jax
import numpy as np

from apr_jax import config as config_lib
from apr_jax import console, metrics
from apr_jax.attacks import masking, rounds
from apr_jax.evaluate import adversarial_state as state
from apr_jax.evaluate.adversarial_engine import DeviceEngine
from apr_jax.evaluate.measurement import Measurement
from apr_jax.runs.records import Record

JOB = "evaluate.masking"


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
        "measured", what would be suspicious, and whether it is; then
        "suspicious_signs", how many are.
    """
    for norm, eps in balls:
        if norm not in masking.NORMS:
            console.say(f"signs of gradient masking are for linf and l2, not {norm}")
            continue
        split = state.ball(norm, eps)
        found = job.of_split(split)
        if any(record.metric == "suspicious_signs" for record in found):
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
            jax.random.key(job.seed),
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
    return _records(job, masking.signs(survived, sizes, steps=steps), norm, eps, split)


def _records(
    job: Measurement,
    signs: Sequence[masking.Sign],
    norm: str,
    eps: float,
    split: str,
) -> list[Record]:
    number = lambda value, n, unit: metrics.Measured(value, None, None, unit, n)
    told = [sign.name for sign in signs if sign.suspicious]
    numbers = {s.name: number(s.excess, s.n, "fraction") for s in signs}
    numbers["suspicious_signs"] = number(float(len(told)), signs[0].n, "1")
    about = {
        sign.name: {
            "measured": dict(sign.measured),
            "suspicious_if": masking.SIGNS[sign.name],
            "suspicious": sign.suspicious,
        }
        for sign in signs
    }
    listed = ", ".join(told).replace("_", " ") or "none"
    console.say(f"{split}: signs of gradient masking: {listed}")
    return job.records(numbers, split, extra_of=about, norm=norm, eps=eps)
