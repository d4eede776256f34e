"""A run's scalars at Weights & Biases (https://wandb.ai), where it is installed."""

import importlib.util
import json
import logging
import pathlib
import secrets
import tempfile
from typing import Any

from apr_jax import config as config_lib
from apr_jax.errors import ConfigError
from apr_jax.runs import files
from apr_jax.runs.workdir import RunDir

_LOG = logging.getLogger(__name__)


def check(config: config_lib.Config) -> None:
    """Raises ConfigError where ``train.wandb`` is set, and wandb not installed."""
    if config.train.wandb and importlib.util.find_spec("wandb") is None:
        raise ConfigError(
            f"train.wandb is {config.train.wandb!r}, and wandb is not installed: pip "
            'install wandb, or leave train.wandb at ""'
        )


def opened(run: RunDir, config: config_lib.Config) -> "list[WandbRun]":
    """The run at Weights & Biases, if ``train.wandb`` names a project."""
    return [WandbRun(run, config)] if config.train.wandb else []


class WandbRun:
    """A run at Weights & Biases, which a later start of the same run goes on with.

    Its id is in ``wandb.json`` of the work directory, its own files are in ``wandb``
    there. How it works, such as offline, is said by the variables of the environment
    that wandb has (WANDB_MODE, WANDB_ENTITY, ...).

    Attributes:
        where: its address, or offline its folder.
    """

    def __init__(self, run: RunDir, config: config_lib.Config) -> None:
        """Opens the run, or makes it.

        Raises:
            ConfigError: wandb refuses; says why.
            DataError: ``wandb.json`` is damaged.
        """
        import wandb

        self._error, self._failed = wandb.Error, False
        try:
            self._run = wandb.init(
                project=config.train.wandb,
                id=_known_id(run),
                resume="allow",
                reinit="create_new",  # seeds that train together have a run each
                name=config.name,
                dir=_folder(run),
                config=config_lib.to_dict(config),
                settings=wandb.Settings(console="off", silent=True),
            )
        except wandb.Error as error:
            why = " ".join(str(error).split())
            raise ConfigError(
                f"train.wandb is {config.train.wandb!r}, and wandb says: {why}"
            ) from error
        # A run that goes on from a checkpoint repeats steps, to the same numbers;
        # wandb's own steps can only rise.
        self._run.define_metric("*", step_metric="step")
        self.where = str(self._run.dir if self._run.offline else self._run.url)

    def scalars(self, values: dict[str, float], *, step: int, seconds: float) -> None:
        """Adds scalars of a step; where wandb fails, it is said and left alone."""
        if self._failed:
            return
        row: dict[str, Any] = {"step": step, "_timestamp": seconds, **values}
        try:
            self._run.log(row)
        except self._error as error:
            self._failed = True
            _LOG.warning("nothing more goes to Weights & Biases: %s", error)

    def close(self) -> None:
        """Waits until everything is there, or offline in files."""
        self._run.finish()


def _folder(run: RunDir) -> pathlib.Path:
    """Where wandb keeps its own files; of a run in a store, a folder that goes."""
    if isinstance(run.root, pathlib.Path):
        return run.root
    return pathlib.Path(tempfile.mkdtemp(prefix="apr-jax-wandb-"))


def _known_id(run: RunDir) -> str:
    """The id that a work directory has at Weights & Biases; drawn the first time."""
    if not run.wandb.exists():
        files.write_text(run.wandb, json.dumps({"id": secrets.token_hex(4)}) + "\n")
    with files.reading(run.wandb):
        return str(files.read_json(run.wandb)["id"])
