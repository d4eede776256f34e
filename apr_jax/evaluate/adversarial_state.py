"""The images that are attacked, and the state that is kept while that goes on."""

import base64
import io
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from PIL import Image

from apr_jax import console, data, parallel
from apr_jax.attacks import rounds
from apr_jax.data import imagenet, samples
from apr_jax.errors import DataError
from apr_jax.evaluate import classifier as classifier_lib
from apr_jax.gates import stores
from apr_jax.runs import files

_SHOWN = 6  # images of the sheet


def ball(norm: str, eps: float) -> str:
    """The name of a ball in records: "linf/0.0313725"."""
    return f"{norm}/{eps:.6g}"


def load(
    classifier: classifier_lib.Classifier, examples: int, resident: data.DataSet | None
) -> tuple[np.ndarray, np.ndarray]:
    """The leading pixels, float32 [N, H, W, C], and labels of the test split.

    As ``samples.leading`` takes them; of a streamed folder a draw.
    """
    config = classifier.config.data
    if config.streaming and resident is None:
        size = imagenet.num_examples(config, config.test_split)
    else:
        if resident is None:
            resident = data.load(config, splits=(config.test_split,))
        split = resident.splits[config.test_split]
        size = len(split.labels)
    count = min(examples, size) if examples else size
    if resident is not None:
        images, labels = samples.leading(split, count)
    else:
        # All of them on every process.
        images, labels = samples.joined(
            samples.stream(
                config,
                config.test_split,
                examples=count,
                seed=0,
                rows=min(count, 100),
            )
        )
    return np.asarray(images).astype(np.float32) / 255, np.asarray(labels, np.int32)


def restore(
    path: stores.Place | None, images: np.ndarray, labels: np.ndarray
) -> tuple[rounds.Result | None, list[float]]:
    """The result that an earlier call saved, and the seconds of each attack."""
    # Several processes must agree on where they are; they begin anew.
    if path is None or not path.exists() or jax.process_count() > 1:
        return None, []
    try:
        with files.archive(path) as stored:
            found, names = stored["images"], [str(name) for name in stored["names"]]
            standing = stored["standing"]
            seconds = [float(s) for s in stored["seconds"]]
            bad = int(stored.get("not_finite", 0))
    except DataError as error:
        console.say(f"{error}; its attacks are run again")
        return None, []
    if found.shape != images.shape or standing.shape[1:] != labels.shape:
        return None, []
    survived = dict(zip(names, standing, strict=True))
    return rounds.Result(found, survived, bad), seconds


def save(
    path: stores.Place | None,
    result: rounds.Result,
    labels: np.ndarray,
    seconds: Sequence[float],
) -> None:
    """Writes a result and the seconds of each attack."""
    if path is None or not parallel.is_primary():
        return
    arrays = {
        "images": result.images,
        "labels": labels,
        "names": np.array(list(result.survived)),
        "standing": np.stack(list(result.survived.values())),
        "seconds": np.array(seconds),
        "not_finite": np.array(result.not_finite),
    }
    files.write_arrays(path, arrays)


def sheet(
    result: rounds.Result,
    images: np.ndarray,
    labels: np.ndarray,
    answers: np.ndarray,
    names: Sequence[str],
) -> dict[str, Any]:
    """A few images before and after they were broken, and the differences, as one PNG.

    Args:
        result: of the attacks.
        images: the clean ones, [N, H, W, C].
        labels: [N].
        answers: [N], the classifier's, to ``result.images``; -1 where it has none.
        names: of the classes.

    Returns:
        "png" in base64 (a row of clean images, one of adversarial ones, one of the
        differences, each on a scale of its own around grey), and the names of the
        classes, "from" and "to"; empty if nothing was broken.
    """
    broken = np.flatnonzero(~result.robust & result.survived["clean"])[:_SHOWN]
    if not len(broken):
        return {}
    clean, found = images[broken], result.images[broken]
    difference = found - clean
    scale = np.maximum(np.abs(difference).max((1, 2, 3), keepdims=True), 1e-9)
    rows = [clean, found, 0.5 + 0.5 * difference / scale]
    tiles = np.concatenate([np.concatenate([*row], axis=1) for row in rows])
    pixels = np.round(255 * np.clip(tiles, 0, 1)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return {
        "png": base64.b64encode(buffer.getvalue()).decode(),
        "from": [names[label] for label in labels[broken]],
        "to": ["no answer" if a < 0 else names[a] for a in answers[broken]],
    }
