"""Parts of a split that are drawn: evaluated, watched while training, held out."""

from collections.abc import Iterable, Iterator

import numpy as np

from apr_jax import config as config_lib
from apr_jax import data
from apr_jax.data import batches as batches_lib
from apr_jax.data import folder, imagenet
from apr_jax.data import images as images_lib
from apr_jax.errors import ConfigError
from apr_jax.gates import knobs

# Keep the draws apart from one another and from others of the same seed.
_EVALUATED, _WATCHED, _HELD_OUT = 0x5B5E7, 0x3A7C, 0x5C1E


def _order(size: int, stream: int, number: int) -> np.ndarray:
    """A random order of ``size`` places, int64, drawn from a stream and a number."""
    # Raw bits: NumPy keeps those of a bit generator from release to release.
    bits = np.random.Philox(np.random.SeedSequence([stream, number]))
    return np.argsort(bits.random_raw(size), kind="stable")


def subset(count: int, examples: int, seed: int) -> np.ndarray:
    """Rising places int64 [min(count, examples)] of a draw; all for 0 examples."""
    if not knobs.whole("examples", examples, low=0) or examples >= count:
        return np.arange(count)
    return np.sort(_order(count, _EVALUATED, seed)[:examples])


def leading(split: data.ArraySplit, examples: int) -> data.ArraySplit:
    """The first so many examples of a split; all for 0, or where there are no more.

    A set that lies in the order of its classes, as a folder does, would be no sample of
    them: of such a set as many at even distances, so that every class has its share.
    """
    images, labels = split
    count = len(labels)
    if not knobs.whole("examples", examples, low=0) or examples >= count:
        return split
    in_order = labels[0] != labels[-1] and np.all(labels[1:] >= labels[:-1])
    places = np.arange(examples) * count // examples if in_order else slice(examples)
    return data.ArraySplit(images[places], labels[places])


def watched(split: data.ArraySplit, count: int) -> data.ArraySplit:
    """The ``count`` examples of a split that runs watch, in its order, for every run.

    All of them if ``count`` is 0 or there are no more.
    """
    size = len(split.labels)
    if knobs.whole("count", count, low=0) == 0 or count >= size:
        return split
    chosen = np.sort(_order(size, _WATCHED, size)[:count])
    return data.ArraySplit(np.asarray(split.images[chosen]), split.labels[chosen])


def hold_out(size: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The ones of ``size`` images to train on, and the ``count`` to hold out, sorted.

    The same ones for every run; int32.

    Raises:
        ConfigError: none would be left.
    """
    if knobs.whole("held_out", count, low=0) >= size:
        raise ConfigError(
            f"adversary.held_out is {count}; there are only {size} training images"
        )
    order = _order(size, _HELD_OUT, size).astype(np.int32)
    return np.sort(order[count:]), np.sort(order[:count])


def load(
    settings: config_lib.Data,
    split: str,
    *,
    examples: int,
    seed: int,
    resident: data.DataSet | None = None,
) -> data.ArraySplit:
    """Images and labels of a draw, in memory.

    Args:
        settings: the data set.
        split: which part of it.
        examples: so many; 0 is all, which for a streamed set must fit into memory.
        seed: of the draw.
        resident: the set, where it is in memory already.

    Raises:
        DataError: the data aren't there.
    """
    if settings.streaming:
        return joined(stream(settings, split, examples=examples, seed=seed, rows=64))
    if resident is None or split not in resident.splits:
        resident = data.load(settings, splits=[split])
    every = resident.splits[split]
    places = subset(len(every.labels), examples, seed)
    return data.ArraySplit(np.asarray(every.images[places]), every.labels[places])


def stream(
    settings: config_lib.Data, split: str, *, examples: int, seed: int, rows: int
) -> Iterator[data.Batch]:
    """Batches of ``rows`` images of a draw of a streamed set, decoded as needed.

    Of a folder the draw is the seed's, less what of it is broken. A TFDS set is
    shuffled when it is prepared: its first images stand for a draw.

    Raises:
        DataError: the data aren't there, or more than ``data.max_broken`` files are
            broken.
    """
    if settings.source == "folder":
        yield from _of_folder(settings, split, examples, seed, rows)
        return
    whole = imagenet.eval_stream(settings, split, batch_size=rows)
    yield from first(whole, examples or imagenet.num_examples(settings, split))


def _of_folder(
    settings: config_lib.Data, split: str, examples: int, seed: int, rows: int
) -> Iterator[data.Batch]:
    listing = folder.listing(settings, split)
    places = subset(len(listing.files), examples, seed)
    size, shorter = settings.image_size, settings.eval_resize
    broken = images_lib.Broken(settings.max_broken)
    for start in range(0, len(places), rows):
        images, labels = [], []
        for place in places[start : start + rows]:
            path = listing.root / listing.files[place]
            image = broken.fitted(path, size, shorter)
            if image is not None:
                images.append(image)
                labels.append(listing.labels[place])
        pixels = np.reshape(np.asarray(images, np.uint8), (-1, size, size, 3))
        yield batches_lib.pad(pixels, np.asarray(labels, np.int32), rows)


def joined(batches: Iterable[data.Batch]) -> data.ArraySplit:
    """The examples of batches, without their padding."""
    parts = [(batch.image[batch.mask], batch.label[batch.mask]) for batch in batches]
    return data.ArraySplit(*map(np.concatenate, zip(*parts, strict=True)))


def first(batches: Iterable[data.Batch], examples: int) -> Iterator[data.Batch]:
    """The first so many examples of batches; what comes later isn't read."""
    for batch in batches:
        mask = batch.mask & (np.cumsum(batch.mask) <= examples)
        examples -= int(mask.sum())
        yield batch._replace(mask=mask)
        if examples <= 0:
            return
