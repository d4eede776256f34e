"""The fixed sets of OpenOOD v1.5, and where they are looked for.

Zhang et al., "OpenOOD v1.5: Enhanced Benchmark for Out-of-Distribution Detection",
2023 (arXiv:2306.09301). A benchmark has lists of images, which lie below one folder as
OpenOOD's own download script leaves them::

    benchmark_imglist/cifar10/test_tin.txt     lines "tin/test/0001.png -1"
    images_classic/tin/test/0001.png
    images_largescale/...

A set is first looked for in what the user names, then by its list, then as a set of
TensorFlow Datasets, whose test split may have other images than the list; a note says
so. One that isn't there is said in a line, and the others are measured.
"""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from apr_jax import config as config_lib
from apr_jax import console
from apr_jax.data import images as images_lib
from apr_jax.errors import ConfigError, DataError
from apr_jax.evaluate import ood_sets
from apr_jax.gates import places

# Where OpenOOD says how its lists and images are had.
SOURCE = "https://github.com/Jingkang50/OpenOOD, scripts/download"
LISTS = "benchmark_imglist"
_CLASSIC, _LARGE = "images_classic", "images_largescale"


@dataclasses.dataclass(frozen=True)
class Member:
    """A set of a benchmark.

    Attributes:
        group: "near", "far", "csid" for known classes on other images, "val" for the
            unknown images that knobs are chosen on, "id_test" or "id_val".
        file: its list, below the benchmark's folder of lists.
        images: the folder that the list's paths are in.
        tfds: the set of TensorFlow Datasets with such images, if there is one.
        note: how that differs.
    """

    group: str
    file: str
    images: str = _CLASSIC
    tfds: str = ""
    note: str = ""


def _known(name: str, images: str) -> dict[str, Member]:
    """The benchmark's own test images, for testing and for choosing knobs."""
    return {
        "id": Member("id_test", f"test_{name}.txt", images),
        "id_val": Member("id_val", f"val_{name}.txt", images),
    }


def _of_cifar(
    name: str, other: str, shifted: Mapping[str, Member]
) -> dict[str, Member]:
    whole = "all 10,000 test images, of which the list has 9,000"
    return {
        **_known(name, _CLASSIC),
        "val_tin": Member("val", "val_tin.txt"),
        other: Member("near", f"test_{other}.txt", tfds=other, note=whole),
        "tin": Member("near", "test_tin.txt"),
        "mnist": Member(
            "far",
            "test_mnist.txt",
            tfds="mnist",
            note="the 10,000 test images of the list's 70,000",
        ),
        "svhn": Member("far", "test_svhn.txt", tfds="svhn_cropped"),
        "texture": Member(
            "far",
            "test_texture.txt",
            tfds="dtd",
            note="the 1,880 test images of the list's 5,640",
        ),
        "places365": Member("far", "test_places365.txt"),
        **shifted,
    }


def _of_imagenet(name: str, *further: str) -> dict[str, Member]:
    shifted = ("imagenet_v2", "imagenet_c", "imagenet_r", *further)
    # "imagenet200" has parts of the shifted sets, named after both.
    part = {
        s: s if name == "imagenet" else s.replace("imagenet", name) for s in shifted
    }
    large = lambda group, file: Member(group, file, _LARGE)
    return {
        **_known(name, _LARGE),
        "val_openimage_o": large("val", "val_openimage_o.txt"),
        "ssb_hard": large("near", "test_ssb_hard.txt"),
        "ninco": large("near", "test_ninco.txt"),
        "inaturalist": large("far", "test_inaturalist.txt"),
        "textures": Member(
            "far",
            "test_textures.txt",
            tfds="dtd",
            note="the 1,880 test images of DTD, with classes that ImageNet has",
        ),
        "openimage_o": large("far", "test_openimage_o.txt"),
        **{s: large("csid", f"test_{part[s]}.txt") for s in shifted},
    }


BENCHMARKS: dict[str, dict[str, Member]] = {
    "cifar10": _of_cifar(
        "cifar10", "cifar100", {"cifar10c": Member("csid", "test_cifar10c.txt")}
    ),
    "cifar100": _of_cifar("cifar100", "cifar10", {}),
    "imagenet200": _of_imagenet("imagenet200"),
    "imagenet": _of_imagenet("imagenet", "imagenet_es"),
}
# The names that data have here -> benchmarks.
_NAMES = {"imagenet2012": "imagenet", **{name: name for name in BENCHMARKS}}


def benchmark_of(data: config_lib.Data) -> str:
    """The benchmark of a classifier's data.

    Raises:
        ConfigError: there is none.
    """
    if data.name not in _NAMES:
        raise ConfigError(
            f"protocol is 'openood', but data.name is {data.name!r}; OpenOOD has sets "
            f"for {', '.join(_NAMES)}"
        )
    return _NAMES[data.name]


@dataclasses.dataclass(frozen=True)
class Found:
    """The sets of a benchmark that are there: name -> set, by group.

    Attributes:
        near, far: unknown images.
        csid: known classes on other images, with labels.
        val: unknown images to choose knobs on; empty, or one.
        known: "id" and "id_val", where both lists are there.
    """

    near: dict[str, ood_sets.OutSet]
    far: dict[str, ood_sets.OutSet]
    csid: dict[str, ood_sets.OutSet]
    val: dict[str, ood_sets.OutSet]
    known: dict[str, ood_sets.OutSet]


def find(settings: config_lib.Ood, config: config_lib.Config) -> Found:
    """Opens what is there of a benchmark, and says what isn't.

    Args:
        settings: its ``openood_dir``, ``out`` and ``tfds_dir`` say where, ``examples``
            and ``fit`` how.
        config: of the classifier.

    Raises:
        DataError: neither a near nor a far set is there; or one that the user named
            can't be opened.
    """
    benchmark = benchmark_of(config.data)
    given = ood_sets.parse(settings.out)
    groups: dict[str, dict[str, ood_sets.OutSet]] = {
        group: {} for group in ("near", "far", "csid", "val", "id_test", "id_val")
    }
    for name, member in BENCHMARKS[benchmark].items():
        opened = _open(name, member, benchmark, given.get(name), settings, config)
        if opened is not None:
            groups[member.group][name] = opened
    if not (groups["near"] or groups["far"]):
        raise DataError(
            f"none of OpenOOD's sets for {benchmark} is there; {SOURCE} brings them, "
            "openood_dir says where they are"
        )
    known = {**groups.pop("id_test"), **groups.pop("id_val")}
    return Found(**groups, known=known if len(known) == 2 else {})


def _open(
    name: str,
    member: Member,
    benchmark: str,
    given: tuple[str, str] | None,
    settings: config_lib.Ood,
    config: config_lib.Config,
) -> ood_sets.OutSet | None:
    how: dict[str, Any] = {
        "examples": settings.examples,
        "seed": config.seed,
        "fit": settings.fit,
        "tfds_dir": settings.tfds_dir,
    }
    if given is not None:
        return ood_sets.open_set(name, *given, config.data, **how)
    tried = []
    if settings.openood_dir:
        root = places.local(settings.openood_dir, "openood_dir")
        file = root / LISTS / benchmark / member.file
        try:
            return listed(name, file, root / member.images, settings, config)
        except DataError as error:
            tried.append(str(error))
    if member.tfds:
        try:
            found = ood_sets.open_set(name, "tfds", member.tfds, config.data, **how)
            note = "; ".join(part for part in (member.note, found.note) if part)
            return dataclasses.replace(found, note=note)
        except DataError:
            tried.append(f"TFDS's {member.tfds} is not prepared")
    if member.group not in ("id_test", "id_val"):  # the classifier's own will do
        why = f" ({'; '.join(tried)})" if tried else ""
        console.say(
            f"OpenOOD's {name} ({member.group}) is missing{why}; get it by {SOURCE}, "
            "and name its folder by openood_dir, or the set by out"
        )
    return None


def listed(
    name: str,
    file: pathlib.Path,
    folder: pathlib.Path,
    settings: config_lib.Ood,
    config: config_lib.Config,
) -> ood_sets.OutSet:
    """A set of images that a list of OpenOOD names, with the labels in it.

    Args:
        name: of the set.
        file: lines of a path below the folder, a space, and a label; -1 for none.
        folder: where the images are.
        settings: ``examples`` and ``fit`` are used.
        config: of the classifier.

    Raises:
        DataError: there is no such list, it isn't one, or its first image isn't there.
    """
    rows = _rows(file)
    if not rows:
        raise DataError(f"{file} lists no images")
    first = folder / rows[0][0]
    if not first.is_file():
        raise DataError(f"{first} is missing")
    labels = np.array([label for _, label in rows], np.int32)

    def read(places_of: np.ndarray) -> np.ndarray:
        paths = [folder / rows[place][0] for place in places_of]
        return np.stack(
            [
                ood_sets.fitted(
                    images_lib.read(path), config.data, settings.fit, str(path)
                )
                for path in paths
            ]
        )

    stat = file.stat()
    mark = f"{file.name} {len(rows)} {stat.st_size} {first.stat().st_size}"
    return ood_sets.make_set(
        name,
        f"openood:{file.parent.name}/{file.name}",
        (read, len(rows), mark, _note(config.data, settings.fit)),
        examples=settings.examples,
        seed=config.seed,
        labels=labels,
    )


def _note(described: config_lib.Data, fit: str) -> str:
    if fit == "resize":
        return ood_sets.resized_note(described)
    return ood_sets.fitted_note(described, fit)


def _rows(file: pathlib.Path) -> list[tuple[str, int]]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} can't be read") from error
    found = []
    for line in filter(None, (line.strip() for line in lines)):
        path, _, label = line.rpartition(" ")
        if not path or not label.removeprefix("-").isdigit():
            raise DataError(
                f"{file} has the line {line!r}; it must be a path and a label"
            )
        found.append((path, int(label)))
    return found
