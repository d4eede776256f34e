"""Networks of any kind, written as files that other programs run."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from apr_jax import config as config_lib
from apr_jax import console
from apr_jax.errors import ArgumentError, ConfigError
from apr_jax.evaluate import classifier as classifier_lib
from apr_jax.evaluate import elsewhere
from apr_jax.evaluate import weights as weights_lib
from apr_jax.evaluate.classifier import Classifier
from apr_jax.foreign import exported, formats
from apr_jax.runs import files, workdir


def run(
    what: pathlib.Path | str,
    out: pathlib.Path,
    *,
    to: str | None = None,
    values: Any = None,
    classes: elsewhere.Classes = None,
    image_size: int = 0,
    weights: str | None = None,
    trust_remote_code: bool = False,
    **how: Any,
) -> exported.Compared:
    """Writes a network and says how far its logits are from what was written.

    Args:
        what: a run's directory, a file of weights of a network of this project, or
            what ``--model`` says.
        out: the file; another one, FILE.json, comes beside it.
        to: of ``formats.FORMATS``; by the file's name if None.
        values: configuration of a file of weights.
        classes: of a function or a file of weights, how many, or their names; of
            another network from elsewhere their names.
        image_size: of a plain function; pixels.
        weights, trust_remote_code: of a network by name, as ``bring.bring`` has them.
        how: the other fields of ``exported.Plan``.

    Raises:
        UserError: there is no such network, the format can't have it, or it answers
            otherwise when it is loaded again.
    """
    plan = exported.Plan(to=to or formats.of_name(out), **how)
    files.check_target(out, "--out")
    if isinstance(what, str):
        if values is not None:
            raise ConfigError("--config is for a file of weights, not for --model")
        found = elsewhere.opened(
            what, weights=weights, trust_remote_code=trust_remote_code
        )
        network = _from_elsewhere(what, found, classes, image_size)
    elif image_size:
        raise ConfigError("--image_size is for --model FILE.py")
    else:
        network = _from_here(what, values, classes)
    compared = export(network, out, plan)
    console.say(
        f"{out} is there, {out.stat().st_size / 1e6:,.1f} MB, beside it {out.name}.json"
    )
    console.say(
        f"loaded again it gives the same logits of {compared.images} images: the "
        f"largest difference is {compared.difference:.2g}, the largest logit "
        f"{compared.largest:.3g}"
    )
    return compared


def export(
    network: Classifier, out: pathlib.Path, plan: exported.Plan
) -> exported.Compared:
    """Writes a classifier; as ``exported.write``."""
    if plan.gradients and not network.differentiable:
        raise ArgumentError(f"{network.name} has no gradient to write: no --gradients")
    config, step = network.config, network.step
    wide, _ = classifier_lib.in_float32(network)
    about: Mapping[str, Any] = {
        "name": network.name,
        "classes": list(network.class_names),
        "normalisation": {
            "inside": True,
            "mean": list(config.data.mean),
            "std": list(config.data.std),
        },
        **(
            {"step": step, "config_hash": config_lib.config_hash(config)}
            if step
            else {}
        ),
    }
    return exported.write(
        out,
        lambda images: wide.predict(wide.variables, images)[0],
        image_size=config.data.image_size,
        plan=plan,
        about=about,
    )


def _from_here(
    path: pathlib.Path, values: Any, classes: elsewhere.Classes
) -> Classifier:
    """The network of a run, or of a file of weights of a network of this project."""
    if path.is_dir():
        if values is not None or classes is not None:
            flag = "--classes" if values is None else "--config"
            raise ConfigError(f"{path} is a run and knows it: {flag} isn't for it")
        return classifier_lib.from_run(path)
    workdir.check_network(path)
    if values is None:
        raise ConfigError(
            f"{path} is a file of weights: --config must name its network"
        )
    return weights_lib.from_weights(path, config_lib.parse(values.to_dict()), classes)


def _from_elsewhere(
    what: str, found: elsewhere.Opened, classes: elsewhere.Classes, image_size: int
) -> Classifier:
    """The network that ``--model`` names, its classes by the names that it has."""
    if not found.complete and not (classes and image_size):
        raise ConfigError(
            f"{what} returns a function: say --classes and --image_size, or return an "
            "apr_jax.Classifier"
        )
    if found.complete and image_size:
        raise ConfigError(f"--image_size is for functions; {what} knows its own")
    found = found.as_classifier(classes, image_size)
    network: Classifier = found.network
    if isinstance(classes, int) and classes != len(network.class_names):
        raise ConfigError(
            f"--classes is {classes}; {what} tells {len(network.class_names)} apart"
        )
    if found.known:
        network = dataclasses.replace(network, class_names=found.known[0])
    return network
