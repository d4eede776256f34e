"""Checkpoints in a store: copies of the folders that Orbax writes on this machine.

Orbax can't write to an ``s3://`` address (0.12.8 takes it for a relative path). So a
checkpoint is written to a folder here and copied object by object, Orbax's own
``_CHECKPOINT_METADATA`` last: with it a checkpoint is whole, without it none. A copy of
the store's folder on a disk is a folder of Orbax's.
"""

import concurrent.futures
import contextlib
import pathlib
import shutil
import tempfile
import weakref

from apr_jax.gates import stores
from apr_jax.runs import leases

_WHOLE = "_CHECKPOINT_METADATA"
_AT_ONCE = 8  # objects that are copied side by side


class Mirror:
    """The checkpoints of a folder in a store, and a folder here for Orbax.

    Attributes:
        place: in the store.
        folder: here; it goes with this object.
    """

    def __init__(self, place: stores.StorePath) -> None:
        self.place = place
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="apr-jax-checkpoints-"))
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)

    def steps(self) -> list[int]:
        """Steps of the whole checkpoints in the store, oldest first."""
        found = {int(p.name): p for p in self.place.iterdir() if p.name.isdigit()}
        return sorted(step for step, path in found.items() if _is_whole(path))

    def fetch(self, step: int) -> None:
        """Copies a checkpoint here, in place of what is here of it.

        Raises:
            FileNotFoundError: it is no longer in the store.
            OSError: the store, or the disk, says no.
        """
        new, source = self.folder / f".{step}", self.place / str(step)
        shutil.rmtree(new, ignore_errors=True)
        names = source.below()
        for folder in {(new / name).parent for name in names} | {new}:
            folder.mkdir(parents=True, exist_ok=True)
        with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(lambda n: (source / n).download(new / n), names))
        self.drop(step)
        new.rename(self.folder / str(step))

    def store(self, step: int, *, keep: int) -> None:
        """Copies a checkpoint to the store; beside it the newest ones stay.

        Args:
            step: of a checkpoint that is whole in ``folder``.
            keep: how many.
        """
        source, target = self.folder / str(step), self.place / str(step)
        leases.check(target)
        self.remove(step)  # what a save left behind that was killed
        files = [p for p in source.rglob("*") if p.is_file()]
        names = [path.relative_to(source).as_posix() for path in files]
        with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:
            copied = pool.map(
                lambda name: (target / name).upload(source / name),
                [name for name in names if name != _WHOLE],
            )
            list(copied)
        leases.check(target)
        (target / _WHOLE).upload(source / _WHOLE)
        for old in self.steps()[:-keep]:
            self.remove(old)

    def remove(self, step: int) -> None:
        """Removes a checkpoint from the store."""
        _remove(self.place / str(step))

    def clean(self) -> None:
        """Removes what saves that were killed left in the store."""
        for path in list(self.place.iterdir()):
            if path.name.isdigit() and not _is_whole(path):
                _remove(path)

    def put_aside(self, step: int) -> stores.StorePath:
        """Renames a checkpoint to ``damaged-STEP``, in the store."""
        source, target = self.place / str(step), self.place / f"damaged-{step}"
        for name in source.below():
            (source / name).copy(target / name)
        _remove(source)
        return target

    def drop(self, step: int) -> None:
        """Removes the copy of a checkpoint here."""
        shutil.rmtree(self.folder / str(step), ignore_errors=True)


def _is_whole(path: stores.StorePath) -> bool:
    return (path / _WHOLE).exists()


def _remove(path: stores.StorePath) -> None:
    leases.check(path)
    (path / _WHOLE).unlink(missing_ok=True)
    for name in path.below():
        with contextlib.suppress(FileNotFoundError):
            (path / name).unlink()
