"""The two networks that several figures compare, and pictures kept inside records."""

import argparse
import base64
import dataclasses
import io
import pathlib

import ml_collections
import numpy as np
import PIL.Image

from apr_jax.evaluate import classifier as classifier_lib
from experiments import lab as lab_lib
from experiments.lab import Lab

METHODS = ("standard", "apr_sp")
TITLES = {"standard": "standard", "apr_sp": "APR-SP"}
SMALL = {"model": "wrn_10_1", "epochs": 12.0}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options that name the two networks."""
    for method in METHODS:
        parser.add_argument(
            f"--{method}",
            type=pathlib.Path,
            help=f"directory of a run trained by {method}; without it one is trained",
        )
    parser.add_argument(
        "--networks",
        type=pathlib.Path,
        default=pathlib.Path("runs/experiments/networks"),
        help="where the networks are trained, for all experiments that compare them",
    )


def recipe(lab: Lab, method: str) -> ml_collections.ConfigDict:
    """How a network is trained: the published recipe, or a short one."""
    if lab.size == "paper":
        return lab.settings(model__name=lab["model"], augment__method=method)
    if lab.base.data.source == "bundled":
        return lab.settings(augment__method=method)
    return lab_lib.short(
        lab.base, model=lab["model"], epochs=lab["epochs"], method=method
    )


def one(lab: Lab, method: str) -> classifier_lib.Classifier:
    """A network: the run that its option names, or trained here."""
    given = getattr(lab.options, method)
    if given is not None:
        return classifier_lib.from_run(given)
    place = dataclasses.replace(lab, work=lab.options.networks / lab.size)
    name = f"{lab.base.data.name}_{lab['model']}_{method}"
    return place.train(name, recipe(lab, method))


def both(lab: Lab) -> dict[str, classifier_lib.Classifier]:
    """Method -> network, as ``one`` finds it."""
    return {method: one(lab, method) for method in METHODS}


def digests(networks: dict[str, classifier_lib.Classifier]) -> dict[str, str]:
    """What tells the weights apart, for the settings of records."""
    return {
        m: classifier_lib.weights_digest(network) for m, network in networks.items()
    }


def pack(image: np.ndarray) -> str:
    """A picture as text: [H, W, 3], uint8 or pixels that are clipped to [0, 1]."""
    if image.dtype != np.uint8:
        image = np.rint(255 * np.clip(image, 0, 1)).astype(np.uint8)
    file = io.BytesIO()
    PIL.Image.fromarray(image).save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def unpack(text: str) -> np.ndarray:
    """The uint8 [H, W, 3] that ``pack`` was given."""
    return np.asarray(PIL.Image.open(io.BytesIO(base64.b64decode(text))))
