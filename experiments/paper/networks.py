"""The two networks that several figures compare."""

import dataclasses
from typing import Any

import ml_collections

from apr_jax.evaluate import classifier as classifier_lib
from apr_jax.gates import places
from experiments.lab import Lab, networks_in

METHODS = ("standard", "apr_sp")
TITLES = {"standard": "standard", "apr_sp": "APR-SP"}
# Their knobs at the small size and as published; see ``lab.sizes``.
KNOBS: dict[str, tuple[Any, Any]] = {
    "model": ("wrn_10_1", "resnet18"),
    "epochs": (12.0, 200.0),
}


# Flags that name the two networks.
OPTIONS: dict[str, dict[str, Any]] = {
    f"--{method}": {
        "type": places.argument,
        "help": f"directory of a run trained by {method}; without it one is trained",
    }
    for method in METHODS
} | {"--networks": networks_in("networks")}


def recipe(lab: Lab, method: str) -> ml_collections.ConfigDict:
    """The configuration of a training: the published recipe, or a short one."""
    if lab.size == "paper":
        return lab.settings(model__name=lab["model"], augment__method=method)
    if lab.base.data.source == "bundled":
        return lab.settings(augment__method=method)
    return lab.short(method=method)


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
    """The digests that tell the weights apart, for the settings of records."""
    return {m: classifier_lib.weights_digest(own) for m, own in networks.items()}
