"""The runs that fill a table, and what they cost."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import ml_collections

from apr_jax import augment, models
from apr_jax import config as config_lib
from apr_jax.models import flops
from experiments import recipes
from experiments.tables import catalogue
from experiments.tables.rows import canonical, row_of

# A training step costs a pass forward and two of its size backward.
_PASSES = 3


@dataclasses.dataclass(frozen=True)
class Run:
    """One training with its measurements, in a work directory of its own."""

    row: str
    column: str  # "SET NETWORK"
    seed: int
    settings: ml_collections.ConfigDict

    @property
    def name(self) -> str:
        """The name of the work directory."""
        return f"{self.column.replace(' ', '_')}_{self.row}_s{self.seed}"

    def multiply_adds(self, train_size: int, classes: int) -> float:
        """The multiply-adds of the training alone."""
        config = self.settings
        name, side = config.model.name, config.data.image_size
        once = flops.multiply_adds(name, num_classes=classes, size=side)
        return passes(config) * once * train_size * config.optim.epochs


def passes(config: ml_collections.ConfigDict | config_lib.Config) -> float:
    """The number of passes forward that a training image costs."""
    method = augment.get_method(config.augment.method)
    if method.loss.projects:
        share = config.contrast.linear_share
        return method.shifts * (2 * _PASSES * (1 - share) + share)
    attacks = {"none": 0, "fgsm": 1, "pgd": config.adversary.steps}
    return _PASSES * (1 + attacks[config.adversary.attack]) * method.views


def runs_of(
    table: catalogue.Table,
    budget: str,
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    seeds: int,
    changes: dict[str, Any],
) -> list[Run]:
    """The runs that fill a table, in the order in which they are wanted.

    Args:
        table: which.
        budget: one of ``catalogue.BUDGETS``.
        rows: names that ``row_of`` knows; what is named twice, in whatever spelling, is
            there once.
        columns: "SET NETWORK"; any network that ``apr_jax.models`` builds.
        seeds: runs of each cell, from seed 0.
        changes: dotted fields for every run, such as where the data are; ROW:FIELD
            for the runs of one row. ``data.extra_dirs`` is for rows that mix.

    Raises:
        ValueError: an unknown row or network, a set that a row or table isn't for, a
            row that mixes in images but isn't told where they are, or a change of what
            tells runs apart, or for a row that isn't there.
    """
    rows = list(dict.fromkeys(map(canonical, rows)))
    columns = list(dict.fromkeys(columns))
    for row in rows:
        if run := row_of(row).run:
            raise ValueError(f"row {row!r} has no runs of its own; name {run!r}")
        if not has_images(row, changes):
            raise ValueError(
                f"row {row!r} mixes in extra images; say where their folders are: "
                f"--set_field '{row}:data.extra_dirs=[\"FOLDER\"]'"
            )
    _check(rows, columns, seeds, changes)
    small, found = budget == "small", list[Run]()
    for seed, column, name in itertools.product(range(seeds), columns, rows):
        row, (data, _, network) = row_of(name), column.partition(" ")
        settings = recipes.changed(table.settings(data, network, name, budget))
        settings.seed = seed
        own = table.changes | (table.small if small else {})
        own |= row.changes | (row.small if small else {})
        settings.update_from_flattened_dict(own | changes_of(name, changes))
        run = Run(name, column, seed, settings)
        settings.name = run.name
        found.append(run)
    return found


def _check(
    rows: Sequence[str], columns: Sequence[str], seeds: int, changes: dict[str, Any]
) -> None:
    if seeds < 1:
        raise ValueError(f"--seeds is {seeds}; it must be 1 or more")
    for column in columns:
        try:
            models.minimum_size(column.partition(" ")[2])
        except ValueError as error:
            raise ValueError(
                f"--columns has {column!r}; it must be 'SET NETWORK': {error}"
            ) from error
        for row in rows:
            if not has_network(row, [column]):
                raise ValueError(
                    f"row {row!r} is the network {row_of(row).changes['model.name']}, "
                    f"which is none for the column {column!r}"
                )
    for name in changes:
        target, colon, field = name.rpartition(":")
        if field in _OWN:
            raise ValueError(
                f"--set_field has {name!r}, which tells runs apart; use {_OWN[field]}"
            )
        if colon and _target(name) not in rows:
            raise ValueError(
                f"--set_field has {name!r}, but {target!r} isn't among the rows: "
                f"{', '.join(rows)}"
            )


# Fields that rows, columns and seeds set -> how to choose them.
_OWN = {"name": "--rows and --columns", "seed": "--seeds", "augment.method": "--rows"}


def _target(name: str) -> str:
    """The row of a ROW:FIELD.

    Raises:
        ValueError: there is no such row.
    """
    try:
        return canonical(name.rpartition(":")[0])
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def changes_of(row: str, changes: dict[str, Any]) -> dict[str, Any]:
    """The changes of ``runs_of`` that are for a row, by field."""
    everywhere, own = {}, {}
    for name, value in changes.items():
        _, colon, field = name.rpartition(":")
        if colon and _target(name) == canonical(row):
            own[field] = value
        elif not colon and (field != "data.extra_dirs" or row_of(row).mixes):
            everywhere[field] = value
    return {**everywhere, **own}


def has_images(row: str, changes: dict[str, Any]) -> bool:
    """Whether a row mixes in no images, or is told where they are."""
    folders = changes_of(row, changes).get("data.extra_dirs")
    return not row_of(row).mixes or bool(folders)


def has_network(row: str, columns: Sequence[str]) -> bool:
    """Whether a row that is a network itself is a kind of that of each column."""
    own = row_of(row).changes.get("model.name")
    return own is None or all(own.startswith(c.partition(" ")[2]) for c in columns)
