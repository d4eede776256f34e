"""Writes a network to a file that other programs run, and loads it again to check.

    apr-jax export RUN --out net.onnx
    apr-jax export RUN --out net.stablehlo --gradients
    apr-jax export --model FILE.py:create --to stablehlo --out net.bin

The network takes images [B, H, W, 3], RGB, any number at a time: float32 pixels in
[0, 1], or grey levels with ``--pixels uint8``. Its normalisation is inside; it computes
in float32 and answers logits. Beside FILE lies FILE.json with the names of the classes.
StableHLO is what ``jax.export`` reads, for CPU, GPU and TPU; ONNX is written by
``jax2onnx`` (``pip install 'apr_jax[onnx]'``). A run is only read.
"""

import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from absl import app, flags

from apr_jax import config as config_lib
from apr_jax import console, process, settings
from apr_jax.data import classes as classes_lib
from apr_jax.errors import ConfigError
from apr_jax.evaluate import classifier as classifier_lib
from apr_jax.evaluate.classifier import Classifier
from apr_jax.foreign import exported, source
from apr_jax.gates import places
from apr_jax.runs import files

_SUFFIXES = {".onnx": "onnx", ".stablehlo": "stablehlo"}


def main() -> None:
    """Runs the command."""
    to = flags.DEFINE_enum(
        "to", None, exported.FORMATS, "The format; by the name of --out if unset."
    )
    out = flags.DEFINE_string("out", None, "File to write.")
    model = flags.DEFINE_string(
        "model", None, "FILE.py[:create]: returns a function or an apr_jax.Classifier."
    )
    classes = flags.DEFINE_string(
        "classes", None, "Of a function: how many, or a file of names, one a line."
    )
    size = flags.DEFINE_integer("image_size", 0, "Of a function: pixels, square.")
    pixels = flags.DEFINE_enum(
        "pixels", "float32", exported.PIXELS, "float32 in [0, 1], or grey levels."
    )
    batch = flags.DEFINE_integer("batch", 0, "Images of a call; 0: any number.")
    gradients = flags.DEFINE_bool("gradients", False, "Of the pixels, in StableHLO.")
    shown = ("to", "out", "model", "classes", "image_size", "pixels", "batch")
    settings.list_in_help(*shown, "gradients")

    def work(argv: Sequence[str]) -> None:
        if len(argv) != (1 if model.value else 2) or not out.value:
            raise app.UsageError(
                "give one run directory, or --model FILE.py, and --out"
            )
        target = out.value

        def write() -> None:
            run(
                model.value or places.local(argv[1], "the run"),
                places.local(target, "--out"),
                to=to.value,
                classes=classes.value,
                image_size=size.value,
                pixels=pixels.value,
                batch=batch.value,
                gradients=gradients.value,
            )

        process.finish(write)

    app.run(work)


def run(
    what: pathlib.Path | str,
    out: pathlib.Path,
    *,
    to: str | None = None,
    classes: str | None = None,
    image_size: int = 0,
    **how: Any,
) -> exported.Compared:
    """Writes a network and says how far its logits are from what was written.

    Args:
        what: a run's directory, or "FILE.py:create".
        out: the file; another one, FILE.json, comes beside it.
        to: of ``exported.FORMATS``; by the file's name if None.
        classes, image_size: of a plain function, how many or a file of names; pixels.
        how: the other fields of ``exported.Plan``.

    Raises:
        UserError: there is no such network, the format can't have it, or it answers
            otherwise when it is loaded again.
    """
    plan = exported.Plan(to=to or _format(out), **how)
    files.check_target(out, "--out")
    if isinstance(what, str):
        network = _from_file(what, classes, image_size)
    elif classes or image_size:
        raise ConfigError("--classes and --image_size are for --model FILE.py")
    else:
        network = classifier_lib.from_run(what)
    found = export(network, out, plan)
    console.say(
        f"{out} is there, {out.stat().st_size / 1e6:,.1f} MB, beside it {out.name}.json"
    )
    console.say(
        f"loaded again it gives the same logits of {found.images} images: the largest "
        f"difference is {found.difference:.2g}, the largest logit {found.largest:.3g}"
    )
    return found


def export(
    network: Classifier, out: pathlib.Path, plan: exported.Plan
) -> exported.Compared:
    """Writes a classifier; as ``exported.write``."""
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


def _from_file(spec: str, classes: str | None, image_size: int) -> Classifier:
    name, made = source.load(spec)
    if isinstance(made, Classifier):
        return made
    if not classes or not image_size:
        raise ConfigError(
            f"{spec} returns a function: say --classes and --image_size, or return an "
            "apr_jax.Classifier"
        )
    names: int | tuple[str, ...]
    if classes.isdecimal():
        names = int(classes)
    else:
        names = classes_lib.read_text(places.local(classes, "--classes"))
    return Classifier.from_function(
        made,
        classes=names,
        image_size=image_size,
        name=re.sub(r"\W+", "", name) or "model",
    )


if __name__ == "__main__":
    main()
