"""Streams of large images, decoded and cropped as they are needed.

Sources are image folders and TFDS sets in ArrayRecord files (``random_access``), and
TFDS sets in TFRecord files, read by ``tf.data``. A stream is a function of (data, seed,
layout of processes): started at a later step it yields exactly what an uninterrupted
one yields from there, and what came before isn't read.

Order. Where any image can be read, the examples of step s are those of
``global_indices``, spread over the processes, so they depend on no number of processes.
Of TFRecord files each process reads its own share of the records: per epoch the files
in an order drawn from (seed, epoch), several at a time, then a shuffle buffer of
undecoded images. Each process sees each of its examples once per epoch. The random
window of an image is drawn from (seed, epoch, example). Extra images
(``apr_jax.data.extra``) always come from folders, and have the places in a batch that
``batches.Mix`` gives them, whatever the main set.

``images.decode`` decodes; of TFRecord files TensorFlow does, JPEG in grey and RGB, and
PNG, to the same, and that decodes all else. A file that it can't decode is broken: it
is named and counted, and up to ``data.max_broken`` of them training goes on, with the
next good image of the batch in the place of each. Evaluation leaves its place empty,
and says how many it was without.
"""

import math
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from apr_jax.config import Data
from apr_jax.data import extra, folder, jpeg, random_access, records, tfds
from apr_jax.data import images as images_lib
from apr_jax.data.batches import Batch, Mix, pad
from apr_jax.errors import DataError

# Undecoded images that wait for the decoders at a time.
_IN_FLIGHT = 64


def num_examples(data: Data, split: str) -> int:
    """Returns the number of images in a split, broken ones included."""
    _check(data)
    return records.num_examples(data, split)


def mix(data: Data) -> Mix:
    """Returns how many training images there are, and how extra ones are mixed in.

    Raises:
        DataError: the data, or the extra images, aren't there.
    """
    names = class_names(data)
    further = folder.Files(extra.listings(data, names))
    extra.warn_of_missing(further.labels, names)
    size = num_examples(data, data.train_split)
    return Mix(size, len(further), data.extra_ratio)


def class_names(data: Data) -> tuple[str, ...]:
    """Returns the names of the classes, in the order of the labels."""
    _check(data)
    return records.class_names(data)


def train_stream(
    data: Data,
    *,
    seed: int,
    start_step: int,
    batch_size: int,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[Batch]:
    """Returns an endless stream of random windows, not yet mirrored.

    Args:
        data: the set; of ``data.train_split``.
        seed: of the run, at least 0.
        start_step: the first step to yield, counted from the start of the run.
        batch_size: images in a batch over all processes, a multiple of their number.
        process_index, process_count: which share of each batch is wanted.

    Returns:
        Batches of ``batch_size / process_count`` images [data.image_size] square;
        every row is a real example.

    Raises:
        DataError: at once if the data isn't there; while reading, if there are more
            broken files than ``data.max_broken``.
    """
    _check(data)
    rows = _rows(batch_size, process_count)
    if random_access.serves(data):
        work = random_access.train_work(
            data,
            seed=seed,
            start_step=start_step,
            batch_size=batch_size,
            rows=rows,
            process_index=process_index,
        )
        found = random_access.batches(data, work, rows)
        return (_replaced(batch) for batch in found)
    raw = records.train(
        data,
        seed=seed,
        start_step=start_step,
        batch_size=batch_size,
        process_index=process_index,
        process_count=process_count,
    )
    tf = tfds.engine().tf

    def tf_image(contents: Any, seed: Any) -> Any:
        return jpeg.tf_train_image(
            tf, contents, jpeg.uniforms(tf, seed), data.image_size
        )

    def image(decoded: np.ndarray, seed: np.ndarray) -> np.ndarray:
        draws = np.asarray(jpeg.uniforms(tf, seed))
        return jpeg.train_image(decoded, draws, data.image_size)

    batches = _batches(data, raw, tf_image, image, rows)
    return (_replaced(batch) for batch in batches)


def eval_stream(
    data: Data,
    split: str,
    *,
    batch_size: int,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[Batch]:
    """Returns a stream of every image of a split, resized and centrally cropped.

    The shorter side is resized to ``data.eval_resize`` pixels (0: not at all). All
    processes get the same number of batches; together they get every example once.
    Rows that fill up a batch, also in the place of a broken file, have a false mask.

    Args:
        data: the set.
        split: which part of it.
        batch_size: images in a batch over all processes, a multiple of their number.
        process_index, process_count: which share of the examples is wanted.

    Raises:
        DataError: at once if the data isn't there; while reading, if a process meets
            more broken files than ``data.max_broken``.
    """
    _check(data)
    rows = _rows(batch_size, process_count)
    size = num_examples(data, split)
    part = records.share(size, process_index, process_count)
    # The largest share decides, so that all processes take part in every step.
    steps = math.ceil(math.ceil(size / process_count) / rows)
    if random_access.serves(data):
        found = random_access.eval_stream(data, split, part, rows)
        return _filled(found, steps, rows, data.image_size)
    tf = tfds.engine().tf
    raw = records.evaluate(data, split, part)

    def tf_image(contents: Any, seed: Any) -> Any:
        return jpeg.tf_eval_image(tf, contents, data.image_size, data.eval_resize)

    def image(decoded: np.ndarray, seed: np.ndarray) -> np.ndarray:
        return images_lib.fit(decoded, data.image_size, data.eval_resize)

    batches = _batches(data, raw, tf_image, image, rows)
    return _filled(batches, steps, rows, data.image_size)


def _check(data: Data) -> None:
    choices = ("folder", "tfds")
    if data.source not in choices:
        raise DataError(
            f"data.source is {data.source!r}; streams come from {' or '.join(choices)}"
        )


def _rows(batch_size: int, process_count: int) -> int:
    rows, rest = divmod(batch_size, process_count)
    if rest or not rows:
        raise DataError(
            f"a batch of {batch_size} can't be divided among {process_count} processes"
        )
    return rows


def _batches(
    data: Data,
    raw: records.Raw,
    tf_image: Callable[[Any, Any], Any],
    image: Callable[[np.ndarray, np.ndarray], np.ndarray],
    rows: int,
) -> Iterator[Batch]:
    """Decodes with TensorFlow, and what that can't decode with Pillow.

    Args:
        data: the set.
        raw: the examples.
        tf_image: (contents, seed) to uint8 [S, S, 3], in TensorFlow.
        image: (decoded image, seed) to the same, in NumPy.
        rows: of a batch; the last may have fewer.

    Yields:
        Batches; the mask is false where the file is broken.
    """
    with tfds.reading(data):
        yield from _unnamed_batches(data, raw, tf_image, image, rows)


def _unnamed_batches(
    data: Data,
    raw: records.Raw,
    tf_image: Callable[[Any, Any], Any],
    image: Callable[[np.ndarray, np.ndarray], np.ndarray],
    rows: int,
) -> Iterator[Batch]:
    """``_batches``, whose errors are TensorFlow's own."""
    broken = images_lib.Broken(data.max_broken)
    found = _decoded(raw, tf_image, data.image_size, rows)
    for images, labels, good, handles, seeds, names in found.as_numpy_iterator():
        if not good.all():  # TensorFlow's arrays are read-only
            images, good = np.array(images), np.array(good)
        for i in np.flatnonzero(~good):
            name = os.fsdecode(names[i])
            try:
                decoded = images_lib.decode(raw.contents(handles[i]), name=name)
                images[i] = image(decoded, seeds[i])
                good[i] = True
            except (images_lib.BrokenImageError, OSError) as error:
                broken.add(name, str(error))
        yield Batch(images, labels.astype(np.int32), good)


def _decoded(
    raw: records.Raw, tf_image: Callable[[Any, Any], Any], size: int, rows: int
) -> Any:
    """Returns a tf.data.Dataset of batches, ready before they are asked for.

    Elements are (image, label, decoded or not, handle of an image that isn't, seed,
    name), in the order of the examples.
    """
    tf = tfds.engine().tf

    def image_or_handle(handle: Any, label: Any, seed: Any, name: Any) -> Any:
        def element(image: Any, good: bool, left: Any) -> tuple[Any, ...]:
            return image, label, good, left, seed, name

        # A graph can't catch an error, but a data set can leave out what failed:
        # then the second of two, without an image, is the first.
        example = tf.data.Dataset.from_tensors(handle)
        good = example.map(
            lambda handle: element(tf_image(raw.tf_contents(handle), seed), True, b"")
        )
        failed = example.map(
            lambda handle: element(tf.zeros((size, size, 3), tf.uint8), False, handle)
        )
        return good.ignore_errors().concatenate(failed).take(1)

    options = tf.data.Options()
    options.deterministic = True
    # Each image is work for one core; several work on several images.
    options.threading.max_intra_op_parallelism = 1
    return (
        raw.examples.interleave(
            image_or_handle,
            cycle_length=_IN_FLIGHT,
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
        .batch(rows)
        .prefetch(tf.data.AUTOTUNE)
        .with_options(options)
    )


def _replaced(batch: Batch) -> Batch:
    """Puts the next good image of the batch in the place of each broken one."""
    if batch.mask.all():
        return batch
    good = np.flatnonzero(batch.mask)
    if not len(good):
        raise DataError(f"all {len(batch.mask)} images of a batch are broken")
    rows = np.arange(len(batch.mask))
    source = good[np.searchsorted(good, rows) % len(good)]
    return Batch(batch.image[source], batch.label[source], batch.mask[source])


def _filled(
    batches: Iterator[Batch], steps: int, rows: int, size: int
) -> Iterator[Batch]:
    """Fills up batches with masked rows, and adds empty ones up to ``steps``."""
    for _ in range(steps):
        batch = next(batches, None)
        if batch is None:
            yield pad(np.zeros((0, size, size, 3), np.uint8), np.zeros(0), rows)
        elif len(batch.mask) == rows and batch.mask.all():
            yield batch
        else:
            yield pad(batch.image[batch.mask], batch.label[batch.mask], rows)
