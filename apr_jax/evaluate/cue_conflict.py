"""Shape or texture: images whose shape is of one category and texture of another.

Geirhos et al., "ImageNet-trained CNNs are biased towards texture; increasing shape bias
improves accuracy and robustness", ICLR 2019. Their images lie in folders of the shape's
category and are called after both, ``cat/cat7-elephant1.png``. Sixteen categories stand
for ImageNet's classes, by the mapping that they published (modelvshuman): that of the
largest mean probability over its classes is answered. A network that knows some of the
categories by name, as CIFAR-10's seven, is asked about these alone.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence

import jax
import numpy as np

from apr_jax import config as config_lib
from apr_jax import data, metrics, parallel
from apr_jax.data import batches as batches_lib
from apr_jax.data import images as images_lib
from apr_jax.data import walk
from apr_jax.errors import DataError
from apr_jax.evaluate import classifier as classifier_lib
from apr_jax.evaluate import ood_sets
from apr_jax.evaluate.measurement import Measurement
from apr_jax.gates import answers, places
from apr_jax.runs.records import Record

SPLIT = "cue_conflict"
_NAME = re.compile(r"([a-z]+)\d*-([a-z]+)\d*\.\w+", re.IGNORECASE)
_IMAGENET = 1000


def _span(*ends: tuple[int, int]) -> tuple[int, ...]:
    return tuple(i for first, last in ends for i in range(first, last + 1))


_BIRDS = _span((8, 8), (10, 16), (18, 20), (22, 24), (80, 83), (87, 96), (98, 100))
_DOGS = _span((152, 191), (193, 203), (205, 226), (228, 241), (243, 250), (252, 257))
# Category -> classes of ImageNet, numbered in the order of their WordNet names.
CATEGORIES: dict[str, tuple[int, ...]] = {
    "airplane": (404,),
    "bear": _span((294, 297)),
    "bicycle": (444, 671),
    "bird": _BIRDS + _span((127, 133), (135, 145)),
    "boat": (472, 554, 625, 814, 914),
    "bottle": (440, 720, 737, 898, 899, 901, 907),
    "car": (436, 511, 817),
    "cat": _span((281, 286)),
    "chair": (423, 559, 765, 857),
    "clock": (409, 530, 892),
    "dog": (*_DOGS, 259, *_span((261, 263), (265, 268))),
    "elephant": (385, 386),
    "keyboard": (508, 878),
    "knife": (499,),
    "oven": (766,),
    "truck": (555, 569, 656, 675, 717, 734, 864, 867),
}
# What other data call them.
_ALSO = {"automobile": "car", "ship": "boat"}


def measured(job: Measurement, settings: config_lib.Shift) -> Iterator[Record]:
    """Measures which of the two a classifier answers by.

    Args:
        job: the measurement, whose settings take what the images depend on.
        settings: ``cue_conflict`` is the folder, ``fit`` what becomes of images of
            another size.

    Yields:
        "follows_shape" and "follows_texture", the shares of all images whose shape,
        or texture, is answered; and "shape_bias", the share of shape among both.
        Images of one category in both, or of one that the classifier doesn't know,
        don't count. Intervals are Wilson's.

    Raises:
        DataError: the folder isn't there, a name isn't of this form, or the
            classifier has neither ImageNet's classes nor two of the categories.
    """
    classifier, context = job.classifier, job.context
    chosen = classes_of(classifier.class_names)
    root = places.local(settings.cue_conflict, "cue_conflict")
    if not root.is_dir():
        raise DataError(f"cue_conflict is {str(root)!r}, which is no folder")
    pairs = {file: categories_of(file) for file in walk.images(root)}
    known = {name for name, own in zip(CATEGORIES, chosen, strict=True) if own}
    files = [f for f, cues in pairs.items() if len(set(cues)) == 2 and known >= {*cues}]
    if not files:
        raise DataError(
            f"cue_conflict: {root} has no images of two categories that "
            f"{classifier.name} knows"
        )
    described, order = classifier.config.data, list(CATEGORIES)
    cues = np.array([[order.index(cue) for cue in pairs[file]] for file in files])
    size = classifier.config.eval.batch_size

    def batches() -> Iterator[data.Batch]:
        for start in range(0, len(files), rows):
            part = files[start : start + rows]
            read = ((images_lib.read(root / file), file) for file in part)
            fitted = [ood_sets.fitted(x, described, settings.fit, f) for x, f in read]
            labels = np.zeros(len(part), np.int32)
            yield batches_lib.pad(np.stack(fitted), labels, rows)

    rows = context.rows(size, len(files))
    own = classifier_lib.share(batches(), parallel.local_rows(rows, context.layout))
    collect = classifier_lib.make_collect(classifier, context, features=False)
    outputs = collect(own, len(files), what=SPLIT)
    said = decisions(outputs.logits, chosen)
    by_shape, by_texture = (int((said == cues[:, i]).sum()) for i in (0, 1))
    numbers = {
        "follows_shape": metrics.wilson(by_shape, len(files)),
        "follows_texture": metrics.wilson(by_texture, len(files)),
    }
    if by_shape + by_texture:
        numbers["shape_bias"] = metrics.wilson(by_shape, by_shape + by_texture)
    yield from job.records(
        numbers,
        SPLIT,
        not_finite=outputs.not_finite,
        left_out=len(pairs) - len(files),
        categories=len(known),
    )


def fingerprint(settings: config_lib.Shift) -> str:
    """Changes with the names and sizes of the images."""
    root = places.local(settings.cue_conflict, "cue_conflict")
    facts = [(file, walk.stat(root / file).st_size) for file in walk.images(root)]
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:12]


def categories_of(file: str) -> tuple[str, str]:
    """Shape and texture of an image, by its name.

    Raises:
        DataError: it isn't called after two of the categories.
    """
    found = _NAME.fullmatch(file.rpartition("/")[2])
    pair = tuple(found.groups()) if found else ()
    if len(pair) != 2 or not set(pair) <= set(CATEGORIES):
        raise DataError(
            f"cue_conflict: {file!r} isn't called after a shape and a texture, such as "
            f"cat7-elephant1.png; the categories are {', '.join(CATEGORIES)}"
        )
    return pair[0], pair[1]


def classes_of(class_names: Sequence[str]) -> list[tuple[int, ...]]:
    """The classes of each category: by name, or those of ImageNet.

    Of a category that a network of other classes doesn't know there are none.

    Raises:
        DataError: there are fewer than two.
    """
    names = [_ALSO.get(name, name) for name in class_names]
    if not set(CATEGORIES) <= set(names) and len(names) == _IMAGENET:
        return list(CATEGORIES.values())
    found: list[tuple[int, ...]] = [
        (names.index(category),) if category in names else () for category in CATEGORIES
    ]
    if sum(map(bool, found)) < 2:
        raise DataError(
            f"cue conflicts are for networks of ImageNet's {_IMAGENET:,} classes, or "
            "with two or more classes called as the sixteen categories; this one has "
            f"{len(names)} classes, {', '.join(names[:3])} first"
        )
    return found


def decisions(logits: np.ndarray, classes: Sequence[Sequence[int]]) -> np.ndarray:
    """The category answered, int [N]; -1 where there is none.

    Args:
        logits: [N, K].
        classes: of each category.
    """
    known = answers.answer(logits) >= 0
    p = np.asarray(jax.nn.softmax(np.where(known[:, None], logits, 0), axis=-1))
    none = np.full(len(p), -np.inf)
    each = [p[:, list(own)].mean(axis=1) if own else none for own in classes]
    mean = np.stack(each, axis=1)
    said: np.ndarray = np.where(known, answers.answer(mean), answers.NO_ANSWER)
    return said
