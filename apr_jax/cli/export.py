"""Writes a network to a file that other programs run, and loads it again to check.

    apr-jax export RUN --out net.onnx
    apr-jax export RUN --out net.stablehlo --gradients
    apr-jax export --model FILE.py:create --to stablehlo --out net.bin
    apr-jax export --model timm:resnet18 --out net.onnx
    apr-jax export WEIGHTS.pth --config cifar10 --classes 10 --out net.onnx

What can be measured can be written: networks are named by the same flags. The network
takes images [B, H, W, 3], RGB, any number at a time: float32 pixels in [0, 1], or grey
levels with ``--pixels uint8``. Its normalisation is inside; it computes in float32 and
answers logits. Beside FILE lies FILE.json with the names of the classes. StableHLO is
what ``jax.export`` reads, for CPU, GPU and TPU; ONNX is written by ``jax2onnx`` (``pip
install 'apr_jax[onnx]'``). A run is only read.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from absl import app, flags
from ml_collections import config_flags

from apr_jax import config as config_lib
from apr_jax import console, process, settings
from apr_jax.cli import elsewhere as flags_of_elsewhere
from apr_jax.cli import program
from apr_jax.errors import ArgumentError, ConfigError
from apr_jax.evaluate import classifier as classifier_lib
from apr_jax.evaluate import elsewhere
from apr_jax.evaluate import weights as weights_lib
from apr_jax.evaluate.classifier import Classifier
from apr_jax.foreign import exported
from apr_jax.gates import places
from apr_jax.runs import files

_SUFFIXES = {".onnx": "onnx", ".stablehlo": "stablehlo"}


def main() -> None:
    """Runs the command."""
    to = flags.DEFINE_enum(
        "to", None, exported.FORMATS, "The format; by the name of --out if unset."
    )
    out = flags.DEFINE_string("out", None, "File to write.")
    told = flags_of_elsewhere.define_flags()
    config = config_flags.DEFINE_config_file(
        "config", None, "For a file of weights: names the network and its images."
    )
    size = flags.DEFINE_integer("image_size", 0, "Of a function: pixels, square.")
    pixels = flags.DEFINE_enum(
        "pixels", "float32", exported.PIXELS, "float32 in [0, 1], or grey levels."
    )
    batch = flags.DEFINE_integer("batch", 0, "Images of a call; 0: any number.")
    gradients = flags.DEFINE_bool("gradients", False, "Of the pixels, in StableHLO.")
    settings.list_in_help("to", "out", "config", "image_size", "pixels", "batch")
    settings.list_in_help("gradients")

    def work(argv: Sequence[str]) -> None:
        model = flags.FLAGS["model"].value
        if len(argv) != (1 if model else 2) or not out.value:
            raise app.UsageError(
                "give one run directory, one file of weights, or --model FILE.py or "
                "LIBRARY:NAME alone; and --out"
            )
        target = out.value

        def write() -> None:
            given = told()
            if given["model"] is None:
                given["model"] = places.local(argv[1], "the run")
            run(
                given.pop("model"),
                places.local(target, "--out"),
                to=to.value,
                values=config.value,
                image_size=size.value,
                **given,
                pixels=pixels.value,
                batch=batch.value,
                gradients=gradients.value,
            )

        process.finish(write)

    program.run(work)


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
        to: of ``exported.FORMATS``; by the file's name if None.
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
    plan = exported.Plan(to=to or _format(out), **how)
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


def _format(out: pathlib.Path) -> str:
    if out.suffix not in _SUFFIXES:
        raise ConfigError(
            f"--out is {str(out)!r}; say --to, one of {', '.join(exported.FORMATS)}, "
            f"or end the name with {' or '.join(_SUFFIXES)}"
        )
    return _SUFFIXES[out.suffix]


def _from_here(
    path: pathlib.Path, values: Any, classes: elsewhere.Classes
) -> Classifier:
    """The network of a run, or of a file of weights of a network of this project."""
    if path.is_dir():
        if values is not None or classes is not None:
            flag = "--classes" if values is None else "--config"
            raise ConfigError(f"{path} is a run and knows it: {flag} isn't for it")
        return classifier_lib.from_run(path)
    if not path.exists():
        raise ConfigError(
            f"{path} is not there; give a run's directory or a file of weights"
        )
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


if __name__ == "__main__":
    main()
