"""The frame of the experiments: command line, data, small networks, records.

An experiment is a module, run by ``main``, with

    NAME = "cdes_hars"  # of its folder of results
    SIZES = sizes(images=(2000, 0), epochs=(5.0, 200.0))  # small, as published
    OPTIONS = {"--only": {"nargs": "+"}}  # flags of its own; may be left out

    def compute(lab: Lab) -> Iterator[Record]: ...
    def plot(records) -> drawing.Figures: ...

    if __name__ == "__main__":
        main(__name__)

``compute`` yields records as they are known, without the parts that are done. They go
to ``results/NAME/records.jsonl`` at once; ``plot`` reads nothing else, and its figures
are written beside. Networks and sets stay in ``--work``: a stopped experiment goes on
where it was.
"""

import argparse
import dataclasses
import hashlib
import json
import pathlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np
import rich.console

from apr_jax import config as config_lib
from apr_jax import data, metrics, parallel, process, tuning
from apr_jax.console import say
from apr_jax.errors import ConfigError
from apr_jax.evaluate import classifier as classifier_lib
from apr_jax.evaluate import ood_sets
from apr_jax.gates import places
from apr_jax.report import numbers
from apr_jax.runs import files
from apr_jax.runs import records as records_lib
from apr_jax.runs.records import Record
from apr_jax.train import loop
from apr_jax.train import plan as plan_lib
from experiments import drawing, lab_options, measures, recipes

RESULTS = pathlib.Path(__file__).parent / "results"
RECORDS = "records.jsonl"


@dataclasses.dataclass(frozen=True)
class Lab:
    """The place where an experiment finds its data and puts its numbers.

    Attributes:
        name: of the experiment.
        size: "small" (minutes on two cores) or "paper" (as published).
        knobs: what the experiment's ``SIZES`` holds for that size.
        base: a complete configuration that names the data.
        work: networks and data sets made on the way.
        out: records and pictures.
        options: the parsed command line, with what the experiment added to it.
    """

    name: str
    size: str
    knobs: Mapping[str, Any]
    base: ml_collections.ConfigDict
    work: pathlib.Path
    out: pathlib.Path
    options: argparse.Namespace

    def __getitem__(self, knob: str) -> Any:
        """The value of a knob at this size."""
        return self.knobs[knob]

    @property
    def seed(self) -> int:
        """The seed of everything that is drawn."""
        return int(self.options.seed)

    @property
    def config(self) -> config_lib.Config:
        """The configuration that names the data, checked."""
        return config_lib.parse(self.base.to_dict())

    def settings(self, **changes: Any) -> ml_collections.ConfigDict:
        """A copy of the configuration, changed: ``optim__epochs=3.0``."""
        return recipes.changed(self.base, **changes)

    def short(
        self,
        settings: ml_collections.ConfigDict | None = None,
        *,
        method: str = "standard",
        **changes: Any,
    ) -> ml_collections.ConfigDict:
        """A short training of the knobs "model" and "epochs", with fields changed."""
        base = self.base if settings is None else settings
        own = {"model": self["model"], "epochs": self["epochs"], "method": method}
        return recipes.changed(recipes.short(base, **own), **changes)

    def load(self, *splits: str) -> data.DataSet:
        """Splits of the data, "train" and "test" if none is named."""
        own = self.config.data
        names = {"train": own.train_split, "test": own.test_split}
        wanted = splits or ("train", "test")
        found = data.load(own, splits=[names.get(s, s) for s in wanted])
        renamed = {s: found.splits[names.get(s, s)] for s in wanted}
        return dataclasses.replace(found, splits=renamed)

    def some(self, found: data.DataSet, **knobs: str) -> dict[str, data.ArraySplit]:
        """Examples of splits, as many as knobs say, drawn by the seed: split="knob"."""
        return {
            split: measures.balanced(found.splits[split], self[knob], seed=self.seed)
            for split, knob in knobs.items()
        }

    def tested(self, knob: str) -> data.ArraySplit:
        """Test examples, as many as a knob says, the same ones for every seed."""
        return measures.balanced(self.load("test").splits["test"], self[knob])

    def out_sets(self, *usual: str) -> tuple[str, ...]:
        """The sets that ``--out_set`` names; the usual ones where the data are TFDS."""
        given = self.options.out_set
        if given is None:
            return usual if self.base.data.source == "tfds" else ()
        return tuple(filter(None, [given] if isinstance(given, str) else given))

    def unknown(self, specs: Sequence[str], count: int) -> dict[str, np.ndarray]:
        """Name -> ``count`` uint8 images of each set, name=source:where."""
        found = {}
        for name, where in ood_sets.parse(specs).items():
            opened = ood_sets.open_set(
                name,
                *where,
                self.config.data,
                examples=count,
                seed=self.seed,
                tfds_dir=self.options.data_dir,
            )
            rows = [batch.image[batch.mask] for batch in opened.batches(500)]
            found[name] = np.concatenate(rows)
        return found

    def train(
        self, name: str, settings: ml_collections.ConfigDict
    ) -> classifier_lib.Classifier:
        """Trains by the project's own loop, or takes what an earlier call trained.

        The name is that of a folder in ``work``, the configuration a complete one.

        Raises:
            SystemExit: a signal stopped it; the state is saved.
        """
        config = config_lib.parse(settings.to_dict())
        root = self.work / name
        plan = plan_lib.plan(config, root)
        trained = loop.train(plan, quiet=self.options.quiet)
        if trained.stopped_by is not None:
            say(f"{trained.stopped_by}: the same command goes on from there")
            raise SystemExit(1)
        return classifier_lib.make(
            config, trained.state.variables, plan.class_names, step=trained.step
        )

    def arrays(
        self, name: str, class_names: Sequence[str], **splits: data.ArraySplit
    ) -> ml_collections.ConfigDict:
        """Writes a set of images, and returns the configuration that reads it.

        Args:
            name: of the set, a folder in ``work``; one that holds the same images
                already is left alone, so that what was trained on it stays good.
            class_names: in the order of the labels.
            splits: ``train=`` and ``test=``: uint8 images and integer labels.
        """
        folder = self.work / "sets" / name
        folder.mkdir(parents=True, exist_ok=True)
        for split, (images, labels) in splits.items():
            digest = hashlib.sha256(np.ascontiguousarray(images).data)
            digest.update(np.ascontiguousarray(labels, np.int32).data)
            mark = folder / f"{split}.sha256"
            target = folder / f"{split}.npz"
            if target.exists() and mark.exists():
                if mark.read_text() == digest.hexdigest():
                    continue
                raise ConfigError(
                    f"{target} holds other images than this experiment makes now; "
                    "give another --work, or remove it with what was trained on it"
                )
            files.write_arrays(
                target, {"images": images, "labels": np.asarray(labels, np.int32)}
            )
            mark.write_text(digest.hexdigest())
        (folder / "class_names.txt").write_text("".join(f"{c}\n" for c in class_names))
        return self.settings(
            name=f"{self.name}_{name}",
            data__source="arrays",
            data__name=name,
            data__data_dir=str(folder),
            data__train_split="train",
            data__test_split="test",
            data__shifted_splits=(),
        )

    def part(
        self, split: str, *, without: Iterable[str] = (), **settings: Any
    ) -> "Part":
        """A part of the experiment.

        Args:
            split: what its numbers are of, such as "test" or "scr/high 12".
            without: knobs that they don't depend on.
            settings: what they depend on beside the knobs.
        """
        knobs = {name: self[name] for name in self.knobs if name not in without}
        return Part(self, split, {**knobs, **settings, "size": self.size})


@dataclasses.dataclass(frozen=True)
class Part:
    """Numbers of one split, and all that they depend on.

    A later record of the same split and metric takes the place of an earlier one.
    """

    lab: Lab
    split: str
    settings: Mapping[str, Any]

    @property
    def done(self) -> list[Record]:
        """The records of an earlier call with the same settings and data."""
        path = self.lab.out / RECORDS
        found = records_lib.read(path) if path.exists() else []
        wanted = json.loads(json.dumps(self.settings))
        return [
            record
            for record in records_lib.latest(found)
            if record.split == self.split
            and record.data == self.lab.config.data.name
            and record.seed == self.lab.seed
            and record.extra.get("settings") == wanted
        ]

    def records(
        self,
        measured: Mapping[str, metrics.Measured],
        network: Any = None,
        **extra: Any,
    ) -> list[Record]:
        """Records of some numbers.

        Args:
            measured: metric -> number; ``number`` and ``share`` make them.
            network: what was measured, whose ``step`` is kept, if there is one.
            extra: more to keep, such as an image or a curve.
        """
        config = self.lab.config
        return records_lib.records_of(
            measured,
            job=f"experiments.{self.lab.name}",
            data=config.data.name,
            split=self.split,
            step=0 if network is None else network.step,
            config_hash=config_lib.config_hash(config),
            seed=self.lab.seed,
            device=parallel.make_layout(config.train.devices).describe(),
            extra={**extra, "settings": self.settings},
        )


OPTIONS: dict[str, dict[str, Any]] = {
    "--set": {
        "default": "cifar10",
        "help": 'a TFDS name, "bundled", or {arrays,folder,parquet}:FOLDER',
    },
    "--data_dir": {"default": "", "help": "folder of TFDS data"},
    "--cache_dir": {"default": "", "help": "of decoded images"},
    "--image_size": {"type": int, "default": 32, "help": "of your own set"},
    "--seed": {"type": int, "default": 0},
    "--plot_only": {"action": "store_true", "help": "compute nothing"},
    "--quiet": {"action": "store_true", "help": "no progress bar"},
}


def main(module: str, arguments: Sequence[str] | None = None) -> None:
    """Runs an experiment as a program; see the module's documentation.

    Args:
        module: ``__name__`` of the experiment.
        arguments: instead of the command line's.
    """
    own = sys.modules[module]
    name, sizes = own.NAME, own.SIZES
    parser = argparse.ArgumentParser(
        description=own.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    knobs = ", ".join(f"{k}={v!r}" for k, v in sizes["small"].items())
    own_options: dict[str, dict[str, Any]] = {
        "--size": {"choices": tuple(sizes), "default": "small"},
        "--knob": {
            "action": "append",
            "default": [],
            "metavar": "NAME=VALUE",
            "help": f"another number than the size's, VALUE as JSON: {knobs}",
        },
        "--out": {
            "type": places.argument,
            "help": "default: results/NAME, behind it data, size, seed if unusual",
        },
        "--work": networks_in(name),
    }
    for flag, option in (OPTIONS | own_options | getattr(own, "OPTIONS", {})).items():
        parser.add_argument(flag, **option)
    options = parser.parse_args(arguments)
    if options.out is None:
        options.out = RESULTS / "_".join([name, *lab_options.unusual(options, parser)])

    def work() -> None:
        lab = Lab(
            name=name,
            size=options.size,
            knobs=lab_options.turned(sizes[options.size], options.knob),
            base=lab_options.base_of(options),
            work=options.work / options.size,
            out=options.out,
            options=options,
        )
        lab.out.mkdir(parents=True, exist_ok=True)
        path = lab.out / RECORDS
        if not options.plot_only:
            tuning.use_onednn()
            process.use_compile_cache(lab.config.data)
            for record in own.compute(lab):
                records_lib.append(path, [record])
        if not path.exists():
            raise ConfigError(
                f"{path} is not there; run this without --plot_only first"
            )
        found = records_lib.latest(records_lib.read(path))
        rich.console.Console().print(numbers.table({name: found}))
        for picture, figure in own.plot(found).items():
            say(f"wrote {drawing.save(figure, lab.out / f'{picture}.png')}")

    process.finish(work)


def sizes(**knobs: tuple[Any, Any]) -> dict[str, dict[str, Any]]:
    """The ``SIZES`` of an experiment: knob=(in minutes, as published)."""
    return {
        size: {name: values[i] for name, values in knobs.items()}
        for i, size in enumerate(("small", "paper"))
    }


def networks_in(name: str) -> dict[str, Any]:
    """An option that is a folder of networks and sets under ``runs/experiments``."""
    default = pathlib.Path("runs/experiments") / name
    return {"type": places.argument, "default": default, "help": "networks and sets"}
