"""Sets of images from anywhere, for scores that need no labels of them.

A set is written ``name=source:where``:

- ``svhn=tfds:svhn_cropped``, split "test", or another after a "/";
- ``svhn=parquet:PATH``, a folder as of ``data.source`` "parquet", split "test";
- ``textures=folder:PATH``: every image below the folder, whatever the subfolders;
- ``noise=arrays:PATH``: an ``.npy`` file of images; an ``.npz`` file with ``images``,
  ``test_images`` or one array that can be images; or a folder with ``test.npz``,
  ``test_images.npy`` or ``test.npy``.

Images are brought to the size that the classifier takes, and it is said how.
"""

import dataclasses
import hashlib
import pathlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from apr_jax import config as config_lib
from apr_jax import data
from apr_jax.data import batches as batches_lib
from apr_jax.data import images as images_lib
from apr_jax.data import samples, walk
from apr_jax.errors import ConfigError, DataError
from apr_jax.gates import places
from apr_jax.runs import files

SOURCES = ("tfds", "folder", "arrays", "parquet")


@dataclasses.dataclass(frozen=True)
class OutSet:
    """Images of one set, ready to be read.

    Attributes:
        name: as given.
        source: its origin, "source:where".
        size: number of images.
        fingerprint: changes with the images.
        note: the changes that were made to them, or the empty string.
        batches: size of a batch -> every image once, uint8 and of the classifier's
            size, labels 0 and a mask that is false for padding.
        labels: int32 [size] of classes, where they are known.
    """

    name: str
    source: str
    size: int
    fingerprint: str
    note: str
    batches: Callable[[int], Iterator[data.Batch]]
    labels: np.ndarray | None = None


def parse(specs: Sequence[str], flag: str = "out") -> dict[str, tuple[str, str]]:
    """Takes ``name=source:where`` apart: name -> (source, where).

    Args:
        specs: the texts.
        flag: the setting that they are of, for messages.

    Raises:
        ConfigError: for another form, an unknown source, or a name that comes twice.
    """
    found: dict[str, tuple[str, str]] = {}
    for spec in specs:
        name, equals, rest = spec.partition("=")
        source, colon, where = rest.partition(":")
        if not (equals and colon and name and where):
            raise ConfigError(
                f"{flag} is {spec!r}; write name=source:where, such as "
                "svhn=tfds:svhn_cropped"
            )
        if source not in SOURCES:
            raise ConfigError(
                f"{flag} {name!r} has the source {source!r}; choose from "
                f"{', '.join(SOURCES)}"
            )
        if name in found:
            raise ConfigError(f"{flag} has {name!r} twice; names must differ")
        found[name] = (source, where)
    return found


def open_set(
    name: str,
    source: str,
    where: str,
    settings: config_lib.Data,
    *,
    examples: int = 0,
    seed: int = 0,
    fit: str = "resize",
    tfds_dir: str = "",
) -> OutSet:
    """Opens a set, with all checks that are possible without reading all of it.

    Args:
        name, source, where: of ``parse``.
        settings: the data that the classifier was trained on; give size and cache.
        examples: so many images, drawn by the seed; 0 is all.
        seed: of that draw.
        fit: the way with an image of another size: "resize" its shorter side and
            cut out the centre, "pad" a smaller one with black, or "refuse" it.
        tfds_dir: where TFDS sets are; the empty string is their default.

    Raises:
        DataError: the set isn't there, is empty or holds no images; named.
    """
    try:
        if source in ("tfds", "parquet"):
            check_resized(source, fit)
            wanted, split = stored(source, where, settings, tfds_dir)
            opened = _loaded(split, wanted)
        else:
            open_ = _folder if source == "folder" else arrays
            opened = open_(where, settings, fit)
    except DataError as error:
        raise DataError(f"out set {name!r}: {error}") from error
    return make_set(name, f"{source}:{where}", opened, examples=examples, seed=seed)


def make_set(
    name: str,
    source: str,
    opened: "Opened",
    *,
    examples: int,
    seed: int,
    labels: np.ndarray | None = None,
) -> OutSet:
    """A set of what a source gives, or a part that a seed draws.

    Args:
        name: as given.
        source: its origin.
        opened: of a source.
        examples, seed: as those of ``open_set``.
        labels: int32 [N] of all of its images.

    Raises:
        DataError: the set is empty.
    """
    read, count, mark, note = opened
    if count == 0:
        raise DataError(f"out set {name!r} ({source}) is empty")
    chosen = samples.subset(count, examples, seed)

    def batches(batch_size: int) -> Iterator[data.Batch]:
        for start in range(0, len(chosen), batch_size):
            rows = chosen[start : start + batch_size]
            try:
                images = read(rows)
            except DataError as error:
                raise DataError(f"out set {name!r}: {error}") from error
            yield batches_lib.pad(images, np.zeros(len(rows), np.int32), batch_size)

    digest = hashlib.sha256(mark.encode()).hexdigest()[:12]
    own = None if labels is None else labels[chosen]
    return OutSet(name, source, len(chosen), digest, note, batches, own)


# --- Sources -------------------------------------------------------------------------

# (places -> images uint8 [N, S, S, 3], number of images, fingerprint, note)
Opened = tuple[Callable[[np.ndarray], np.ndarray], int, str, str]


def stored(
    source: str, where: str, settings: config_lib.Data, tfds_dir: str
) -> tuple[config_lib.Data, str]:
    """The description and the split of a set of TFDS or of Parquet files.

    Args:
        source: "tfds" or "parquet".
        where: TFDS's name, its split behind a "/"; or a folder.
        settings: of the classifier's data, which give size and cache.
        tfds_dir: where TFDS sets are; the empty string is where the data are.
    """
    if source == "parquet":
        name, split, place = pathlib.Path(where).name, "test", where
    else:
        name, _, split = where.partition("/")
        place = tfds_dir or (settings.data_dir if settings.source == "tfds" else "")
    wanted = dataclasses.replace(
        settings, source=source, name=name, data_dir=place, streaming=False
    )
    return wanted, split or "test"


def check_resized(source: str, fit: str) -> None:
    """Raises DataError for another way than the one of sets that are decoded whole."""
    if fit != "resize":
        raise DataError(
            f"fit is {fit!r}, but images of a {source} set are resized as they are "
            "decoded: give 'resize', or the images by folder: or arrays:"
        )


def _loaded(split: str, wanted: config_lib.Data) -> Opened:
    """A split of a set that is decoded whole, and cached."""
    loaded = data.load(wanted, splits=[split])
    images = loaded.splits[split].images
    note = resized_note(wanted)
    return lambda rows: np.asarray(images[rows]), len(images), loaded.fingerprint, note


def resized_note(wanted: config_lib.Data) -> str:
    """What is done to the images of a set that is decoded whole."""
    size = wanted.image_size
    return f"images of another size are resized to {size} x {size}"


def _folder(where: str, settings: config_lib.Data, fit: str) -> Opened:
    root = places.local(where, "out")
    if not root.is_dir():
        raise DataError(f"{where!r} is no folder")
    files = walk.images(root)
    if not files:
        raise walk.no_images(where)

    def read(rows: np.ndarray) -> np.ndarray:
        chosen = [root / files[row] for row in rows]
        pairs = ((images_lib.read(file), str(file)) for file in chosen)
        return np.stack([fitted(image, settings, fit, f) for image, f in pairs])

    stats = [(file, walk.stat(root / file).st_size) for file in files]
    return read, len(files), repr(stats), fitted_note(settings, fit)


def fitted_note(settings: config_lib.Data, fit: str) -> str:
    """What `fitted` does to the images of a set, in words."""
    size = settings.image_size
    done = {"resize": "resized and cropped", "pad": "padded with black"}.get(fit)
    return f"images of another size are {done} to {size} x {size}" if done else ""


def arrays(where: str, settings: config_lib.Data, fit: str) -> Opened:
    """Images of a NumPy file: how to read rows, how many, a fingerprint, a note."""
    path = array_file(places.local(where, "out"))
    images = _load_images(path)
    grey = images.ndim == 3 or images.shape[-1] == 1
    images = images_lib.checked_shape(images, str(path))
    height, width = images.shape[1:3]
    size = settings.image_size
    if fit == "refuse" and (height, width) != (size, size) and len(images):
        _refuse(height, width, size, str(path))
    steps = ["grey, repeated to three channels"] if grey else []
    if (height, width) != (size, size):
        smaller = max(height, width) <= size and fit == "pad"
        done = "padded with black" if smaller else "resized"
        steps.append(f"{height} x {width}, {done} to {size} x {size}")

    def read(rows: np.ndarray) -> np.ndarray:
        pixels = images_lib.to_uint8(images[rows], str(path))
        return np.stack([fitted(x, settings, fit, str(path)) for x in pixels])

    stat = path.stat()
    mark = f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns}"
    return read, len(images), mark, "; ".join(steps)


def array_file(path: pathlib.Path) -> pathlib.Path:
    """The file itself, or that of a folder.

    Raises:
        DataError: it is neither.
    """
    if path.is_file():
        return path
    names = ("test.npz", "test_images.npy", "test.npy")
    if there := [path / name for name in names if (path / name).is_file()]:
        return there[0]
    raise DataError(
        f"{str(path)!r} is neither a file nor a folder with one of {', '.join(names)}"
    )


def _load_images(path: pathlib.Path) -> np.ndarray:
    if path.suffix != ".npz":
        return np.asarray(files.read_array(path))
    with files.archive(path) as packed:
        shapes = dict(packed)
    for name in ("images", "test_images"):
        if name in shapes:
            return shapes[name]
    possible = [x for x in shapes.values() if x.ndim in (3, 4)]
    if len(possible) == 1:
        return possible[0]
    listed = ", ".join(f"{k} {list(v.shape)}" for k, v in shapes.items()) or "nothing"
    raise DataError(f"no 'images' in {path}; it has {listed}")


def fitted(
    image: np.ndarray, settings: config_lib.Data, fit: str, where: str
) -> np.ndarray:
    """Returns uint8 [S, S, 3] of an image of any size."""
    height, width = image.shape[:2]
    size = settings.image_size
    if (height, width) == (size, size):
        return image
    if fit == "refuse":
        _refuse(height, width, size, where)
    if fit == "pad" and max(height, width) <= size:
        top, left = (size - height) // 2, (size - width) // 2
        padded = np.zeros((size, size, 3), np.uint8)
        padded[top : top + height, left : left + width] = image
        return padded
    return images_lib.fit(image, size, settings.eval_resize or size)


def _refuse(height: int, width: int, size: int, where: str) -> None:
    raise DataError(
        f"an image of {where} is {height} x {width} and the classifier takes "
        f"{size} x {size}; fit 'resize' or 'pad' brings it there"
    )
