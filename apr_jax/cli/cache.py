"""Lists what is kept to save time, and removes it: never a result.

    apr-jax cache
    apr-jax cache --clean
    apr-jax cache --clean images runs/mine/scratch/ood

"images" are decoded splits, "programs" what JAX compiled, "scratch" what evaluations
keep in runs to go on from. All of it is made again where it is needed. ``--clean``
removes all that is listed, or what is named, by name or kind, and says so; what another
process is making stays. Looking changes nothing.
"""

import dataclasses
import os
import pathlib
import shutil
import time
from collections.abc import Iterator, Sequence

import rich.console
import rich.table
from absl import flags
from rich.markup import escape

from apr_jax import process, settings
from apr_jax.cli import program
from apr_jax.data import cache
from apr_jax.errors import ConfigError, UserError
from apr_jax.gates import places
from apr_jax.runs import claims, workdir

_ELSEWHERE = "JAX_COMPILATION_CACHE_DIR"
_UNITS = ("B", "kB", "MB", "GB", "TB")


@dataclasses.dataclass(frozen=True)
class Item:
    """A folder of things that can be made again.

    Attributes:
        kind: "images", "programs" or "scratch".
        name: as it is called in the list.
        path: of the folder.
        run: whose scratch it is.
        size: bytes.
        written: seconds since 1970 of the newest file.
        shared: whether other programs may use it; such are listed, and stay.
    """

    kind: str
    name: str
    path: pathlib.Path
    run: pathlib.Path | None = None
    size: int = 0
    written: float = 0.0
    shared: bool = False


def main() -> None:
    """Runs the command."""
    folder = flags.DEFINE_string(
        "cache_dir", "", "As data.cache_dir; the user's own folder if unset."
    )
    runs = flags.DEFINE_list("runs", ["runs"], "Runs, or folders of runs.")
    clean = flags.DEFINE_bool("clean", False, "Remove what is listed, or named.")
    settings.list_in_help("cache_dir", "runs", "clean")

    def work(argv: Sequence[str]) -> None:
        process.finish(
            lambda: run(
                argv[1:],
                folder=cache.folder(folder.value),
                runs=[places.local(root, "--runs") for root in runs.value],
                clean=clean.value,
            )
        )

    program.run(work)


def run(
    names: Sequence[str],
    *,
    folder: pathlib.Path,
    runs: Sequence[pathlib.Path] = (),
    clean: bool = False,
) -> None:
    """Lists what is cached, or removes it.

    Args:
        names: of items, or kinds of them; none: all.
        folder: of the decoded images and compiled programs.
        runs: runs, or folders of runs, whose scratch is meant, too.
        clean: removes.

    Raises:
        ConfigError: a name is of nothing that is there.
    """
    found = items(folder, runs)
    known = {item.name for item in found} | {item.kind for item in found}
    for name in names:
        if name.rstrip("/") not in known:
            listed = ", ".join(sorted(known)) or "nothing"
            raise ConfigError(f"nothing cached is called {name!r}; there is {listed}")
    wanted = {name.rstrip("/") for name in names}
    chosen = [i for i in found if not wanted or {i.name, i.kind} & wanted]
    if clean:
        _clean(chosen)
    elif not chosen:
        print(f"nothing is cached in {folder} or the runs")
    else:
        rich.console.Console().print(_table(chosen))


def items(folder: pathlib.Path, runs: Sequence[pathlib.Path]) -> list[Item]:
    """Everything cached, with its size and age; nothing is changed."""
    found = [Item("images", path.name, path) for path in cache.entries(folder)]
    programs = folder / cache.PROGRAMS
    if programs.is_dir() and not programs.is_symlink():
        found.append(Item("programs", cache.PROGRAMS, programs))
    elsewhere = os.environ.get(_ELSEWHERE, "")
    if elsewhere and "://" not in elsewhere and pathlib.Path(elsewhere).is_dir():
        path = pathlib.Path(elsewhere)
        if path.resolve() != programs.resolve():
            found.append(Item("programs", str(path), path, shared=True))
    for root in _runs(runs):
        scratch = root / workdir.RunDir(root).scratch.name
        parts = sorted(scratch.iterdir()) if scratch.is_dir() else []
        for part in parts:
            if part.is_dir() and not part.is_symlink():
                found.append(Item("scratch", str(part), part, root))
    return [_measured(item) for item in found]


def _runs(places_of_runs: Sequence[pathlib.Path]) -> Iterator[pathlib.Path]:
    """The runs among some folders and right below them, each once."""
    seen = set()
    for place in places_of_runs:
        below = sorted(place.iterdir()) if place.is_dir() else []
        for root in (place, *below):
            if workdir.RunDir(root).config.is_file() and root.resolve() not in seen:
                seen.add(root.resolve())
                yield root


def _measured(item: Item) -> Item:
    size, written = 0, item.path.stat().st_mtime
    for root, _, names in os.walk(item.path):
        for name in names:
            try:
                stat = os.stat(os.path.join(root, name), follow_symlinks=False)
            except FileNotFoundError:  # another process has just removed it
                continue
            size, written = size + stat.st_size, max(written, stat.st_mtime)
    return dataclasses.replace(item, size=size, written=written)


def _clean(chosen: Sequence[Item]) -> None:
    """Removes items and says which; one that is in use or can't be removed stays."""
    freed = 0
    for item in chosen:
        try:
            _remove(item)
        except (UserError, OSError) as error:
            print(f"{item.name} stays: {error}")
            continue
        freed += item.size
        print(f"removed {item.kind} {item.name}, {_bytes(item.size)}")
    print(f"{_bytes(freed)} freed")


def _remove(item: Item) -> None:
    if item.shared:
        raise ConfigError(f"{_ELSEWHERE} names it, and other programs may use it")
    if item.run is not None:
        with claims.claimed(item.run, write=True, waiting=_refuse):
            shutil.rmtree(item.path)
    elif item.kind == "images":
        cache.remove(item.path)
    else:
        shutil.rmtree(item.path)


def _refuse(said: str) -> None:
    """Doesn't wait for a process that measures."""
    raise ConfigError(said.partition(";")[0])


def _table(found: Sequence[Item]) -> rich.table.Table:
    result = rich.table.Table(show_footer=True)
    total = _bytes(sum(item.size for item in found))
    result.add_column("what", "", no_wrap=True)
    result.add_column("name", "", overflow="fold")
    result.add_column("size", total, justify="right", no_wrap=True)
    result.add_column("written", "", justify="right", no_wrap=True)
    for item in found:
        name = escape(item.name) + (" (not only ours)" if item.shared else "")
        result.add_row(item.kind, name, _bytes(item.size), _ago(item.written))
    return result


def _bytes(size: float) -> str:
    """A size in words: "12 B", "3.4 MB"."""
    place = 0
    while size >= 1000 and place < len(_UNITS) - 1:
        size, place = size / 1000, place + 1
    return f"{size:.1f} {_UNITS[place]}" if place else f"{size:.0f} B"


def _ago(written: float) -> str:
    """How long ago something was, in words: "5 min", "3 h", "12 days"."""
    minutes = max(0.0, time.time() - written) / 60
    if minutes < 90:
        return f"{minutes:.0f} min ago"
    hours = minutes / 60
    return f"{hours:.0f} h ago" if hours < 48 else f"{hours / 24:.0f} days ago"


if __name__ == "__main__":
    main()
