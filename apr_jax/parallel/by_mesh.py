"""Per-device functions mapped by `jit` of `shard_map` over a mesh.

Beside `jax.pmap`, which JAX only maintains. Arrays are global: what is the same on all
devices has no axis of devices, what belongs to the batch is split along its own axis.
Each argument's sharding says which it is; NumPy arrays have, as those of `pmap`, a
leading axis of this process's devices.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as Spec


def same(tree: Any, mesh: Mesh) -> Any:
    """Puts every leaf on all devices of a mesh, into memory of its own."""

    def on_host(leaf: Any) -> Any:
        if isinstance(leaf, jax.Array) and _is_key(leaf):
            return np.asarray(jax.random.key_data(leaf))
        return np.asarray(leaf)

    keys = jax.tree.map(lambda x: isinstance(x, jax.Array) and _is_key(x), tree)

    def copied(tree: Any) -> Any:
        wrap = lambda key, x: jax.random.wrap_key_data(x) if key else x
        return jax.tree.map(wrap, keys, tree)

    put = jax.jit(copied, out_shardings=NamedSharding(mesh, Spec()))
    return put(jax.tree.map(on_host, tree))


def split(tree: Any, mesh: Mesh, axis: int) -> Any:
    """Shares rows of this process out to its devices, along an axis of the arrays."""
    sharding = NamedSharding(mesh, Spec(*[None] * axis, *mesh.axis_names))

    def share(leaf: Any) -> jax.Array:
        rows = np.asarray(leaf)
        return jax.make_array_from_process_local_data(sharding, rows)

    return jax.tree.map(share, tree)


def is_same(leaf: jax.Array) -> bool:
    """Whether an array is one that all devices hold, without an axis of devices."""
    own = leaf.sharding
    return isinstance(own, NamedSharding) and not any(own.spec)


def mapped(
    function: Callable[..., Any], mesh: Mesh, *, donate: tuple[int, ...], out: Spec
) -> Callable[..., Any]:
    """Maps a per-device function; one program for each kind of arguments.

    Args:
        function: of each device's part of the arguments.
        mesh: of one axis.
        donate: arguments whose memory the results may take.
        out: of all results; without an axis where they are the same everywhere.
    """
    programs: dict[Any, Callable[..., Any]] = {}
    here = jax.process_index()
    count = sum(d.process_index == here for d in mesh.devices.flat)

    def program(specs: Any, stacked: Any) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            first = lambda leading, x: x[0] if leading else x
            return function(*jax.tree.map(first, stacked, args))

        over = jax.shard_map(
            run, mesh=mesh, in_specs=specs, out_specs=out, check_vma=False
        )
        return jax.jit(over, donate_argnums=donate)

    def call(*args: Any) -> Any:
        leaves, tree = jax.tree.flatten(args)
        leading = tuple(not isinstance(leaf, jax.Array) for leaf in leaves)
        if any(leading):
            assert all(
                np.shape(leaf)[0] == count
                for leaf, own in zip(leaves, leading, strict=True)
                if own
            ), "NumPy arrays need a leading axis of this process's devices"
            leaves = [
                split(leaf, mesh, 0) if own else leaf
                for leaf, own in zip(leaves, leading, strict=True)
            ]
            args = jax.tree.unflatten(tree, leaves)
        specs = tuple(leaf.sharding.spec for leaf in leaves)
        kind = tree, specs, leading
        if kind not in programs:
            whole = (jax.tree.unflatten(tree, given) for given in (specs, leading))
            programs[kind] = program(*whole)
        return programs[kind](*args)

    return call


def _is_key(leaf: jax.Array) -> bool:
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
