"""Puts a finished run into the package's zoo: weights, configuration and card.

    python -m experiments.zoo RUN NAME

writes ``apr_jax/zoo/networks/NAME``, without the places of files on this machine. The
run is only read.
"""

import argparse
import dataclasses
import json
import pathlib

from apr_jax import config as config_lib
from apr_jax import process, settings
from apr_jax.console import say
from apr_jax.errors import ConfigError
from apr_jax.evaluate import classifier as classifier_lib
from apr_jax.gates import places
from apr_jax.runs import files, jsonl, weights, workdir
from apr_jax.runs import records as records_lib

# Of the settings of a record, those that name files; they say nothing about the number.
_PLACES = ("frost_dir", "data_dir", "dir")


def main() -> None:
    """Parses the command line and writes the folder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=places.argument, help="work directory")
    parser.add_argument("name", help="in the zoo")
    options = parser.parse_args()
    process.finish(lambda: add(options.run, options.name))


def add(root: pathlib.Path, name: str) -> None:
    """Writes the folder of a network.

    Raises:
        ConfigError: the directory is no run, was not measured, or a record names a
            place of this machine.
    """
    run, config = workdir.open_run(root)
    records = records_lib.latest(records_lib.read(run.results))
    if not records:
        raise ConfigError(f"{root} has no records; measure it: apr-jax card {root}")
    network = classifier_lib.from_run(root)
    target = workdir.RunDir(places.ZOO_FOLDER / name)
    target.root.mkdir(parents=True, exist_ok=True)
    weights.write(target, network.step, network.variables)
    plain = dataclasses.replace(_without_places(config), name=name)
    text = json.dumps(config_lib.to_dict(plain), indent=2)
    files.write_text(target.config, text + "\n")
    workdir.write_class_names(target, network.class_names)
    packed = target.root / f"results.jsonl{jsonl.PACKED}"
    jsonl.replace(packed, map(_portable, records))
    size = sum(path.stat().st_size for path in target.root.iterdir())
    say(f"{target.root}: {size / 1e6:.1f} MB, {len(records)} records")


def _without_places(config: config_lib.Config) -> config_lib.Config:
    """The same configuration, whose files and folders are the default ones."""
    default = {leaf.name: leaf.value for leaf in settings.leaves(config_lib.Config())}
    return settings.mapped(
        config, lambda leaf: default[leaf.name] if leaf.about.place else leaf.value
    )


def _portable(record: records_lib.Record) -> dict[str, object]:
    """A record as JSON, without places of this machine."""
    values = dataclasses.asdict(record)
    told = values["extra"].get("settings", {})
    for name in _PLACES:
        told.pop(name, None)
    if '"/' in (text := json.dumps(values)):
        raise ConfigError(f"a record names a place of this machine: {text[:200]}")
    return values


if __name__ == "__main__":
    main()
