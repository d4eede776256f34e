"""Saved states of a run: atomic, asynchronous, checked when they are read back.

The only place with Orbax. A checkpoint holds the state as NumPy arrays (one copy,
whatever the layout it came from), and a digest of them. One whose files are not in
their format, or whose digest doesn't match, is damaged: training puts it aside and goes
on from the one before, a reader leaves it where it is. All else that keeps a file from
being read is an error that names the file.
"""

import contextlib
import errno
import hashlib
import logging
import os
import pathlib
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import absl.logging
import jax
import numpy as np
import orbax.checkpoint as ocp

from apr_jax.errors import CheckpointError

_log = logging.getLogger(__name__)
_Found = TypeVar("_Found")

_LOOKS = 20  # at a folder that another process changes


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

    def __init__(self, directory: pathlib.Path, *, owner: str) -> None:
        """Opens ``directory``, which needn't be there.

        ``owner`` names what the states belong to, such as a configuration's hash;
        states of another owner are never restored.
        """
        self._directory = directory.absolute()
        self._owner = owner
        try:
            self._manager = _beside_a_writer(self._open)
        except OSError as error:
            raise CheckpointError(
                f"can't open {self._directory}: {error.strerror or error}"
            ) from error

    def _open(self) -> ocp.CheckpointManager:
        # Orbax warns of each thing that a reader doesn't do.
        level = absl.logging.get_verbosity()
        absl.logging.set_verbosity(absl.logging.ERROR)
        try:
            return self._manage(ocp.CheckpointManagerOptions(read_only=True))
        finally:
            absl.logging.set_verbosity(level)

    def _manage(self, options: ocp.CheckpointManagerOptions) -> ocp.CheckpointManager:
        return ocp.CheckpointManager(
            self._directory, options=options, item_names=("state", "about")
        )

    @property
    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, oldest first."""
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
                _beside_a_writer(self._manager.reload)
                # A writer that removes one has a newer one.
                left = [step for step in self.steps if step not in damaged]
                if left and left[-1] == newest:
                    damaged[newest] = str(error)
                continue
            if damaged:
                self._found_damaged(damaged, newest)
            return newest, state
        aside = {int(p.name[8:]) for p in self._directory.glob("damaged-[0-9]*")}
        if aside := aside | set(damaged):
            raise CheckpointError(
                f"none of the checkpoints in {self._directory} can be read: those of "
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
            _beside_a_writer(self._manager.reload)
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
                self._directory,
            )

    def _read(self, step: int, like: Any) -> Any:
        """Reads a state and checks it.

        Raises:
            _Damaged: every file can be read, and no state can be made of them.
            CheckpointError: all else.
        """
        _pass_over_late_callbacks()
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
        restore, args = self._manager.restore, ocp.args
        wanted = args.Composite(about=args.JsonRestore())
        about = restore(step, args=wanted)["about"]
        if about["owner"] != self._owner:
            raise CheckpointError(
                f"the checkpoint of step {step} in {self._directory} belongs to a "
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
            _read_through(folder)
        except FileNotFoundError:
            pass  # removed by the writer, or by what damaged it
        except OSError as denied:
            raise CheckpointError(
                f"can't read {denied.filename}: {denied.strerror}"
            ) from denied
        if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
            raise CheckpointError(f"can't read {folder}: {error}") from error
        if isinstance(error, MemoryError):
            raise CheckpointError(f"{folder} doesn't fit into memory") from error

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
        there, here = _shapes(state), _shapes(like)
        if there == here:
            return
        name = min(
            name for name in {*there, *here} if there.get(name) != here.get(name)
        )
        raise CheckpointError(
            f"the checkpoint of step {step} in {self._directory} holds another state: "
            f"{name} is {there.get(name, 'not there')}, here "
            f"{here.get(name, 'there is none')}"
        )

    def close(self) -> None:
        """Frees what the manager holds."""
        self._manager.close()


class Checkpoints(Reader):
    """The checkpoints of one work directory, for the run that writes them."""

    def __init__(self, directory: pathlib.Path, *, keep: int, owner: str) -> None:
        """Opens or makes ``directory``; the newest ``keep`` states stay.

        ``owner`` is as in ``Reader``.
        """
        self._keep = keep
        super().__init__(directory, owner=owner)

    def _open(self) -> ocp.CheckpointManager:
        return self._manage(
            ocp.CheckpointManagerOptions(
                max_to_keep=self._keep,
                enable_async_checkpointing=True,
                cleanup_tmp_directories=True,
            )
        )

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

    def close(self) -> None:
        """Waits for the last save and frees what the manager holds."""
        self.wait()
        self._manager.close()

    def _found_damaged(self, damaged: Mapping[int, str], used: int) -> None:
        """Renames damaged checkpoints to ``damaged-STEP``, as a good one is left."""
        super()._found_damaged(damaged, used)
        for step in damaged:
            aside = self._directory / f"damaged-{step}"
            if jax.process_index() == 0:
                shutil.rmtree(aside, ignore_errors=True)
                (self._directory / str(step)).rename(aside)
            _log.warning("the damaged one is now %s", aside)
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


def _beside_a_writer(look: Callable[[], _Found]) -> _Found:
    """Looks at a folder anew where a writer removed something during the look."""
    for _ in range(_LOOKS - 1):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            return look()
    return look()


def _read_through(folder: pathlib.Path) -> None:
    """Raises the OSError that keeps a file in a folder from being read, if any does."""

    def fail(error: OSError) -> None:
        raise error

    for place, _, names in os.walk(folder, onerror=fail):
        for name in names:
            path = os.path.join(place, name)
            try:
                with open(path, "rb") as file:
                    while file.read(2**24):
                        pass
            except OSError as error:
                error.filename = path
                raise


def _pass_over_late_callbacks() -> None:
    """Prints no tracebacks of reads that end after another one of theirs has failed.

    TensorStore's threads then report to an event loop that Orbax has closed, or to
    nobody. What they say no longer matters: the failure itself is an error of its own.
    """
    logging.getLogger("asyncio").addFilter(_is_heard)  # once, however often
    before = sys.unraisablehook
    if getattr(before, "passes_over", False):
        return

    def hook(found: Any) -> None:
        if str(found.exc_value) != "Event loop is closed":
            before(found)

    hook.passes_over = True  # type: ignore[attr-defined]
    sys.unraisablehook = hook


def _is_heard(record: logging.LogRecord) -> bool:
    text = record.getMessage()
    return not ("exception was never retrieved" in text and "OCDBT database" in text)


def _shapes(tree: Any) -> dict[str, str]:
    """Shape and type of each leaf by its name, whatever holds the leaves."""
    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        parts = (
            getattr(key, "name", getattr(key, "key", getattr(key, "idx", key)))
            for key in path
        )
        name = "/".join(map(str, parts))
        found[name] = f"{np.dtype(leaf.dtype).name} {list(np.shape(leaf))}"
    return found
