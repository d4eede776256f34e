"""Sets of TensorFlow Datasets: any with an image and a label.

A prepared set is found and fingerprinted by its files, without TensorFlow; only
reading (and downloading) imports it.
"""

import contextlib
import fnmatch
import hashlib
import json
import os
import re
import socket
import types
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from apr_jax.config import Data
from apr_jax.data import cache, classes
from apr_jax.data import images as images_lib
from apr_jax.data.batches import ArraySplit
from apr_jax.data.cache import Entry
from apr_jax.errors import DataError, UserError
from apr_jax.runs import files as files_lib

_VERSION = re.compile(r"\d+\.\d+\.\d+")
_INFO = "dataset_info.json"
_END = r"(-?\d+|-?(?:100|\d?\d)%)?"
_PART = re.compile(rf"(?:\[{_END}:{_END}\])?")  # of a split
_CONNECT_SECONDS = 5.0


class Engine(NamedTuple):
    """The modules ``tensorflow`` and ``tensorflow_datasets``."""

    tf: types.ModuleType
    tfds: types.ModuleType


def engine() -> Engine:
    """Imports TensorFlow for reading data on the CPU; it leaves GPUs to JAX.

    Raises:
        DataError: it is not installed.
    """
    # TensorFlow's notes on its own start are no concern of who trains with JAX. The
    # second is about oneDNN, and goes away with it; nothing here needs it.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    try:
        import tensorflow as tf
        import tensorflow_datasets as tfds
    except ModuleNotFoundError as error:
        raise DataError(
            f"{error.name} is not installed, which reads sets of TensorFlow Datasets "
            "in TFRecord files: pip install 'apr_jax[train]'; where there is none for "
            "this Python or machine, take data.source folder, arrays or parquet, or a "
            "set in ArrayRecord files"
        ) from error

    # A RuntimeError: the program has used TensorFlow before, and has chosen.
    with contextlib.suppress(RuntimeError):
        tf.config.set_visible_devices([], "GPU")
    return Engine(tf, tfds)


def module() -> types.ModuleType:
    """Imports ``tensorflow_datasets``, which by itself doesn't import TensorFlow.

    Raises:
        DataError: it is not installed.
    """
    try:
        import tensorflow_datasets
    except ModuleNotFoundError as error:
        raise DataError(
            f"{error.name} is not installed, which knows the sets of TensorFlow "
            "Datasets: pip install 'apr_jax[train]'"
        ) from error
    found: types.ModuleType = tensorflow_datasets
    return found


def fingerprint(data: Data, split: str) -> dict[str, Any]:
    """Returns what the contents of a split depend on, as JSON values.

    A set that isn't there is downloaded first.
    """
    root = prepared_dir(data)
    check_split(root, split)
    described = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.iterdir())
        if path.name.endswith((".json", ".labels.txt"))
    }
    records = {p.name: p.stat().length for p in sorted(root.iterdir())}
    return {
        "set": f"{data.name} {root.name}",
        "files": described,
        "records": records,
        "rules": images_lib.RULES,
    }


def stored_files(data: Data) -> list[tuple[str, int, int]]:
    """Returns name, length and time of change of a prepared set's files, sorted.

    A set that isn't there is downloaded first.
    """
    root = prepared_dir(data)
    stats = ((path.name, path.stat()) for path in sorted(root.iterdir()))
    return [(name, int(s.length), int(s.mtime)) for name, s in stats]


def read(data: Data, split: str) -> Entry:
    """Decodes a split. Images of other sizes are resized and cropped.

    As for image folders, the shorter side becomes ``data.eval_resize`` or, where that
    is 0, ``data.image_size`` pixels; then the centre is cut out.

    Raises:
        DataError: the set has no images and labels of the right kind.
    """
    builder = open_builder(data)
    with reading(data):
        images, labels = _decoded(data, split, builder)
    if not labels:
        raise DataError(f"split {split!r} of {data.name!r} has no examples")
    split_arrays = ArraySplit(np.stack(images), np.asarray(labels, np.int32))
    return Entry(split_arrays, class_names(builder))


def _decoded(
    data: Data, split: str, builder: Any
) -> tuple[list[np.ndarray], list[int]]:
    """Images of one size and labels of a split."""
    size, shorter = data.image_size, data.eval_resize or data.image_size
    images: list[np.ndarray] = []
    labels: list[int] = []
    for example in _examples(split, builder):
        pixels = example["image"]
        if isinstance(pixels, bytes):
            name = f"image {len(images)} of split {split!r} of {data.name!r}"
            pixels = images_lib.read(pixels, name=name)
        pixels = images_lib.three_channels(pixels)
        images.append(images_lib.fit(pixels, size, shorter))
        labels.append(example["label"])
    return images, labels


def _examples(split: str, builder: Any) -> Iterator[Any]:
    """Examples of a split, their images as bytes; of ArrayRecord by no TensorFlow."""
    tfds = module()
    undecoded = {"image": tfds.decode.SkipDecoding()}
    if builder.info.file_format.value == "array_record":
        found = builder.as_data_source(split=split, decoders=undecoded)
        return (found[i] for i in range(len(found)))
    engine()
    decoders = tfds.decode.PartialDecoding({"image": True, "label": True}, undecoded)
    examples = builder.as_dataset(
        split=split,
        decoders=decoders,
        shuffle_files=False,
        read_config=tfds.ReadConfig(try_autocache=False),
    )
    numbers: Iterator[Any] = iter(tfds.as_numpy(examples.prefetch(512)))
    return numbers


def open_builder(data: Data) -> Any:
    """Returns the TFDS builder of a prepared set, after checking its features.

    Raises:
        DataError: the set isn't there, or has no images and labels.
    """
    root = prepared_dir(data)
    with reading(data):
        builder = module().builder_from_directory(os.fspath(root))
        features = builder.info.features
    listed = ", ".join(features)
    for field in ("image", "label"):
        if field not in features:
            raise DataError(f"the set {data.name!r} has no {field!r}; it has {listed}")
    image, label = features["image"], features["label"]
    if image.np_dtype != np.uint8 or len(image.shape) != 3 or image.shape[-1] == 4:
        raise DataError(
            f"images of {data.name!r} are {image.np_dtype} {image.shape}; wanted are "
            "uint8 [H, W, 3] or [H, W, 1]"
        )
    if getattr(label, "names", None) is None:
        raise DataError(f"labels of {data.name!r} are {label!r}, and no class labels")
    return builder


def class_names(builder: Any) -> tuple[str, ...]:
    """Returns the names of the classes of a set, in the order of the labels."""
    names = builder.info.features["label"].names
    return classes.each_once(names, f"classes {{}} of {builder.name}", first=0)


def prepared_dir(data: Data) -> epath.Path:
    """Returns the folder of a prepared set; downloads the set if there is none.

    Raises:
        DataError: it isn't there and can't be downloaded, or the name is ambiguous.
    """
    if not data.name.partition(":")[0]:
        raise DataError(
            f"data.name is {data.name!r}; for data.source 'tfds' it names the set"
        )
    found = _find(_root(data), data.name)
    if found is None:
        _check_begun(data)
        lock = re.sub(r"\W+", "_", f"{_root(data)}_{data.name}")
        with cache.locked(cache.folder(data.cache_dir) / f"download_{lock}"):
            # Another process may have downloaded it while this one waited.
            if _find(_root(data), data.name) is None:
                _download(data)
        found = _find(_root(data), data.name)
    if found is None:
        raise DataError(_how_to_get(data, "downloading it left no prepared set"))
    return found


def _check_begun(data: Data) -> None:
    """Raises DataError for a set that ``apr-jax pack`` has not finished."""
    for begun in (_root(data) / data.name.partition(":")[0]).glob("*.incomplete"):
        raise DataError(
            f"the set {data.name!r} is only begun; repeat `apr-jax pack` to finish "
            f"{begun}"
        )


def is_prepared(data: Data) -> bool:
    """Whether a set can be read without downloading it."""
    return _find(_root(data), data.name) is not None


def check_split(root: epath.Path, split: str) -> None:
    """Raises DataError, listing the choices, if a prepared set lacks a split."""
    with files_lib.reading(root / _INFO):
        info = json.loads((root / _INFO).read_text())
        sizes = {
            s["name"]: sum(map(int, s.get("shardLengths", []))) for s in info["splits"]
        }
    for part in split.split("+"):
        name = part.partition("[")[0]
        if name not in sizes:
            raise DataError(
                f"no split {split!r} in {root}; choose from {', '.join(sizes)}, or a "
                "part such as 'train[:90%]'"
            )
        found = _PART.fullmatch(part.removeprefix(name))
        ends = found.groups() if found else ()
        if not found or len({end.endswith("%") for end in ends if end}) > 1:
            raise DataError(
                f"split {split!r} of {root} can't be understood; parts are written "
                "'train[:90%]', 'train[100:200]', 'train[-5:]+test'"
            )
        size = sizes[name]
        start, stop = (_place(end, size) for end in ends)
        start, stop = start or 0, size if stop is None else stop
        if size and not start < stop <= size:
            raise DataError(
                f"split {split!r} of {root} has no such examples: {name!r} has {size:,}"
            )


def _place(text: str | None, size: int) -> int | None:
    """The place that one end of a part names, as TFDS counts it; None if it doesn't."""
    if not text:
        return None
    number = int(text.rstrip("%"))
    number = round(size * number / 100) if text.endswith("%") else number
    return max(number + size, 0) if number < 0 else number


@contextlib.contextmanager
def reading(data: Data) -> Iterator[None]:
    """Names the set in whatever TensorFlow and TFDS raise at damaged or missing files.

    Raises:
        DataError: they raised something; errors of users pass.
    """
    try:
        yield
    except UserError:
        raise
    except (
        Exception
    ) as error:  # of TensorFlow, protobuf, JSON: they have no common kind
        text = (str(error).strip().splitlines() or [""])[0]
        text = re.sub(r"\{\{.*?\}\} *|\[Op:.*", "", text).strip()
        where = _root(data) if data.source == "tfds" else data.data_dir
        raise DataError(
            f"can't read the set {data.name!r} in {where}: "
            f"{type(error).__name__}: {text}"
        ) from error


def _root(data: Data) -> epath.Path:
    default = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return epath.Path(data.data_dir or default).expanduser()


def _find(root: epath.Path, name: str) -> epath.Path | None:
    """Returns the newest prepared version of a set, NAME[/CONFIG][:VERSION]."""
    path, _, version = name.partition(":")
    folder = root / path
    if not folder.is_dir():
        return None
    prepared = [p for p in folder.iterdir() if (p / _INFO).exists()]
    prepared = [p for p in prepared if _VERSION.fullmatch(p.name)]
    if version:
        prepared = [p for p in prepared if fnmatch.fnmatch(p.name, version)]
    if prepared:
        return max(prepared, key=lambda p: [int(n) for n in p.name.split(".")])
    # TFDS would silently take the first configuration: for cifar10_corrupted that
    # is brightness at severity 1.
    configs = sorted(p.name for p in folder.iterdir() if any(p.glob(f"*/{_INFO}")))
    if configs and "/" not in path:
        listed = ", ".join(f"{path}/{c}" for c in configs)
        raise DataError(f"{path!r} has several configurations: data.name is {listed}")
    return None


def _download(data: Data) -> None:
    """Downloads and prepares a set, or raises DataError that says how to."""
    tfds = engine().tfds
    try:
        builder = tfds.builder(data.name, data_dir=os.fspath(_root(data)))
    except tfds.core.registered.DatasetNotFoundError:
        local = _root(data).iterdir() if _root(data).is_dir() else ()
        there = ", ".join(sorted(p.name for p in local if p.is_dir())) or "nothing"
        raise DataError(
            f"data.name is {data.name!r}, and there is no such set in TensorFlow "
            f"Datasets; data.data_dir {os.fspath(_root(data))!r} has {there}"
        ) from None
    except Exception as error:
        raise DataError(_how_to_get(data, str(error))) from error
    if (host := _unreachable_host(builder)) is not None:
        raise DataError(_how_to_get(data, f"{host} can't be reached from here"))
    try:
        builder.download_and_prepare()
    except Exception as error:  # of requests, of TFDS, of the file system
        raise DataError(_how_to_get(data, str(error))) from error


def _unreachable_host(builder: Any) -> str | None:
    """Returns the host of the set's files if it can't be reached, else None.

    TFDS itself tries for minutes before it gives up.
    """
    if urllib.request.getproxies():
        return None
    hosts = (urllib.parse.urlsplit(url).hostname for url in builder.url_infos or ())
    host = next((h for h in hosts if h), None)
    if host is None:
        return None
    try:
        socket.create_connection((host, 443), timeout=_CONNECT_SECONDS).close()
    except OSError:
        return host
    return None


def _how_to_get(data: Data, problem: str) -> str:
    root = os.fspath(_root(data))
    name, _, version = data.name.partition(":")
    looked = f"{root}/{name}/{version or '<version>'}/{_INFO}"
    text = (
        f"the set {data.name!r} is not there: data.data_dir is {data.data_dir!r}, "
        f"looked for {looked}; {problem.strip().splitlines()[0]}. To get it, run "
        f"`tfds build {data.name} --data_dir={root}` where there is a network, copy "
        f"{root}/{name} here if need be, and set data.data_dir"
    )
    if name.startswith("imagenet2012"):
        text += (
            ". ImageNet must be downloaded by hand first: put ILSVRC2012_img_train.tar "
            f"and ILSVRC2012_img_val.tar into {root}/downloads/manual"
        )
    return text
