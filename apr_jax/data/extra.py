"""Further training images, mixed in with those of the main set by ratio.

``data.extra_dirs`` names folders of CLASS/IMAGE.jpg whose classes are called as those
of the main set (WordNet ids for ImageNet): so DeepAugment's EDSR and CAE folders and
the ``train`` folder of Stylized-ImageNet are published. A folder may lack classes. For
small images in memory, ``.npz`` files with ``images``, ``labels`` and ``class_names``
(see ``apr_jax.data.arrays``) do as well. Several are one set of extra images.

``data.extra_ratio`` is the share of every batch that comes from them; 0 is the share
that they have of all images, main and extra, so that training goes over the union of
the sets (as Hendrycks et al. train with DeepAugment, arXiv:2006.16241). Extra images
come up in an order of their own, each once before any comes up again; see
``batches.Mix``. The length of an epoch, in which schedules count, stays that of the
main set alone.
"""

import dataclasses
import logging
import pathlib

import numpy as np

from apr_jax.config import Data
from apr_jax.data import arrays, cache, folder, walk
from apr_jax.data.batches import ArraySplit
from apr_jax.errors import DataError
from apr_jax.gates import places

_LOG = logging.getLogger(__name__)
# Classes that an error names, at most.
_LISTED = 20


def listings(data: Data, class_names: tuple[str, ...]) -> list[folder.Listing]:
    """Lists the extra images of streamed data; the labels count ``class_names``.

    Raises:
        DataError: a folder isn't there, has no images, or has a class that the main
            set hasn't.
    """
    found = []
    for root in _roots(data):
        if root.suffix == ".npz":
            raise DataError(
                f"data.extra_dirs has {str(root)!r}; with data.streaming it names "
                "folders of CLASS/IMAGE.jpg"
            )
        names = _classes(root)
        own = _labels_of(names, class_names, root, data)
        files = folder.list_classes(root, names)
        found.append(files._replace(labels=own[files.labels], class_names=class_names))
    return found


def load(data: Data, class_names: tuple[str, ...]) -> ArraySplit | None:
    """Returns all extra images of small data, from the cache where they are there.

    None where ``data`` names none.

    Raises:
        DataError: as ``listings``; or files can't be read.
    """
    parts = [_load_one(root, data, class_names) for root in _roots(data)]
    if not parts:
        return None
    images, labels = map(np.concatenate, zip(*parts, strict=True))
    warn_of_missing(labels, class_names)
    return ArraySplit(images, labels)


def warn_of_missing(labels: np.ndarray, class_names: tuple[str, ...]) -> None:
    """Logs how many classes extra images don't have, if there are such classes."""
    there = len(np.unique(labels))
    if 0 < there < len(class_names):
        _LOG.warning(
            "the extra images have %d of the %d classes", there, len(class_names)
        )


def check(data: Data, class_names: tuple[str, ...]) -> None:
    """Raises DataError for what is found without listing or reading any files."""
    for root in _roots(data):
        if root.suffix != ".npz":
            _labels_of(_classes(root), class_names, root, data)


def _roots(data: Data) -> list[pathlib.Path]:
    """Returns what ``data.extra_dirs`` names, all of it there."""
    roots = [places.local(name, "data.extra_dirs") for name in data.extra_dirs]
    for root in roots:
        if not (root.is_file() if root.suffix == ".npz" else root.is_dir()):
            raise DataError(f"data.extra_dirs has {str(root)!r}, which isn't there")
    return roots


def _classes(root: pathlib.Path) -> tuple[str, ...]:
    names = walk.folders(root)
    if not names:
        raise DataError(
            f"data.extra_dirs has {str(root)!r}, which has no class folders; it must "
            "have CLASS/IMAGE.jpg"
        )
    return names


def _labels_of(
    names: tuple[str, ...], class_names: tuple[str, ...], root: pathlib.Path, data: Data
) -> np.ndarray:
    """Returns the main set's label of each class of an extra set, int32."""
    numbers = {name: i for i, name in enumerate(class_names)}
    for name in names:
        if class_names.count(name) != 1:  # of two of one name none is meant
            listed = ", ".join(class_names[:_LISTED])
            more = len(class_names) - _LISTED
            listed += f" and {more} more" if more > 0 else ""
            raise DataError(
                f"data.extra_dirs has {str(root)!r}, which has a class {name!r}; the "
                f"classes of {data.name or data.source!r} are {listed}"
            )
    return np.asarray([numbers[name] for name in names], np.int32)


def _load_one(
    root: pathlib.Path, data: Data, class_names: tuple[str, ...]
) -> ArraySplit:
    if root.suffix == ".npz":
        # Arrays are found as a split.
        inside = dataclasses.replace(
            data, source="arrays", data_dir=str(root.parent), train_split=root.stem
        )
        facts = arrays.fingerprint(inside, root.stem)
        read = lambda: arrays.read(inside, root.stem)
    else:
        names = _classes(root)
        _labels_of(names, class_names, root, data)  # before anything is decoded
        files = folder.list_classes(root, names)
        facts = folder.fingerprint_files(data, files)
        read = lambda: folder.read_files(data, files)
    facts = {"source": "extra", **facts}
    entry, _ = cache.load_split(
        data, f"extra-{root.stem}", facts, read, called=str(root)
    )
    images, labels = entry.split
    if len(labels) == 0 or labels.min() < 0 or labels.max() >= len(entry.class_names):
        raise DataError(
            f"data.extra_dirs has {str(root)!r}, whose {len(labels)} labels don't "
            f"count its {len(entry.class_names)} classes"
        )
    own = _labels_of(entry.class_names, class_names, root, data)
    return ArraySplit(images, own[labels])
