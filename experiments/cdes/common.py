"""Kernels, the three sets of images, and networks of the CDES experiments.

All of them work in one folder, so that what one has made the others take.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import jax
import ml_collections
import numpy as np

from apr_jax import cdes, data, parallel
from apr_jax.console import say
from apr_jax.evaluate import classifier as classifier_lib
from apr_jax.runs import files
from experiments.lab import Lab, networks_in, sizes

# Where the published networks were measured, and what they reached, in percent.
RADII = (10, 12, 14, 16, 18)
PUBLISHED = {
    "plain": (43.2, 27.2, 14.3, 10.5, 8.3),
    "scr": (79.0, 68.2, 42.4, 30.4, 30.9),
    "wcr": (20.4, 15.5, 12.8, 10.0, 10.0),
}
KINDS = {"plain": "plain images", "scr": "SCR: kernels by class", "wcr": "WCR: for all"}
COLOURS = {"plain": "#555555", "scr": "#c0392b", "wcr": "#2471a3"}

# A fifth of the images in batches of a fifth: as many steps as published, in minutes.
# "kernel_images" are of each class, "mixed_images" of all classes together.
KERNELS = sizes(
    kernel_images=(1000, 5000),
    mixed_images=(1000, 50_000),
    kernel_batch=(20, 100),
    kernel_epochs=(20, 20),
)
NETWORKS = sizes(
    images=(10_000, 0),
    test_images=(2000, 0),
    watched=(500, 1000),
    model=("wrn_10_1", "resnet18"),
    epochs=(6.0, 150.0),
    batch_size=(128, 128),
)
SIZES = {size: KERNELS[size] | NETWORKS[size] for size in KERNELS}
# One folder of kernels, sets and networks for all of these experiments.
OPTIONS: dict[str, dict[str, Any]] = {"--work": networks_in("cdes")}


def way() -> str:
    """The number of kernel sets that are trained side by side: see ``cdes.train``."""
    return "vmap" if parallel.make_layout(1).accelerated else "map"


def kernel_images(lab: Lab, train: data.ArraySplit) -> np.ndarray:
    """Equally many images of each class, uint8 [S, N, H, W, C]."""
    labels = np.asarray(train.labels)
    classes = np.unique(labels)
    wanted = min(lab["kernel_images"], int(np.bincount(labels).min()))
    rng = np.random.default_rng([0xCDE5, lab.seed])
    return np.stack(
        [
            np.asarray(train.images[np.sort(rng.permutation(mine)[:wanted])])
            for mine in (np.flatnonzero(labels == c) for c in classes)
        ]
    )


def recipe(lab: Lab) -> cdes.Recipe:
    """The published recipe, with the batch and the epochs of this size."""
    return cdes.Recipe(batch_size=lab["kernel_batch"], epochs=lab["kernel_epochs"])


def kernels(lab: Lab, train: data.ArraySplit) -> dict[str, dict[str, np.ndarray]]:
    """The kernels of every class ("scr", leading axis S) and those for all ("wcr", 1).

    With the mean losses of each epoch under "history", [epochs, S, 2]. Taken from the
    folder where they are there already.
    """
    images = kernel_images(lab, train)
    mixed = np.concatenate(images[:, : -(-lab["mixed_images"] // len(images))])[None]
    mark = hashlib.sha256(images.tobytes())
    mark.update(json.dumps([str(recipe(lab)), lab.seed]).encode())
    path = lab.work / "kernels.npz"
    if path.exists():
        with files.archive(path) as stored:
            if str(stored["mark"]) == mark.hexdigest():
                return {k: _unflat(stored, k) for k in ("scr", "wcr")}
    made = {}
    for i, (kind, sets) in enumerate({"scr": images, "wcr": mixed}.items()):
        found, history = cdes.train(
            jax.random.fold_in(jax.random.key(lab.seed), 0xCDE5 + i),
            sets,
            recipe=recipe(lab),
            way=way(),
            follow=lambda epoch, losses, kind=kind: say(  # type: ignore[misc]
                f"{kind}, epoch {epoch}: density {losses[:, 0].mean():.4f}, "
                f"pixels {losses[:, 1].mean():.4f}"
            ),
        )
        made[kind] = {
            "first": np.asarray(found["first"]),
            "second": np.asarray(found["second"]),
            "history": history,
        }
    flat = {f"{k}_{n}": a for k, own in made.items() for n, a in own.items()}
    files.write_arrays(path, {"mark": mark.hexdigest(), **flat})
    return made


def _unflat(stored: Mapping[str, np.ndarray], kind: str) -> dict[str, np.ndarray]:
    return {n: stored[f"{kind}_{n}"] for n in ("first", "second", "history")}


def one_set(made: Mapping[str, np.ndarray], index: int) -> cdes.Kernels:
    """One of several sets of kernels."""
    return {n: jax.numpy.asarray(made[n][index]) for n in ("first", "second")}


def remade(
    own: Mapping[str, np.ndarray], split: data.ArraySplit, *, batch: int = 200
) -> data.ArraySplit:
    """A split whose images are remade with the kernels of their class, or of all.

    Args:
        own: kernels with a leading axis of the classes, or of 1.
        split: of uint8 images; stays in its order.
        batch: images at a time.
    """
    run = jax.jit(lambda kernels, images: to_uint8(cdes.remake(kernels, images)))
    labels = np.asarray(split.labels)
    images = np.empty_like(np.asarray(split.images))
    several = len(own["first"]) > 1
    for label in np.unique(labels):
        kernels_of = one_set(own, int(label) if several else 0)
        mine = np.flatnonzero(labels == label)
        for start in range(0, len(mine), batch):
            # The last batch goes back for more, so that one program serves all.
            rows = np.resize(mine[start : start + batch], batch)
            made = np.asarray(run(kernels_of, np.asarray(split.images[rows])))
            images[rows] = made
    return data.ArraySplit(images, labels)


def to_uint8(pixels: jax.Array) -> jax.Array:
    """Pixels in [0, 1], rounded to grey levels."""
    return jax.numpy.round(pixels * 255).astype(jax.numpy.uint8)


def plain_splits(lab: Lab, found: data.DataSet) -> dict[str, data.ArraySplit]:
    """The images that networks are trained and measured on, as they are."""
    return lab.some(found, train="images", test="test_images")


def sets(
    lab: Lab,
) -> tuple[dict[str, dict[str, data.ArraySplit]], dict[str, ml_collections.ConfigDict]]:
    """The plain, SCR and WCR images, written as arrays.

    Returns:
        kind -> split -> images, and kind -> configuration that reads them.
    """
    found = lab.load()
    plain = plain_splits(lab, found)
    own = kernels(lab, found.splits["train"])
    splits = {"plain": plain}
    for kind in ("scr", "wcr"):
        splits[kind] = {name: remade(own[kind], split) for name, split in plain.items()}
    return splits, {
        kind: lab.arrays(kind, found.class_names, **parts)
        for kind, parts in splits.items()
    }


def network(
    lab: Lab, name: str, base: ml_collections.ConfigDict
) -> classifier_lib.Classifier:
    """A network trained on a set, its input gradient watched; ``name`` is its run."""
    config = lab.short(
        base,
        train__batch_size=lab["batch_size"],
        train__watch=("input_spectrum",),
        train__watch_examples=lab["watched"],
    )
    return lab.train(f"network_{name}", config)
