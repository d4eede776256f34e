"""What the experiments share: command line, data, small networks, records, pictures.

An experiment is a module with ``SIZES``, ``compute`` and ``plot``, run by ``main``:

    SIZES = {"small": {"images": 2000, "epochs": 5.0}, "paper": {...}}

    def compute(lab: Lab) -> Iterator[records.Record]: ...
    def plot(records, out: pathlib.Path) -> list[pathlib.Path]: ...

    if __name__ == "__main__":
        main("cdes_hars", __doc__, SIZES, compute, plot)

``compute`` yields records as they are known, and leaves out what ``lab.done`` has. They
go to ``results/NAME/records.jsonl`` at once; ``plot`` reads nothing else and writes its
pictures beside. Networks and data sets that are made on the way stay in ``--work``, so
that a stopped experiment goes on where it was.
"""

import argparse
import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import matplotlib.figure
import ml_collections
import numpy as np
import rich.console

from apr_jax import config as config_lib
from apr_jax import data, metrics, parallel, presets, process
from apr_jax.console import say
from apr_jax.errors import ConfigError
from apr_jax.evaluate import classifier as classifier_lib
from apr_jax.report import numbers
from apr_jax.runs import files
from apr_jax.runs import records as records_lib
from apr_jax.runs.records import Record
from apr_jax.train import loop
from apr_jax.train import plan as plan_lib

RESULTS = pathlib.Path(__file__).parent / "results"
RECORDS = "records.jsonl"


@dataclasses.dataclass(frozen=True)
class Lab:
    """Where an experiment takes its data from and puts what it finds.

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
        """Of everything that is drawn."""
        return int(self.options.seed)

    def settings(self, **changes: Any) -> ml_collections.ConfigDict:
        """A copy of the configuration, changed: ``optim__epochs=3.0``."""
        return changed(self.base, **changes)

    def load(self, *splits: str) -> data.DataSet:
        """Splits of the data, "train" and "test" if none is named."""
        own = config_lib.parse(self.base.to_dict()).data
        names = {"train": own.train_split, "test": own.test_split}
        wanted = splits or ("train", "test")
        found = data.load(own, splits=[names.get(s, s) for s in wanted])
        renamed = {s: found.splits[names.get(s, s)] for s in wanted}
        return dataclasses.replace(found, splits=renamed)

    def train(
        self, name: str, settings: ml_collections.ConfigDict
    ) -> classifier_lib.Classifier:
        """Trains by the project's own loop, or takes what an earlier call trained.

        Args:
            name: of the network, a folder in ``work``.
            settings: a complete configuration.

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

    def records(
        self,
        measured: Mapping[str, metrics.Measured],
        *,
        split: str,
        settings: Mapping[str, Any],
        step: int = 0,
        extra: Mapping[str, Any] | None = None,
    ) -> list[Record]:
        """Records of some numbers.

        Args:
            measured: metric -> number; ``number`` and ``share`` make them.
            split: what they are of, such as "test" or "scr/high 12"; a later record of
                the same split and metric takes the place of an earlier one.
            settings: all that the numbers depend on; ``done`` looks for them.
            step: of the network, if there is one.
            extra: more to keep, such as an image or a curve.
        """
        config = config_lib.parse(self.base.to_dict())
        return records_lib.records_of(
            measured,
            job=f"experiments.{self.name}",
            data=config.data.name,
            split=split,
            step=step,
            config_hash=config_lib.config_hash(config),
            seed=self.seed,
            device=parallel.make_layout(config.train.devices).describe(),
            extra={**(extra or {}), "settings": {**settings, "size": self.size}},
        )

    def done(self, *, split: str, settings: Mapping[str, Any]) -> list[Record]:
        """What an earlier call recorded of a split with the same settings and data."""
        path = self.out / RECORDS
        config = config_lib.parse(self.base.to_dict())
        wanted = json.loads(json.dumps({**settings, "size": self.size}))
        return [
            record
            for record in records_lib.latest(
                records_lib.read(path) if path.exists() else []
            )
            if record.split == split
            and record.data == config.data.name
            and record.seed == self.seed
            and record.extra.get("settings") == wanted
        ]


Compute = Callable[[Lab], Iterable[Record]]
Plot = Callable[[Sequence[Record], pathlib.Path], Sequence[pathlib.Path]]


def main(
    name: str,
    doc: str | None,
    sizes: Mapping[str, Mapping[str, Any]],
    compute: Compute,
    plot: Plot,
    *,
    add_options: Callable[[argparse.ArgumentParser], None] = lambda _: None,
    arguments: Sequence[str] | None = None,
) -> None:
    """Runs an experiment as a program; see the module's documentation.

    Args:
        name: of the experiment, and of its folder of results.
        doc: the module's documentation, for ``--help``.
        sizes: "small" and "paper" -> knob -> value.
        compute: the lab -> records as they are known.
        plot: records and the folder -> pictures written.
        add_options: adds options of the experiment's own.
        arguments: instead of the command line's.
    """
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=tuple(sizes), default="small")
    parser.add_argument(
        "--set",
        default="cifar10",
        help='a TFDS name, "bundled", or arrays:FOLDER, folder:FOLDER for your own',
    )
    parser.add_argument("--data_dir", default="", help="folder of TFDS data")
    parser.add_argument("--cache_dir", default="", help="of decoded images")
    parser.add_argument("--image_size", type=int, default=32, help="of your own set")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--knob",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="another number than the size's, VALUE as JSON: "
        + ", ".join(f"{k}={v!r}" for k, v in sizes["small"].items()),
    )
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS / name)
    parser.add_argument(
        "--work", type=pathlib.Path, default=pathlib.Path("runs/experiments") / name
    )
    parser.add_argument("--plot_only", action="store_true", help="compute nothing")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    add_options(parser)
    options = parser.parse_args(arguments)

    def work() -> None:
        lab = Lab(
            name=name,
            size=options.size,
            knobs=turned(sizes[options.size], options.knob),
            base=base_of(options),
            work=options.work / options.size,
            out=options.out,
            options=options,
        )
        lab.out.mkdir(parents=True, exist_ok=True)
        path = lab.out / RECORDS
        if not options.plot_only:
            process.use_compile_cache(config_lib.parse(lab.base.to_dict()).data)
            for record in compute(lab):
                records_lib.append(path, [record])
        if not path.exists():
            raise ConfigError(
                f"{path} is not there; run this without --plot_only first"
            )
        found = records_lib.latest(records_lib.read(path))
        rich.console.Console().print(numbers.table({name: found}))
        for picture in plot(found, lab.out):
            say(f"wrote {picture}")

    process.finish(work)


def turned(knobs: Mapping[str, Any], given: Sequence[str]) -> dict[str, Any]:
    """The knobs of a size, with those that the command line sets.

    Raises:
        ConfigError: no such knob, no JSON, or a value of another type.
    """
    found = dict(knobs)
    for text in given:
        name, _, value = text.partition("=")
        if name not in knobs:
            listed = ", ".join(knobs)
            raise ConfigError(f"--knob is {text!r}; choose from {listed}")
        try:
            new = json.loads(value)
        except json.JSONDecodeError:
            new = value  # a word needs no quotes
        if isinstance(new, list):
            new = tuple(new)
        if isinstance(knobs[name], float) and type(new) is int:
            new = float(new)
        if type(new) is not type(knobs[name]):
            raise ConfigError(
                f"--knob is {text!r}; {name} must be like {knobs[name]!r}"
            )
        found[name] = new
    return found


def base_of(options: argparse.Namespace) -> ml_collections.ConfigDict:
    """The configuration that the command line's data options describe."""
    kind, _, where = options.set.partition(":")
    if kind == "bundled":
        base = presets.quickstart("standard")
    elif kind in ("arrays", "folder"):
        if not where:
            raise ConfigError(f"--set {kind}: needs a folder, {kind}:FOLDER")
        base = presets.cifar("wrn_10_1,standard,cifar10")
        name = pathlib.Path(where).name
        base.data.update(
            source=kind, name=name, data_dir=where, image_size=options.image_size
        )
    else:
        try:
            base = presets.cifar(f"wrn_10_1,standard,{kind}")
        except ValueError as error:
            raise ConfigError(f"--set: {error}") from error
        base.data.data_dir = options.data_dir
    base.seed = options.seed
    base.data.cache_dir = options.cache_dir
    base.train.tensorboard = False
    return base


def changed(
    settings: ml_collections.ConfigDict, **changes: Any
) -> ml_collections.ConfigDict:
    """A copy of a configuration with fields changed: ``optim__epochs=3.0``."""
    copy = ml_collections.ConfigDict(settings.to_dict())
    copy.update_from_flattened_dict(
        {field.replace("__", "."): value for field, value in changes.items()}
    )
    return copy


def short(
    settings: ml_collections.ConfigDict, *, model: str, epochs: float, method: str
) -> ml_collections.ConfigDict:
    """A configuration for a short training: one cycle of the learning rate."""
    return changed(
        settings,
        model__name=model,
        augment__method=method,
        optim__epochs=float(epochs),
        optim__schedule="cyclic",
        optim__peak=0.3,
        optim__learning_rate=0.2,
        checkpoint__every_steps=500,
    )


def balanced(split: data.ArraySplit, count: int, *, seed: int = 0) -> data.ArraySplit:
    """``count`` examples of a split, equally many of each class as far as it goes.

    Drawn by the seed; in the order of the split. All of them if ``count`` is 0.
    """
    labels = np.asarray(split.labels)
    if count == 0 or count >= len(labels):
        return data.ArraySplit(np.asarray(split.images), labels)
    rng = np.random.default_rng([0xBA1, seed])
    order = rng.permutation(len(labels))
    # The rank of each example among those of its class decides who comes first.
    rank = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        mine = order[labels[order] == label]
        rank[mine] = np.arange(len(mine))
    chosen = np.sort(order[np.argsort(rank[order], kind="stable")][:count])
    return data.ArraySplit(np.asarray(split.images)[chosen], labels[chosen])


def logits_of(
    classifier: classifier_lib.Classifier,
    images: np.ndarray,
    labels: np.ndarray | None = None,
) -> classifier_lib.Outputs:
    """Logits, features and labels of images: uint8, or floats that count as pixels.

    Floats may leave [0, 1], as filtered images do.
    """
    layout = parallel.make_layout(classifier.config.train.devices)
    count = len(images)
    labels = np.zeros(count, np.int32) if labels is None else np.asarray(labels)
    batch = min(classifier.config.eval.batch_size, max(count, 1))
    batch = max(layout.count, batch - batch % layout.count)
    gather = parallel.make_gather(classifier.predict, layout)
    variables = parallel.replicate(classifier.variables, layout)
    found = []
    for start in range(0, count, batch):
        rows = images[start : start + batch]
        padded = np.zeros((batch, *images.shape[1:]), images.dtype)
        padded[: len(rows)] = rows
        both = gather(variables, parallel.split_batch(padded, layout))
        found.append([part[: len(rows)] for part in both])
    logits, features = (np.concatenate(part) for part in zip(*found, strict=True))
    return classifier_lib.Outputs(logits, features, labels)


def number(value: float, n: int, *, unit: str = "1") -> metrics.Measured:
    """A number without an interval."""
    return metrics.Measured(float(value), None, None, unit, n)


def accuracy(outputs: classifier_lib.Outputs) -> metrics.Measured:
    """The share of right answers."""
    right = outputs.logits.argmax(1) == outputs.labels
    return metrics.wilson(int(right.sum()), len(right))


def find(records: Iterable[Record], **fields: Any) -> Iterator[Record]:
    """Records with these fields; those not of ``Record`` are looked for in settings."""
    known = {field.name for field in dataclasses.fields(Record)}
    for record in records:
        values = record.extra.get("settings", {})
        if all(
            (getattr(record, k) if k in known else values.get(k)) == v
            for k, v in fields.items()
        ):
            yield record


def save(figure: matplotlib.figure.Figure, target: pathlib.Path) -> pathlib.Path:
    """Writes a figure as a small PNG and returns its place."""
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=100, bbox_inches="tight", pil_kwargs={"optimize": True})
    return target
