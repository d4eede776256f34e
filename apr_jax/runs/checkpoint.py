"""Saved states of a run: atomic, asynchronous, checked when they are read back.

The only place with Orbax. A checkpoint holds the state as NumPy arrays (one copy,
whatever the layout it came from), and a digest of them; one that can't be read, or
whose digest doesn't match, is put aside and the one before it is used.
"""

import contextlib
import errno
import hashlib
import logging
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from apr_jax.errors import CheckpointError

_log = logging.getLogger(__name__)


class _OwnerError(Exception):
    """A good checkpoint, of something else."""


def digest(tree: Any) -> str:
    """Returns a SHA-256 over names, shapes, types and values of a tree's leaves."""
    total = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.ascontiguousarray(leaf)
        name = jax.tree_util.keystr(path)
        total.update(f"{name} {array.shape} {array.dtype}".encode())
        total.update(array.tobytes())
    return total.hexdigest()


class Checkpoints:
    """The checkpoints of one work directory."""

    def __init__(self, directory: pathlib.Path, *, keep: int, owner: str) -> None:
        """Opens or makes ``directory``; the newest ``keep`` states stay.

        ``owner`` names what the states belong to, such as a configuration's hash;
        states of another owner are never restored.
        """
        self._directory = directory.absolute()
        self._owner = owner
        self._keep = keep
        self._manager = self._open()

    def _open(self) -> ocp.CheckpointManager:
        return ocp.CheckpointManager(
            self._directory,
            options=ocp.CheckpointManagerOptions(
                max_to_keep=self._keep,
                enable_async_checkpointing=True,
                cleanup_tmp_directories=True,
            ),
            item_names=("state", "about"),
        )

    @property
    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, oldest first."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, state: Any) -> None:
        """Saves a tree of NumPy arrays in the background.

        Waits only for the save before this one, and raises what went wrong there.

        Raises:
            CheckpointError: the disk is full or can't be written.
        """
        if step in self._manager.all_steps():
            return
        about = {"step": step, "owner": self._owner, "digest": digest(state)}
        args = ocp.args.Composite(
            state=ocp.args.StandardSave(state), about=ocp.args.JsonSave(about)
        )
        with self._explained():
            self._manager.save(step, args=args)

    def rewind(self, step: int, state: Any) -> None:
        """Makes the state of ``step`` the newest checkpoint; later ones go.

        Raises:
            CheckpointError: the disk is full or can't be written.
        """
        # Orbax saves no step before the newest.
        self.forget_after(step)
        self.save(step, state)
        self.wait()

    def forget_after(self, step: int) -> None:
        """Removes the checkpoints of later steps."""
        self.wait()
        for later in [s for s in self.steps if s > step]:
            self._manager.delete(later)

    def wait(self) -> None:
        """Returns when the last save is on the disk.

        Raises:
            CheckpointError: it could not be written.
        """
        with self._explained():
            self._manager.wait_until_finished()

    def restore(self, like: Any) -> tuple[int, Any] | None:
        """Returns (step, state) of the newest good checkpoint, or None.

        Args:
            like: a tree of the same structure, shapes and types.

        A damaged checkpoint is renamed to ``damaged-STEP`` with a warning.

        Raises:
            CheckpointError: there are checkpoints, and every one is damaged; or the
                newest belongs to another owner.
        """
        found = self.steps
        for step in reversed(found):
            try:
                return step, self._read(step, like)
            except _OwnerError:
                raise CheckpointError(
                    f"the checkpoint of step {step} in {self._directory} belongs to a "
                    "run of another configuration; use another work directory"
                ) from None
            except Exception as error:
                reason = str(error).strip().split("\n")[0][:300]
                self._put_aside(step)
                _log.warning(
                    "the checkpoint of step %d is damaged (%s: %s); "
                    "it is now %s, and the one before it is used",
                    step,
                    type(error).__name__,
                    reason,
                    self._directory / f"damaged-{step}",
                )
        if found:
            raise CheckpointError(
                f"none of the checkpoints in {self._directory} can be read "
                f"(steps {', '.join(map(str, found))})"
            )
        return None

    def reached_preemption(self, step: int) -> bool:
        """Whether the processes of a run have agreed to stop after ``step``."""
        return self._manager.reached_preemption(step)

    def close(self) -> None:
        """Waits for the last save and frees what the manager holds."""
        self.wait()
        self._manager.close()

    def _read(self, step: int, like: Any) -> Any:
        restore, args = self._manager.restore, ocp.args
        about = restore(step, args=args.Composite(about=args.JsonRestore()))["about"]
        if about["owner"] != self._owner:
            raise _OwnerError
        wanted = args.Composite(state=args.StandardRestore(like))
        state = jax.tree.map(np.asarray, restore(step, args=wanted)["state"])
        if digest(state) != about["digest"]:
            raise CheckpointError("its values are not those that were saved")
        return state

    def _put_aside(self, step: int) -> None:
        """Renames a damaged checkpoint, and forgets it."""
        if jax.process_index() == 0:
            aside = self._directory / f"damaged-{step}"
            shutil.rmtree(aside, ignore_errors=True)
            (self._directory / str(step)).rename(aside)
        self._manager.reload()

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Says where a state could not be saved, and what is there."""
        try:
            yield
        except Exception as error:
            number = getattr(error, "errno", None)
            full = number == errno.ENOSPC or "No space left" in str(error)
            what = "the disk is full" if full else str(error).strip().split("\n")[0]
            raise CheckpointError(
                f"could not save a checkpoint in {self._directory}: {what}; complete "
                f"checkpoints there: {', '.join(map(str, self.steps)) or 'none'}"
            ) from error
