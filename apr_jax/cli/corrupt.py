"""The command line of corrupted test sets: writes some, or compares others' with ours.

    apr-jax corrupt --data cifar10 --out CIFAR-10-C
    apr-jax corrupt --data ILSVRC --split val --image_size 224 --out IN-C

    apr-jax corrupt --data cifar10 --verify CIFAR-10-C --network RUN

corrupts a test split in every severity and writes files that other people's code
reads: ``NAME.npy`` and ``labels.npy`` for small images, a tree of JPEG files for large
ones. ``--data`` is a set of TensorFlow Datasets, a folder with SPLIT/CLASS/IMAGE, a
folder of NumPy or Parquet files, an ``.npz``, or "bundled". ``--corruptions`` names
some of the fifteen, of those that are held out (speckle_noise, gaussian_blur, spatter
and saturate) or of C-bar; ``--sets`` whole sets. With ``--verify`` nothing is written:
files from elsewhere are compared with what would be.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from absl import app, flags

from apr_jax import process, settings
from apr_jax.cli import program
from apr_jax.config import Corruption, Data
from apr_jax.errors import ConfigError
from apr_jax.gates import places
from apr_jax.runs import workdir

if TYPE_CHECKING:
    from apr_jax.data import corrupted_verify

FORMATS = ("auto", "npy", "jpeg")


def main() -> None:
    """Runs the command."""
    what = flags.DEFINE_string("data", None, "What to corrupt.", required=True)
    out = flags.DEFINE_string("out", None, "Folder of the files.")
    verify = flags.DEFINE_string(
        "verify", None, "Folder of official files, to compare with what is made here."
    )
    of_network = flags.DEFINE_string(
        "network", None, "verify: a run whose error on both is told."
    )
    split = flags.DEFINE_string("split", Data.test_split, "Which part of the data.")
    resize = flags.DEFINE_integer(
        "resize",
        0,
        "Pixels of the shorter side before the centre is cut out; if unset 256 for 224 "
        "pixels, in proportion for other large images, and none for small ones.",
    )
    form = flags.DEFINE_enum(
        "format", FORMATS[0], FORMATS, "auto: npy up to 64 pixels, else jpeg."
    )
    quiet = flags.DEFINE_bool("quiet", False, "No progress bar.")
    shown = ("data", "out", "verify", "network", "split", "resize", "format", "quiet")
    settings.list_in_help(*shown)
    of_data = settings.define_flags(Data, only=("data_dir", "image_size"))
    fields = ("corruptions", "sets", "examples", "seed", "frost_dir", "stored_as")
    of_corruption = settings.define_flags(Corruption, only=fields)

    def check() -> tuple[Data, Corruption]:
        """What the flags say by themselves, before JAX loads."""
        if (out.value is None) == (verify.value is None):
            raise ConfigError("give --out to write files, or --verify to compare some")
        if of_network.value:
            if out.value:
                raise ConfigError("--network belongs to --verify")
            workdir.open_run(places.run(of_network.value, "--network"))
        for flag in (out, verify):
            if flag.value:
                places.check(flag.value, f"--{flag.name}")
        data = settings.build(Data(), of_data())
        return data, settings.build(Corruption(), of_corruption())

    def run() -> None:
        own, chosen = check()
        from apr_jax import console
        from apr_jax.data import corrupted, corrupted_sets, corrupted_verify

        described = corrupted_sets.describe(
            what.value,
            data_dir=own.data_dir,
            split=split.value,
            image_size=own.image_size,
            resize=resize.value or corrupted_sets.default_resize(own.image_size),
        )
        process.use_compile_cache(described)
        names = corrupted.chosen(chosen, own.image_size)
        if verify.value:
            answer = open_network(of_network.value) if of_network.value else None
            for found in corrupted_verify.compare(
                described,
                places.local(verify.value, "--verify"),
                names,
                examples=chosen.examples,
                seed=chosen.seed,
                frost_dir=chosen.frost_dir,
                answer=answer,
            ):
                console.say(found.line())
            return
        assert out.value is not None
        corrupted_sets.write(
            described,
            places.local(out.value, "--out"),
            names,
            form=form.value,
            examples=chosen.examples,
            seed=chosen.seed,
            frost_dir=chosen.frost_dir,
            stored_as=chosen.stored_as,
            quiet=quiet.value,
        )

    def work(argv: Sequence[str]) -> None:
        if len(argv) > 1:
            raise app.UsageError(f"unexpected {argv[1]!r}")
        process.finish(run)

    program.run(work)


def open_network(run: str) -> "corrupted_verify.Answer":
    """The classes that the network of a run answers; NaN is none of them."""
    import jax
    import numpy as np

    from apr_jax.evaluate import classifier as classifier_lib
    from apr_jax.gates import answers

    network = classifier_lib.from_run(places.run(run, "--network"))
    checked = jax.jit(network.asked)

    def answer(images: np.ndarray) -> np.ndarray:
        logits, _ = checked(network.variables, images)
        found: np.ndarray = answers.answer(np.asarray(logits))
        return found

    return answer


if __name__ == "__main__":
    main()
