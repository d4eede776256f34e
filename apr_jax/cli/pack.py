"""Packs large images once, so that training reads them several times as fast.

    apr-jax pack --data folder:ILSVRC --out packed --name imagenet_256
    apr-jax pack --data imagenet2012 --splits train,validation --out packed

    apr-jax train --config imagenet_resnet50_aprsp --config.data.data_dir=packed \
        --config.data.name=imagenet_256 --config.data.test_split=val

``--data`` is a folder with SPLIT/CLASS/IMAGE, or a set of TensorFlow Datasets. Each
image is brought to ``--shorter`` pixels of its shorter side and stored as a JPEG of
``--quality``, in ArrayRecord files, a set of TFDS that is read without TensorFlow. A
stopped call goes on when it is repeated. It needs the extra "grain".
"""

import os
import re
from collections.abc import Sequence

from absl import app, flags

from apr_jax import process, settings
from apr_jax.cli import program
from apr_jax.config import Data
from apr_jax.errors import ConfigError
from apr_jax.gates import places

_SHORTER, _QUALITY = 256, 90


def main() -> None:
    """Runs the command."""
    what = flags.DEFINE_string("data", None, "What to pack.", required=True)
    out = flags.DEFINE_string("out", None, "Folder of packed sets.", required=True)
    name = flags.DEFINE_string(
        "name", "", "Of the packed set; the data's and the pixels if unset."
    )
    splits = flags.DEFINE_list("splits", [], "Parts of the data; all if unset.")
    shorter = flags.DEFINE_integer(
        "shorter", _SHORTER, "Pixels of the shorter side; smaller images stay."
    )
    quality = flags.DEFINE_integer("quality", _QUALITY, "Of the JPEGs, 1 to 100.")
    workers = flags.DEFINE_integer("workers", 0, "Processes; 0: one for each core.")
    quiet = flags.DEFINE_bool("quiet", False, "No progress bar.")
    shown = ("data", "out", "name", "splits", "shorter", "quality", "workers", "quiet")
    settings.list_in_help(*shown)
    of_data = settings.define_flags(Data, only=("data_dir", "max_broken"))

    def check() -> Data:
        """What the flags say by themselves."""
        for flag, low, high in (
            (shorter, 8, 10_000),
            (quality, 1, 100),
            (workers, 0, 1024),
        ):
            if not low <= flag.value <= high:
                raise ConfigError(
                    f"--{flag.name} is {flag.value}; it must be from {low} to {high}"
                )
        if re.fullmatch(r"|(tfds|arrays|parquet|bundled):.*|folder:?", what.value):
            raise ConfigError(
                f"--data is {what.value!r}; write folder:PATH, of a folder with "
                "SPLIT/CLASS/IMAGE, or the name of a set of TFDS such as imagenet2012"
            )
        places.check(out.value, "--out")
        if name.value and not re.fullmatch(r"[A-Za-z]\w*", name.value):
            raise ConfigError(
                f"--name is {name.value!r}; it must be of letters, digits and _, a "
                "letter first"
            )
        return settings.build(Data(), of_data())

    def run() -> None:
        own = check()
        from apr_jax import console
        from apr_jax.data import pack

        data = pack.described(what.value, own.data_dir, own.max_broken)
        called = re.sub(r"\W+", "_", data.name.partition(":")[0]).strip("_0123456789")
        made = pack.write(
            data,
            places.local(out.value, "--out"),
            name.value or f"{called or 'images'}_{shorter.value}",
            splits=splits.value,
            shorter=shorter.value,
            quality=quality.value,
            workers=workers.value or os.cpu_count() or 1,
            quiet=quiet.value,
        )
        packed = pack.splits_of(made)
        known = ("test", "validation", "val")
        tested = next((name for name in known if name in packed), "")
        console.say(
            f"packed: {made}; train on it with --config.data.source=tfds "
            f"--config.data.data_dir={made.parents[1]} "
            f"--config.data.name={made.parent.name} --config.data.streaming=True"
            + (f" --config.data.test_split={tested}" if tested else "")
        )

    def work(argv: Sequence[str]) -> None:
        if len(argv) > 1:
            raise app.UsageError(f"unexpected {argv[1]!r}")
        process.finish(run)

    program.run(work)


if __name__ == "__main__":
    main()
