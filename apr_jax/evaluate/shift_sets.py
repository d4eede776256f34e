"""Sets of the classifier's classes, or of some of them, from elsewhere.

A set is written ``name=source:where``, as those of ``ood_sets``, but has labels:

- ``v2=tfds:imagenet_v2``, ``cifar10_1=tfds:cifar10_1/test``, ``new=parquet:PATH``: its
  classes have names of the classifier's;
- ``objects=folder:PATH``: ``PATH/CLASS/IMAGE``, folders called as the classifier's
  classes, or by their numbers; there may be fewer;
- ``photos=arrays:PATH``: an ``.npz`` file with ``images`` and ``labels`` (or
  ``test_images`` and ``test_labels``), which count the classifier's classes.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from apr_jax import config as config_lib
from apr_jax import data
from apr_jax.data import batches as batches_lib
from apr_jax.data import classes as classes_lib
from apr_jax.data import folder as folder_lib
from apr_jax.data import images as images_lib
from apr_jax.data import samples, walk
from apr_jax.errors import DataError
from apr_jax.evaluate import ood_sets
from apr_jax.gates import places
from apr_jax.runs import files

# Labels of all images, in the classifier's order; then as ``ood_sets.Opened``.
_Labelled = tuple[np.ndarray, ood_sets.Opened]


@dataclasses.dataclass(frozen=True)
class ShiftSet:
    """Images of one set with their labels, ready to be read.

    Attributes:
        name: as given.
        source: its origin, "source:where".
        size: number of images.
        classes: int [C], the classes that occur in the whole set, in rising order.
        fingerprint: changes with the images and the labels.
        note: the changes that were made to them, or the empty string.
        batches: size of a batch -> every image once, uint8 and of the classifier's
            size, with a mask that is false for padding.
    """

    name: str
    source: str
    size: int
    classes: np.ndarray
    fingerprint: str
    note: str
    batches: Callable[[int], Iterator[data.Batch]]


def open_set(
    name: str,
    source: str,
    where: str,
    described: config_lib.Data,
    class_names: Sequence[str],
    settings: config_lib.Shift,
    *,
    seed: int,
) -> ShiftSet:
    """Opens a set, with all checks that are possible without reading all of it.

    Args:
        name, source, where: of ``ood_sets.parse``.
        described: the classifier's data, which give size and cache.
        class_names: of the classifier.
        settings: how many images, and what becomes of those of another size.
        seed: of the draw of images.

    Raises:
        DataError: the set isn't there, is empty, or has other classes.
    """
    try:
        if source in ("tfds", "parquet"):
            ood_sets.check_resized(source, settings.fit)
            wanted, split = ood_sets.stored(source, where, described, settings.tfds_dir)
            labels, opened = _loaded(wanted, split, class_names)
        else:
            kind = _folder if source == "folder" else _arrays
            labels, opened = kind(where, described, class_names, settings.fit)
    except DataError as error:
        raise DataError(f"shift {name!r}: {error}") from error
    read, count, mark, note = opened
    if count == 0:
        raise DataError(f"shift {name!r} ({source}:{where}) is empty")
    chosen = samples.subset(count, settings.examples, seed)

    def batches(batch_size: int) -> Iterator[data.Batch]:
        for start in range(0, len(chosen), batch_size):
            rows = chosen[start : start + batch_size]
            try:
                images = read(rows)
            except DataError as error:
                raise DataError(f"shift {name!r}: {error}") from error
            yield batches_lib.pad(images, labels[rows], batch_size)

    digest = hashlib.sha256(mark.encode())
    digest.update(labels.tobytes())
    return ShiftSet(
        name=name,
        source=f"{source}:{where}",
        size=len(chosen),
        classes=np.unique(labels),
        fingerprint=digest.hexdigest()[:12],
        note=note,
        batches=batches,
    )


def labels_of(
    names: Sequence[str], class_names: Sequence[str], where: str
) -> np.ndarray:
    """The classifier's label of each of a set's classes, int32.

    By name; or by number, where the set's are numbers and the classifier's are not.

    Raises:
        DataError: the classifier lacks some.
    """
    known = {name: label for label, name in enumerate(class_names)}
    lacking = [name for name in names if name not in known]
    if not lacking:
        return np.array([known[name] for name in names], np.int32)
    if all(name.isdecimal() and int(name) < len(class_names) for name in names):
        return np.array([int(name) for name in names], np.int32)
    raise DataError(
        f"{where} has {len(names)} classes, of which the classifier lacks "
        f"{len(lacking)}, such as {lacking[0]!r}; its {len(class_names)} are "
        f"{class_names[0]!r}, {class_names[1]!r} and so on"
    )


def _loaded(
    wanted: config_lib.Data, split: str, class_names: Sequence[str]
) -> _Labelled:
    loaded = data.load(wanted, splits=[split])
    images, own = loaded.splits[split]
    labels = labels_of(loaded.class_names, class_names, wanted.name)[np.asarray(own)]
    read = lambda rows: np.asarray(images[rows])
    note = ood_sets.resized_note(wanted)
    return labels, (read, len(images), loaded.fingerprint, note)


def _folder(
    where: str, described: config_lib.Data, class_names: Sequence[str], fit: str
) -> _Labelled:
    root = places.local(where, "shift")
    if not root.is_dir():
        raise DataError(f"{where!r} is no folder")
    names = tuple(walk.folders(root))
    if not names:
        raise DataError(f"{where!r} has no folders of classes")
    label_of = labels_of(names, class_names, where)
    found = folder_lib.list_classes(root, names)

    def read(rows: np.ndarray) -> np.ndarray:
        chosen = [root / found.files[row] for row in rows]
        pairs = ((images_lib.read(file), str(file)) for file in chosen)
        fitted = (ood_sets.fitted(image, described, fit, f) for image, f in pairs)
        return np.stack([*fitted])

    stats = [(file, walk.stat(root / file).st_size) for file in found.files]
    size = described.image_size
    done = {"resize": "resized and cropped", "pad": "padded with black"}.get(fit)
    note = f"images of another size are {done} to {size} x {size}" if done else ""
    return label_of[found.labels], (read, len(found.files), repr(stats), note)


def _arrays(
    where: str, described: config_lib.Data, class_names: Sequence[str], fit: str
) -> _Labelled:
    path = ood_sets.array_file(places.local(where, "shift"))
    opened = ood_sets.arrays(str(path), described, fit)
    named = {}
    if path.suffix == ".npz":
        with files.archive(path) as packed:
            named = {name: packed[name] for name in _LABELS if name in packed}
    if not named:
        raise DataError(f"{path} has no {' or '.join(_LABELS)}; shifted sets need them")
    labels = classes_lib.labels(next(iter(named.values())), opened[1], str(path))
    if labels.size and (labels.min() < 0 or labels.max() >= len(class_names)):
        raise DataError(
            f"{path} has labels from {labels.min()} to {labels.max()}; the "
            f"classifier's {len(class_names)} classes allow 0 to "
            f"{len(class_names) - 1}"
        )
    return labels.astype(np.int32), opened


_LABELS = ("labels", "test_labels")
