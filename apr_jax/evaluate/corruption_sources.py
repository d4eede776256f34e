"""Sources of corrupted images: generated, files, or TensorFlow Datasets."""

import dataclasses
import hashlib
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from apr_jax import config as config_lib
from apr_jax import console, data, parallel
from apr_jax import corruptions as corruptions_lib
from apr_jax.corruptions import frost_files
from apr_jax.data import corrupted, folder, imagenet, records, samples, tfds, walk
from apr_jax.errors import ConfigError, DataError
from apr_jax.evaluate.classifier import Classifier, share, stream_share
from apr_jax.evaluate.context import Context
from apr_jax.gates import places

CLEAN = "clean"


def open_source(
    settings: config_lib.Corruption,
    names: Sequence[str],
    classifier: Classifier,
    context: Context,
) -> "Source":
    """Opens a source, with all checks that are possible before any work.

    Args:
        settings: the source and its parts.
        names: of the corruptions.
        classifier: the classifier; its configuration names the data.
        context: the devices, and the test split where it is in memory already.

    Raises:
        ConfigError: there are no photographs of frost.
        DataError: files are missing, or images or labels don't fit.
    """
    config, layout = classifier.config, context.layout
    count, resident = settings.examples, context.resident
    if resident is not None:
        every = len(resident.splits[config.data.test_split].labels)
        count = min(count, every) if count else every
    if count:
        # A batch of no more than there are images: the rest would be padding.
        enough = context.rows(config.eval.batch_size, count)
        config = dataclasses.replace(
            config, eval=dataclasses.replace(config.eval, batch_size=enough)
        )
        classifier = dataclasses.replace(classifier, config=config)
    rows = parallel.local_rows(config.eval.batch_size, layout)
    try:
        clean = _Clean(classifier, rows, context.resident, settings.examples)
    except DataError:
        # Published files can be measured without the images that they come from.
        if settings.source == "generated":
            raise
        clean = None
    kind: type[Source] = _Generated if settings.source == "generated" else _Tfds
    if settings.source == "folder":
        root = _root(settings)
        if not root.is_dir():
            raise DataError(f"dir is {str(root)!r}, which is no folder")
        kind = _Npy if corrupted.is_npy(root) else _Tree
    return kind(settings, names, classifier, rows, clean)


def compresses(
    settings: config_lib.Corruption, names: Sequence[str], described: config_lib.Data
) -> bool:
    """Whether images are made that go through JPEG."""
    stored = _stored_as(settings, described) == "jpeg"
    return settings.source == "generated" and (stored or "jpeg_compression" in names)


def _stored_as(settings: config_lib.Corruption, described: config_lib.Data) -> str:
    """The form of generated images, "auto" resolved."""
    if settings.stored_as != "auto":
        return settings.stored_as
    return corruptions_lib.published_form((described.image_size,) * 2)


def _root(settings: config_lib.Corruption) -> pathlib.Path:
    return places.local(settings.dir, "dir")


def fingerprint(
    settings: config_lib.Corruption, names: Sequence[str], described: config_lib.Data
) -> dict[str, Any]:
    """Marks of everything that the images of a source depend on, as JSON values.

    Of an ``.npy`` folder the files, and so of the sets of TFDS; of a tree the folders
    that hold its images, as its millions of files would take too long: an image that
    is added or removed changes its folder. Of generated images the set whose strengths
    they have, the form they are stored in, and the photographs of frost, where used.

    Args:
        settings: the source and its parts.
        names: of the corruptions.
        described: the classifier's data, for "tfds".
    """
    if settings.source == "generated":
        found: dict[str, Any] = {
            "seed": settings.seed,
            "strengths": corruptions_lib.published((described.image_size,) * 2),
            "stored_as": _stored_as(settings, described),
        }
        if settings.jpeg != "pillow":
            found["jpeg"] = settings.jpeg
        if "frost" in names:
            digest = hashlib.sha256()
            for photograph in frost_files.load(settings.frost_dir):
                digest.update(photograph.tobytes())
            found["frost"] = digest.hexdigest()[:12]
        return found
    if settings.source == "tfds":
        stored = [
            tfds.stored_files(corrupted.tfds_data(described, name, severity))
            for name in names
            for severity in settings.severities
        ]
        return {"files": hashlib.sha256(repr(stored).encode()).hexdigest()[:12]}
    root = _root(settings)
    files = [*root.glob("[!.]*.npy")]
    if not files:
        sets = (
            corrupted.tree_set(root, name, s)
            for name in names
            for s in settings.severities
        )
        files = [folder for place in sets for folder in place.glob("[!.]*")]
    facts = [(str(f.relative_to(root)), walk.stat(f)) for f in sorted(files)]
    stats = [(name, s.st_size, s.st_mtime_ns) for name, s in facts]
    digest = hashlib.sha256(repr(stats).encode())
    return {"corruption_dir": str(root.resolve()), "files": digest.hexdigest()[:12]}


class _Clean:
    """The undisturbed test split, in memory or streamed."""

    def __init__(
        self,
        classifier: Classifier,
        rows: slice,
        resident: data.DataSet | None,
        examples: int,
    ) -> None:
        config = classifier.config
        self.rows, self.config = rows, config
        self.split: data.ArraySplit | None = None
        name = config.data.test_split
        if config.data.streaming:
            total = imagenet.num_examples(config.data, name)
            _say_few_classes(config.data, name, examples)
        else:
            if resident is None:
                resident = data.load(config.data, splits=(name,))
            self.split = samples.leading(resident.splits[name], examples)
            total = len(resident.splits[name].labels)
        self.count = min(examples, total) if examples else total
        self.total = total

    def numbered(self) -> Iterator[tuple[data.Batch, np.ndarray]]:
        """This process's batches with the number of each image in the split."""
        size = self.config.eval.batch_size
        if self.split is not None:
            for start, batch in zip(
                range(0, self.count, size),
                share(data.eval_batches(self.split, size), self.rows),
                strict=True,
            ):
                yield batch, start + np.arange(size)[self.rows]
            return
        processes = jax.process_count()
        start = records.share(self.total, jax.process_index(), processes).start
        rows = len(range(*self.rows.indices(size)))
        described = self.config.data
        for batch in stream_share(described, described.test_split, size):
            number = start + np.arange(rows)
            start += rows
            wanted = batch.mask & (number < self.count)
            # All processes go through the same number of batches.
            if processes == 1 and not wanted.any():
                return
            yield data.Batch(batch.image, batch.label, wanted), number


class Source:
    """Sets of images by split, "clean" or "NAME/SEVERITY".

    Attributes:
        has_clean: whether there is a split "clean".
        has_all_clean: whether that is the whole test split.
    """

    def __init__(
        self,
        settings: config_lib.Corruption,
        names: Sequence[str],
        classifier: Classifier,
        rows: slice,
        clean: _Clean | None,
    ) -> None:
        self.settings, self.root = settings, _root(settings)
        self.examples = settings.examples
        self.classifier, self.config = classifier, classifier.config
        self.rows, self.clean = rows, clean
        self.has_clean = clean is not None
        self.has_all_clean = clean is not None and clean.count == clean.total
        self.sizes: dict[str, int] = {}
        self.open(names, settings.severities)

    def open(self, names: Sequence[str], severities: Sequence[int]) -> None:
        """Finds faults that should show at once rather than after the sets before."""
        raise NotImplementedError

    def size(self, split: str) -> int:
        """Examples of a split, over all processes; known once it is read."""
        if split == CLEAN and self.clean is not None:
            return self.clean.count
        return self.sizes[split]

    def batches(self, split: str) -> Iterator[data.Batch]:
        """This process's batches, equally many on each, padded and masked."""
        if split == CLEAN and self.clean is not None:
            return (batch for batch, _ in self.clean.numbered())
        name, severity = split.split("/")
        return self.read(split, name, int(severity))

    def read(self, split: str, name: str, severity: int) -> Iterator[data.Batch]:
        """Batches of a corrupted set; notes its size."""
        raise NotImplementedError

    def from_arrays(self, split: str, arrays: data.ArraySplit) -> Iterator[data.Batch]:
        """Batches of a set in memory."""
        arrays = samples.leading(arrays, self.examples)
        self.sizes[split] = len(arrays.labels)
        size = self.config.eval.batch_size
        return share(data.eval_batches(arrays, size), self.rows)


class _Generated(Source):
    """Made of the test split, batch by batch, on the device."""

    def open(self, names: Sequence[str], severities: Sequence[int]) -> None:
        if "frost" in names:
            try:
                frost_files.load(self.settings.frost_dir)
            except FileNotFoundError as error:
                raise ConfigError(str(error)) from error

    def read(self, split: str, name: str, severity: int) -> Iterator[data.Batch]:
        assert self.clean is not None
        self.sizes[split] = self.clean.count
        key = jax.random.key(self.settings.seed)

        def made(batch: data.Batch, number: np.ndarray) -> data.Batch:
            images = corruptions_lib.corrupt(
                key,
                np.asarray(batch.image),
                name,
                severity,
                indices=number,
                frost=self.settings.frost_dir or None,
                stored_as=_stored_as(self.settings, self.config.data),
                jpeg=self.settings.jpeg,
            )
            return data.Batch(np.asarray(images), batch.label, batch.mask)

        return (made(*pair) for pair in self.clean.numbered())


class _Npy(Source):
    """A folder like CIFAR-10-C."""

    def open(self, names: Sequence[str], severities: Sequence[int]) -> None:
        labels = None
        if self.clean is not None and self.clean.split is not None:
            labels = None if self.examples else self.clean.split.labels
        self.count = corrupted.check_npy(
            self.root,
            names,
            image_size=self.config.data.image_size,
            num_classes=len(self.classifier.class_names),
            test_labels=labels,
        )

    def read(self, split: str, name: str, severity: int) -> Iterator[data.Batch]:
        arrays = corrupted.read_npy(self.root, name, severity, self.count)
        return self.from_arrays(split, arrays)


class _Tree(Source):
    """A folder like ImageNet-C."""

    def open(self, names: Sequence[str], severities: Sequence[int]) -> None:
        sets = [
            corrupted.tree_set(self.root, name, severity)
            for name in names
            for severity in severities
        ]
        if missing := [str(folder) for folder in sets if not folder.is_dir()]:
            raise DataError(f"missing: {', '.join(missing)}")
        # Classes that don't fit should show, too.
        corrupted.list_tree(
            self.root, names[0], severities[0], self.classifier.class_names, examples=1
        )

    def read(self, split: str, name: str, severity: int) -> Iterator[data.Batch]:
        tree = corrupted.list_tree(
            self.root,
            name,
            severity,
            self.classifier.class_names,
            examples=self.examples,
        )
        sizes = {**self.sizes, split: len(tree.files)}
        other = next(iter(sizes))
        if sizes[other] != sizes[split]:
            raise DataError(
                f"{self.root}/{split} has {sizes[split]} images, {other} has "
                f"{sizes[other]}: files are missing"
            )
        self.sizes = sizes
        return corrupted.tree_batches(
            tree,
            image_size=self.config.data.image_size,
            batch_size=self.config.eval.batch_size,
            rows=self.rows,
        )


class _Tfds(Source):
    """A corrupted set of TFDS, a configuration for each corruption and severity."""

    def open(self, names: Sequence[str], severities: Sequence[int]) -> None:
        self.data = {
            f"{name}/{severity}": corrupted.tfds_data(self.config.data, name, severity)
            for name in names
            for severity in severities
        }
        for described in self.data.values():
            tfds.prepared_dir(described)

    def read(self, split: str, name: str, severity: int) -> Iterator[data.Batch]:
        described = self.data[split]
        corrupted.check_tfds(described, self.classifier.class_names)
        if not described.streaming:
            return self.from_arrays(
                split, tfds.read(described, described.test_split).split
            )
        if self.examples:
            raise ConfigError(
                f"examples is {self.examples}; streamed sets of TFDS are measured whole"
            )
        self.sizes[split] = imagenet.num_examples(described, described.test_split)
        return stream_share(
            described, described.test_split, self.config.eval.batch_size
        )


def _say_few_classes(described: config_lib.Data, split: str, examples: int) -> None:
    """A folder is streamed class by class, so its first images are of a few."""
    if not examples or described.source != "folder":
        return
    labels = folder.listing(described, split).labels
    there, every = len(set(labels[:examples])), len(set(labels))
    if there < every:
        console.say(
            f"the first {examples:,} images of a streamed folder are of {there} of "
            f"its {every} classes; corruption.examples=0 measures all"
        )
