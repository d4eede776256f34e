"""Devices and processes: the only place that knows how many there are.

A ``Layout`` says which devices work together. Functions written for one device are
mapped over them, with ``jax.pmap`` or over a mesh (``by_mesh``); what is the same
everywhere is replicated, what belongs to the batch is split along its axis. One process
drives all of its devices; several processes find each other through
``jax.distributed``.
"""

import dataclasses
import functools
import secrets
import time
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np

from apr_jax.errors import ConfigError, UserError
from apr_jax.gates import stores
from apr_jax.parallel import by_mesh
from apr_jax.parallel.joining import Others, start_processes
from apr_jax.parallel.room import peak as peak_memory
from apr_jax.parallel.room import whole as memory

__all__ = [
    "AXIS",
    "Layout",
    "Others",
    "all_or_none",
    "are_several",
    "check_batch",
    "check_shared",
    "declare_cpu_devices",
    "first_copy",
    "is_primary",
    "local_rows",
    "make_agreement",
    "make_gather",
    "make_layout",
    "map_devices",
    "memory",
    "peak_memory",
    "put_batch",
    "replicate",
    "split_batch",
    "start_processes",
]

AXIS = "devices"

# Seconds that a file may take to be seen from another host.
_SEEN_WITHIN = 5.0

_Result = TypeVar("_Result")

# XLA's pool has one thread for each declared CPU device. With as many devices in use
# as declared, the threads that wait in a collective can leave none for the work they
# wait for, so more are declared than are used.
_SPARE_CPU_DEVICES = 6


@dataclasses.dataclass(frozen=True)
class Layout:
    """The devices of a run, in the order in which they share a batch."""

    devices: tuple[jax.Device, ...]  # of all processes
    mapping: str = "pmap"  # or "shard_map": how functions are mapped over them

    @property
    def count(self) -> int:
        """Devices over all processes."""
        return len(self.devices)

    @property
    def local(self) -> tuple[jax.Device, ...]:
        """This process's devices."""
        here = jax.process_index()
        return tuple(d for d in self.devices if d.process_index == here)

    @property
    def platform(self) -> str:
        """ "cpu", "gpu" or "tpu"."""
        return self.devices[0].platform

    @property
    def accelerated(self) -> bool:
        """Whether the devices are something else than processor cores."""
        return self.platform != "cpu"

    @property
    def mesh(self) -> jax.sharding.Mesh | None:
        """The devices as a mesh of one axis; None where pmap maps over them."""
        if self.mapping == "pmap":
            return None
        return jax.sharding.Mesh(np.array(self.devices), (AXIS,))

    def by_pmap(self) -> "Layout":
        """The same devices, mapped over by pmap."""
        return dataclasses.replace(self, mapping="pmap")

    def describe(self) -> str:
        """Returns a phrase such as "2 x NVIDIA H100 (2 processes)"."""
        kind = self.devices[0].device_kind
        processes = jax.process_count()
        several = f" ({processes} processes)" if processes > 1 else ""
        return f"{self.count} x {kind}{several}"


def declare_cpu_devices(count: int) -> None:
    """Makes at least ``count`` CPU devices available; before JAX starts only."""
    if count > 1:
        jax.config.update("jax_num_cpu_devices", count + _SPARE_CPU_DEVICES)


def make_layout(requested: int, mapping: str = "pmap") -> Layout:
    """Returns the devices to work on.

    Args:
        requested: how many, over all processes. 0 means every accelerator, or on a
            CPU one device for each process.
        mapping: "pmap" or "shard_map".

    Raises:
        ConfigError: there are fewer devices, less than none are asked for, or the
            processes can't have equally many.
    """
    devices = sorted(jax.devices(), key=lambda d: (d.process_index, d.id))
    processes = jax.process_count()
    if requested == 0:
        on_cpu = devices[0].platform == "cpu"
        requested = processes if on_cpu else len(devices)
    if not 0 < requested <= len(devices) or requested % processes:
        raise ConfigError(
            f"train.devices is {requested}; there are {len(devices)} devices in "
            f"{processes} process(es), and each process must have equally many"
        )
    each = requested // processes
    chosen: list[jax.Device] = []
    for process in range(processes):
        chosen += [d for d in devices if d.process_index == process][:each]
    return Layout(tuple(chosen), mapping)


def check_batch(field: str, batch_size: int, layout: Layout) -> None:
    """Raises ConfigError unless the devices can share the batch equally."""
    if batch_size % layout.count:
        below = batch_size - batch_size % layout.count
        near = [str(n) for n in (below, below + layout.count) if n]
        raise ConfigError(
            f"{field} is {batch_size}, which {layout.count} devices can't share "
            f"equally; use a multiple such as {' or '.join(near)}"
        )


def map_devices(
    function: Callable[..., Any],
    layout: Layout,
    *,
    in_axes: Any = 0,
    donate: tuple[int, ...] = (),
    same: bool = False,
) -> Callable[..., Any]:
    """Maps a per-device function with axis ``AXIS`` over the layout's devices.

    By ``jax.pmap`` arguments and results carry a leading axis of this process's
    devices; over a mesh they are as ``replicate`` and ``split_batch`` make them.

    Args:
        function: of each device's part.
        layout: the devices.
        in_axes: as ``jax.pmap``'s; by that alone.
        donate: arguments whose memory the results may take.
        same: the results are the same on all devices, which a mesh has to know.
    """
    if (mesh := layout.mesh) is not None:
        assert in_axes == 0
        assert same
        everywhere = jax.sharding.PartitionSpec()
        return by_mesh.mapped(function, mesh, donate=donate, out=everywhere)
    return jax.pmap(
        function,
        axis_name=AXIS,
        in_axes=in_axes,
        devices=layout.devices,
        donate_argnums=donate,
    )


def replicate(tree: Any, layout: Layout) -> Any:
    """Puts a copy of every leaf on each device; by pmap along a new leading axis."""
    if (mesh := layout.mesh) is not None:
        return by_mesh.same(tree, mesh)
    return _copier(layout)(np.zeros(len(layout.local), np.int8), tree)


@functools.lru_cache(8)
def _copier(layout: Layout) -> Callable[..., Any]:
    """One function, as another would be another program for the same tree."""
    return map_devices(lambda _, leaf: leaf, layout, in_axes=(0, None))


def first_copy(tree: Any) -> Any:
    """Returns the first device's part of a replicated tree, as NumPy arrays.

    Slicing a replicated leaf would compile a gather for each shape; reading the
    first shard's memory doesn't.
    """

    def read(leaf: jax.Array) -> np.ndarray:
        shards = sorted(leaf.addressable_shards, key=lambda s: s.device.id)
        first = np.asarray(shards[0].data)
        return first if by_mesh.is_same(leaf) else first[0]

    return jax.tree.map(read, tree)


def split_batch(tree: Any, layout: Layout, axis: int = 0) -> Any:
    """Shares this process's part of a batch out to its devices.

    Leaves [..., B, ...] become [D, ..., B / D, ...]: ``axis`` is divided into D
    equal runs and the new axis of local devices comes first; they are views, without a
    copy. Over a mesh they keep their axes, and ``axis`` has the rows of all processes.
    """
    if (mesh := layout.mesh) is not None:
        return by_mesh.split(tree, mesh, axis)
    count = len(layout.local)

    def share(leaf: np.ndarray) -> np.ndarray:
        rows = np.asarray(leaf)
        before, after = rows.shape[:axis], rows.shape[axis + 1 :]
        runs = rows.reshape(*before, count, rows.shape[axis] // count, *after)
        return np.moveaxis(runs, axis, 0)

    return jax.tree.map(share, tree)


def put_batch(tree: Any, layout: Layout) -> Any:
    """Copies this process's part of a batch to its devices, shared out between them.

    What ``split_batch`` gives, on the devices already. No program runs for it, so that
    a thread may call it while others give the devices work.
    """
    shared = split_batch(tree, layout)
    if layout.mesh is not None:
        return shared
    own = jax.sharding.Mesh(np.array(layout.local), (AXIS,))
    rows = jax.sharding.NamedSharding(own, jax.sharding.PartitionSpec(AXIS))
    return jax.device_put(shared, rows)


def local_rows(batch_size: int, layout: Layout) -> slice:
    """Returns which rows of a global batch belong to this process."""
    each = batch_size // layout.count * len(layout.local)
    start = each * jax.process_index()
    return slice(start, start + each)


def is_primary() -> bool:
    """Whether this process is the one that writes files."""
    return jax.process_index() == 0


def are_several() -> bool:
    """Whether several processes work together."""
    return jax.process_count() > 1


def make_agreement(layout: Layout) -> Callable[[int], int]:
    """Returns a function that tells every process the largest of their numbers.

    All processes call it equally often, with an int of 32 bits. With several processes
    it answers with what they said at the call before, 0 at the first, so that none
    waits for work that it has just given to its devices.
    """
    if jax.process_count() == 1:
        return lambda number: number
    largest = map_devices(lambda number: jax.lax.pmax(number, AXIS), layout, same=True)
    asked: list[Any] = []

    def agree(number: int) -> int:
        asked.append(largest(np.full(len(layout.local), number, np.int32)))
        return int(first_copy(asked.pop(0))) if len(asked) > 1 else 0

    return agree


def _of_all(number: int) -> list[int]:
    """The number of each process, an int of 32 bits, on each of them."""
    layout = make_layout(jax.process_count())
    gather = map_devices(lambda own: jax.lax.all_gather(own, AXIS), layout)
    found: list[int] = first_copy(gather(np.full(1, number, np.int32))).tolist()
    return found


def all_or_none(work: Callable[[], _Result]) -> _Result:
    """Runs ``work``, and fails on every process if it has failed on one.

    ``work`` has to do without collectives, so that none waits for one that failed.

    Raises:
        UserError: that of this process's ``work``, or a ConfigError that names another.
    """
    if jax.process_count() == 1:
        return work()
    failure: UserError | None = None
    try:
        result = work()
    except UserError as error:
        failure = error
    failed = [i for i, bad in enumerate(_of_all(int(failure is not None))) if bad]
    if failure is not None:
        raise failure
    if failed:
        raise ConfigError(f"process {failed[0]} can't go on: see what it says")
    return result


def check_shared(folder: stores.Place) -> None:
    """Checks that the processes see one folder: the first leaves a token for all.

    Raises:
        ConfigError: on every process, if the first can't write it, or one can't see it.
    """
    if jax.process_count() == 1:
        return
    # A new name, which no host can remember as one that isn't there.
    token = folder / f".seen-by-all.{_of_all(secrets.randbits(31))[0]}"

    def write() -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            token.touch()
        except OSError as error:
            raise ConfigError(
                f"workdir is {str(folder)!r}, which can't be written: {error.strerror}"
            ) from error

    all_or_none(write if is_primary() else lambda: None)
    deadline = time.monotonic() + _SEEN_WITHIN
    while not (seen := token.exists()) and time.monotonic() < deadline:
        time.sleep(0.1)
    blind = [str(i) for i, sees in enumerate(_of_all(int(seen))) if not sees]
    if is_primary():
        token.unlink(missing_ok=True)
    if blind:
        raise ConfigError(
            f"workdir is {str(folder)!r}, which must be one folder that all processes "
            f"see: process {', '.join(blind)} doesn't see what process 0 writes there"
        )


def make_gather(
    function: Callable[..., Any], layout: Layout
) -> Callable[[Any, Any], Any]:
    """Maps ``function(variables, batch)`` and gathers its results from all devices.

    Returns a function of (replicated variables, batch split by ``split_batch``) that
    gives NumPy arrays of the whole global batch, in order, on every process.
    """
    several = jax.process_count() > 1

    def run(variables: Any, batch: Any) -> Any:
        result = function(variables, batch)
        # One process reads its own devices; that needs no collective.
        return jax.lax.all_gather(result, AXIS, tiled=True) if several else result

    if (mesh := layout.mesh) is not None:
        spec = jax.sharding.PartitionSpec
        out = spec() if several else spec(AXIS)
        over = by_mesh.mapped(run, mesh, donate=(), out=out)
        read = first_copy if several else functools.partial(jax.tree.map, np.asarray)
        return lambda variables, batch: read(over(variables, batch))
    mapped = map_devices(run, layout)

    def gather(variables: Any, batch: Any) -> Any:
        result = mapped(variables, batch)
        if several:
            return first_copy(result)
        return jax.tree.map(
            lambda leaf: np.asarray(leaf).reshape(-1, *leaf.shape[2:]), result
        )

    return gather
