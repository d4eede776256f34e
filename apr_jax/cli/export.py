"""Writes a network to a file that other programs run, and loads it again to check.

    apr-jax export RUN --out net.onnx
    apr-jax export RUN --out net.stablehlo --gradients
    apr-jax export --model FILE.py:create --to stablehlo --out net.bin
    apr-jax export --model timm:resnet18 --out net.onnx
    apr-jax export WEIGHTS.pth --config cifar10_wrn_aprsp --classes 10 --out net.onnx

What can be measured can be written: networks are named by the same flags. The network
takes images [B, H, W, 3], RGB, any number at a time: float32 pixels in [0, 1], or grey
levels with ``--pixels uint8``. Its normalisation is inside; it computes in float32 and
answers logits. Beside FILE lies FILE.json with the names of the classes. StableHLO is
what ``jax.export`` reads, for CPU, GPU and TPU; ONNX is written by ``jax2onnx`` (``pip
install 'apr_jax[onnx]'``). A run is only read.
"""

import sys
from collections.abc import Sequence

from absl import app, flags
from ml_collections import config_flags

from apr_jax import process, settings
from apr_jax.cli import elsewhere, program
from apr_jax.foreign import formats
from apr_jax.gates import places
from apr_jax.runs import files, workdir


def main() -> None:
    """Runs the command."""
    to = flags.DEFINE_enum(
        "to", None, formats.FORMATS, "The format; by the name of --out if unset."
    )
    out = flags.DEFINE_string("out", None, "File to write.")
    told = elsewhere.define_flags()
    config = config_flags.DEFINE_config_file(
        "config", None, "For a file of weights: names the network and its images."
    )
    size = flags.DEFINE_integer("image_size", 0, "Of a function: pixels, square.")
    pixels = flags.DEFINE_enum(
        "pixels", "float32", formats.PIXELS, "float32 in [0, 1], or grey levels."
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
            what = given.pop("model")
            if what is None:
                what = places.run(argv[1], "the run")
                workdir.check_network(what)
            place = places.local(target, "--out")
            form = to.value or formats.of_name(place)
            files.check_target(place, "--out")
            print("export: starting", file=sys.stderr, flush=True)
            from apr_jax.evaluate import export

            export.run(
                what,
                place,
                to=form,
                values=config.value,
                image_size=size.value,
                pixels=pixels.value,
                batch=batch.value,
                gradients=gradients.value,
                **given,
            )

        process.finish(write)

    program.run(work)


if __name__ == "__main__":
    main()
