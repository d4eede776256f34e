"""Saved states of a run: atomic, asynchronous, checked when they are read back.

The only place with Orbax; what is in a store it has by copies (``checkpoint_store``). A
checkpoint holds the state as NumPy arrays (one copy, whatever the layout it came from),
and a digest of them. One whose files are not in their format, or whose digest doesn't
match, is damaged: training puts it aside and goes on from the one before, a reader
leaves it where it is. All else that keeps a file from being read is an error that names
the file.
"""

import concurrent.futures
import contextlib
import errno
import hashlib
import logging
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

import absl.logging
import jax
import numpy as np
import orbax.checkpoint as ocp

from apr_jax.errors import CheckpointError
from apr_jax.gates import stores
from apr_jax.runs import checkpoint_reading as reading
from apr_jax.runs import checkpoint_store

_log = logging.getLogger(__name__)


class _Damaged(Exception):
    """The files of a checkpoint are not as they were written."""


def digest(tree: Any) -> str:
    """Returns a SHA-256 over names, shapes, types and values of a tree's leaves."""
    total = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.ascontiguousarray(leaf)
        name = jax.tree_util.keystr(path)
        total.update(f"{name} {array.shape} {array.dtype}".encode())
        total.update(array.tobytes())
    return total.hexdigest()


class Reader:
    """The checkpoints of one work directory, to be read alone.

    Nothing there is made, renamed or removed, and no lock is needed: training may go on
    beside it.
    """

    _mirror: checkpoint_store.Mirror | None = None

    def __init__(self, directory: stores.Place, *, owner: str) -> None:
        """Opens ``directory``, which needn't be there.

        ``owner`` names what the states belong to, such as a configuration's hash;
        states of another owner are never restored.
        """
        self._where = directory.absolute()
        if isinstance(directory, stores.StorePath):
            self._mirror = checkpoint_store.Mirror(directory)
            self._directory = self._mirror.folder
        else:
            self._directory = directory.absolute()
        self._owner = owner
        try:
            self._manager = reading.beside_a_writer(self._open)
        except OSError as error:
            raise CheckpointError(
                f"can't open {self._where}: {error.strerror or error}"
            ) from error

    def _open(self) -> ocp.CheckpointManager:
        # Orbax warns of each thing that a reader doesn't do.
        level = absl.logging.get_verbosity()
        absl.logging.set_verbosity(absl.logging.ERROR)
        try:
            return self._manage(read_only=True)
        finally:
            absl.logging.set_verbosity(level)

    def _manage(self, **how: Any) -> ocp.CheckpointManager:
        if self._mirror:  # the copies here are this process's alone
            own = jax.process_index()
            how["create"] = False
            how["multiprocessing_options"] = ocp.options.MultiprocessingOptions(
                primary_host=own,
                active_processes={own},
                barrier_sync_key_prefix=f"process-{own}",
            )
        options = ocp.CheckpointManagerOptions(**how)
        return ocp.CheckpointManager(
            self._directory, options=options, item_names=("state", "about")
        )

    @property
    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, oldest first."""
        if self._mirror:
            return self._mirror.steps()
        return sorted(self._manager.all_steps())

    def restore(self, like: Any) -> tuple[int, Any] | None:
        """Returns (step, state) of the newest good checkpoint, or None.

        Args:
            like: a tree of the same structure, shapes and types.

        Of a damaged checkpoint a warning tells; the one before it is taken.

        Raises:
            CheckpointError: there are checkpoints, and every one is damaged; one can't
                be read, is of another owner, or of other shapes.
        """
        damaged: dict[int, str] = {}
        while (newest := self._newest(damaged)) is not None:
            try:
                state = self._read(newest, like)
            except _Damaged as error:
                reading.beside_a_writer(self._manager.reload)
                # A writer that removes one has a newer one.
                left = [step for step in self.steps if step not in damaged]
                if left and left[-1] == newest:
                    damaged[newest] = str(error)
                continue
            if damaged:
                self._found_damaged(damaged, newest)
            return newest, state
        aside = {int(p.name[8:]) for p in self._where.glob("damaged-[0-9]*")}
        if aside := aside | set(damaged):
            raise CheckpointError(
                f"none of the checkpoints in {self._where} can be read: those of "
                f"steps {', '.join(map(str, sorted(aside)))} are damaged. To start "
                "anew remove that folder, or use another work directory"
            )
        return None

    def _newest(self, damaged: Mapping[int, str]) -> int | None:
        """The newest step that isn't known to be damaged, None if there is none.

        One look can miss all of them: the next one wasn't there yet when its place was
        looked at, and the old one no longer at its own.
        """
        for _ in range(2):
            if left := [step for step in self.steps if step not in damaged]:
                return left[-1]
            reading.beside_a_writer(self._manager.reload)
        return None

    def _found_damaged(self, damaged: Mapping[int, str], used: int) -> None:
        """Says which checkpoints are damaged, and which one is used instead."""
        for step, reason in damaged.items():
            _log.warning(
                "the checkpoint of step %d is damaged (%s); that of step %d in %s, the "
                "one before, is used",
                step,
                reason,
                used,
                self._where,
            )

    def _read(self, step: int, like: Any) -> Any:
        """Reads a state and checks it.

        Raises:
            _Damaged: every file can be read, and no state can be made of them.
            CheckpointError: all else.
        """
        reading.pass_over_late_callbacks()
        try:
            try:
                state = self._load(step, like)
            except CheckpointError:
                raise
            except Exception as error:
                self._check_files(step, error)
                state = self._load(step, like)  # the disk may have failed for once
        except CheckpointError:
            raise
        except Exception as error:
            self._check_files(step, error)
            self._check_tree(step, like)
            if isinstance(error, _Damaged):
                raise
            reason = str(error).strip().split("\n")[0][:300]
            raise _Damaged(f"{type(error).__name__}: {reason}") from error
        self._check_shapes(step, state, like)
        return state

    def _load(self, step: int, like: Any) -> Any:
        if self._mirror:
            self._mirror.fetch(step)
            self._manager.reload()
        restore, args = self._manager.restore, ocp.args
        wanted = args.Composite(about=args.JsonRestore())
        about = restore(step, args=wanted)["about"]
        if about["owner"] != self._owner:
            raise CheckpointError(
                f"the checkpoint of step {step} in {self._where} belongs to a "
                "run of another configuration; use another work directory"
            )
        wanted = args.Composite(state=args.StandardRestore(like))
        state = jax.tree.map(np.asarray, restore(step, args=wanted)["state"])
        if digest(state) != about["digest"]:
            raise _Damaged("its values are not those that were saved")
        return state

    def _check_files(self, step: int, error: Exception) -> None:
        """Raises CheckpointError where a file, or memory, keeps a state from us."""
        folder = self._directory / str(step)
        try:
            reading.read_through(folder)
        except FileNotFoundError:
            pass  # removed by the writer, or by what damaged it
        except OSError as denied:
            raise CheckpointError(
                f"can't read {denied.filename}: {denied.strerror}"
            ) from denied
        named = self._where / str(step)
        if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
            raise CheckpointError(f"can't read {named}: {error}") from error
        if isinstance(error, MemoryError):
            raise CheckpointError(f"{named} doesn't fit into memory") from error

    def _check_tree(self, step: int, like: Any) -> None:
        """Raises CheckpointError for a state that is whole, and of other leaves."""
        try:
            args = ocp.args.Composite(state=ocp.args.StandardRestore())
            whole = self._manager.restore(step, args=args)["state"]
        except Exception as error:
            _log.debug("nor can it be read without its structure: %s", error)
        else:
            self._check_shapes(step, whole, like)

    def _check_shapes(self, step: int, state: Any, like: Any) -> None:
        """Raises CheckpointError for a state of other leaves than ``like``."""
        there, here = reading.shapes(state), reading.shapes(like)
        if there == here:
            return
        name = min(
            name for name in {*there, *here} if there.get(name) != here.get(name)
        )
        raise CheckpointError(
            f"the checkpoint of step {step} in {self._where} holds another state: "
            f"{name} is {there.get(name, 'not there')}, here "
            f"{here.get(name, 'there is none')}"
        )

    def close(self) -> None:
        """Frees what the manager holds."""
        self._manager.close()


class Checkpoints(Reader):
    """The checkpoints of one work directory, for the run that writes them."""

    def __init__(self, directory: stores.Place, *, keep: int, owner: str) -> None:
        """Opens or makes ``directory``; the newest ``keep`` states stay.

        ``owner`` is as in ``Reader``.
        """
        self._keep = keep
        self._copier = concurrent.futures.ThreadPoolExecutor(1)  # to a store
        self._copied: concurrent.futures.Future[None] | None = None
        super().__init__(directory, owner=owner)
        if self._mirror and jax.process_index() == 0:
            self._mirror.clean()

    def _open(self) -> ocp.CheckpointManager:
        return self._manage(
            max_to_keep=self._keep,
            enable_async_checkpointing=True,
            cleanup_tmp_directories=True,
        )

    def save(self, step: int, state: Any) -> None:
        """Saves a tree of NumPy arrays in the background.

        Waits only for the save before this one, and raises what went wrong there.

        Raises:
            CheckpointError: the disk is full or can't be written.
        """
        if self._mirror:
            if jax.process_index():
                return  # the first process's copies are all that the store has
            self.wait()
        if step in self._manager.all_steps():
            return
        about = {"step": step, "owner": self._owner, "digest": digest(state)}
        args = ocp.args.Composite(
            state=ocp.args.StandardSave(state), about=ocp.args.JsonSave(about)
        )
        with self._explained():
            self._manager.save(step, args=args)
        if self._mirror:
            self._copied = self._copier.submit(self._copy, self._mirror, step)

    def _copy(self, mirror: checkpoint_store.Mirror, step: int) -> None:
        self._manager.wait_until_finished()
        mirror.store(step, keep=self._keep)

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
        if self._mirror and jax.process_index() == 0:
            for later in [s for s in self._mirror.steps() if s > step]:
                self._mirror.remove(later)
        for later in [s for s in self._manager.all_steps() if s > step]:
            self._manager.delete(later)

    def wait(self) -> None:
        """Returns when the last save is on the disk, or in the store.

        Raises:
            CheckpointError: it could not be written.
        """
        with self._explained():
            if self._copied is not None:
                copied, self._copied = self._copied, None
                copied.result()
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits for the last save and frees what the manager holds."""
        self.wait()
        self._manager.close()
        self._copier.shutdown()

    def _found_damaged(self, damaged: Mapping[int, str], used: int) -> None:
        """Renames damaged checkpoints to ``damaged-STEP``, as a good one is left."""
        super()._found_damaged(damaged, used)
        for step in damaged:
            if self._mirror:
                self._mirror.drop(step)
                if jax.process_index() == 0:
                    self._mirror.put_aside(step)
            elif jax.process_index() == 0:
                aside = self._directory / f"damaged-{step}"
                shutil.rmtree(aside, ignore_errors=True)
                (self._directory / str(step)).rename(aside)
            _log.warning("the damaged one is now %s", self._where / f"damaged-{step}")
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
                f"could not save a checkpoint in {self._where}: {what}; complete "
                f"checkpoints there: {', '.join(map(str, self.steps)) or 'none'}"
            ) from error
