"""The gates of public functions: types of pixels, random keys, empty batches, meshes.

A function behind `images_gate` may rely on what its arguments are, and holds whatever a
caller's arrays are like: it can't forget a check that it doesn't make itself.
"""

import contextlib
import functools
import inspect
import types
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from apr_jax import fast_random
from apr_jax.gates import numbers

F = TypeVar("F", bound=Callable[..., Any])

FLOATS = ("bfloat16", "float16", "float32", "float64")
# What a function takes, and how an error says so.
TAKES = {
    "levels": (("uint8",), "uint8"),
    "pixels": (FLOATS, "floating point"),
    "either": (("uint8", *FLOATS), "uint8 or floating point"),
}
# The arguments that are images, by name; the first that is there leads.
IMAGES = ("images", "phase_from", "amplitude_from", "donors", "fractals")
# The mean square of an image in [0, 1] is at most 1, and no recombination changes it,
# however far single pixels ring.
_LARGEST_SQUARE = 4.0
# Nor does it make the mean negative, as that of standardised images often is.
_LOWEST_MEAN = -0.25


def check_type(images: jax.Array, takes: str, name: str = "images") -> None:
    """TypeError, with what is taken, for pixels of another type.

    Args:
        images: the pixels; half precision and float64 are floating point, too.
        takes: one of `TAKES`.
        name: of the argument.
    """
    kinds, words = TAKES[takes]
    if str(images.dtype) in kinds:
        return
    hint = ""
    if images.dtype == jnp.uint8:
        hint = f": for uint8 grey levels pass {name}.astype(jnp.float32) / 255"
    raise TypeError(f"{name} must be {words}, got {images.dtype}{hint}")


def check_values(images: jax.Array, values: str, name: str = "images") -> None:
    """ValueError for pixels that are not finite, or grey levels where [0, 1] is meant.

    Only concrete arrays can be looked at: what is traced passes.

    Args:
        images: uint8, or floating point, [N, H, W, C] for "unit".
        values: "unit" for pixels in [0, 1], up to the ringing of a recombination;
            "finite" for any range; "any" checks nothing.
        name: of the argument.
    """
    traced = isinstance(images, jax.core.Tracer)
    if values == "any" or traced or images.dtype == jnp.uint8:
        return
    if not (images.size and images.is_fully_addressable):
        return
    # Nothing is to be compiled for it where the host has the pixels.
    xp: types.ModuleType = jnp if _on_accelerator(images) else np
    pixels = xp.asarray(images).astype(xp.float32)
    if not xp.isfinite(pixels).all():
        raise ValueError(f"{name} must be finite; some of the pixels are NaN or inf")
    if values == "finite":
        return
    if np.max(xp.mean(pixels * pixels, axis=(1, 2, 3))) > _LARGEST_SQUARE:
        raise ValueError(
            f"{name} must be in [0, 1], got pixels up to {float(pixels.max()):g}: for "
            f"grey levels pass {name} / 255, or {name}.astype(jnp.uint8) where uint8 "
            "is taken"
        )
    if (lowest := float(np.min(xp.mean(pixels, axis=(1, 2, 3))))) < _LOWEST_MEAN:
        raise ValueError(
            f"{name} must be in [0, 1], got one with a mean of {lowest:.2g}: augment "
            "before normalisation, not after it"
        )


def images_gate(
    takes: str,
    *,
    values: str = "unit",
    rank: int | None = 4,
    rounds: bool = False,
    single: bool = True,
    rules: Mapping[str, numbers.Rule] | None = None,
) -> Callable[[F], F]:
    """A decorator of public functions that take images, and keys.

    The arguments called as in `IMAGES` become JAX's arrays of a type that the function
    takes, checked by `check_type` and `check_values`. An argument `key` becomes typed
    keys, see `fast_random.typed_keys`, and each number is checked by its name, see
    `numbers.RULES`. Images in half precision are computed in float32 and come back as
    they were, float64 likewise where JAX has it (and is float32 where it hasn't); a key
    gives the same numbers with x64 as without. An empty batch gives an empty batch. On
    a mesh whose axes are Explicit the result has the sharding of the images.

    Args:
        takes: one of `TAKES`.
        values: as `check_values`'s.
        rank: axes of the images; None for any number.
        rounds: whether floating point pixels become grey levels, which have no NaN: an
            image with a NaN comes back as NaN all over.
        single: False computes float64 in float64.
        rules: argument -> rule that this function has in place of the usual one.
    """

    def behind(function: F) -> F:
        signature = inspect.signature(function)
        names = [name for name in IMAGES if name in signature.parameters]
        checks = numbers.rules_of(signature, rules or {}, {*IMAGES, "key"})

        @functools.wraps(function)
        def checked(*args: Any, **kwargs: Any) -> Any:
            given = signature.bind(*args, **kwargs).arguments
            for name in names:
                if given.get(name) is not None:
                    given[name] = _checked(given[name], takes, name, values, rank)
            for name, check in checks.items():
                if name in given:
                    check(name, given[name])
            if "key" in given:
                given["key"] = fast_random.typed_keys(given["key"])
            lead = given[names[0]]
            kept = _kept(function, names, rounds, single)
            if lead.ndim and lead.shape[0] == 0:
                return _of_nothing(kept, given)
            return on_its_mesh(kept, given, lead)

        return checked  # type: ignore[return-value]

    return behind


def _on_accelerator(images: jax.Array) -> bool:
    return next(iter(images.devices())).platform != "cpu"


def _checked(
    images: Any, takes: str, name: str, values: str, rank: int | None
) -> jax.Array:
    if not isinstance(images, jax.Array | np.ndarray):
        images = np.asarray(images)
    check_type(images, takes, name)
    images = jnp.asarray(images)
    if rank and images.ndim != rank:
        raise ValueError(f"{name} must be [N, H, W, C], got shape {images.shape}")
    check_values(images, values, name)
    return images


def _kept(
    function: Callable[..., Any], names: list[str], rounds: bool, single: bool
) -> Callable[..., Any]:
    """The function with the types of its images, and their NaN, kept."""

    def kept(**given: Any) -> Any:
        lead = given[names[0]]
        kinds = {given[n].dtype for n in names if given.get(n) is not None}
        half = len(kinds) == 1 and lead.dtype in (jnp.bfloat16, jnp.float16)
        if not (single or half):
            return function(**given)
        found = in_single_precision(function, given)
        if not jnp.issubdtype(lead.dtype, jnp.floating):
            return found
        if rounds:
            lost = jnp.isnan(lead).any(axis=(1, 2, 3), keepdims=True)
            found = jnp.where(lost, jnp.nan, found)
        image = lambda x: x.dtype == jnp.float32 and x.ndim == lead.ndim
        return jax.tree.map(lambda x: x.astype(lead.dtype) if image(x) else x, found)

    return kept


def in_single_precision(function: Callable[..., Any], given: dict[str, Any]) -> Any:
    """The result of arguments in float32, with the numbers that it has without x64."""
    types_of = {jnp.floating: jnp.float32, jnp.signedinteger: jnp.int32}

    def narrow(x: jax.Array) -> jax.Array:
        for kind, dtype in types_of.items():
            if jnp.issubdtype(x.dtype, kind):
                return x.astype(dtype)
        return x

    arrays, rest = _arrays_of(given)
    arrays = {name: narrow(x) for name, x in arrays.items()}
    with without_x64():
        return function(**arrays, **rest)


def without_x64() -> contextlib.AbstractContextManager[Any]:
    """A context whose numbers are those of a JAX without x64."""
    on = jax.config.read("jax_enable_x64")
    return jax.enable_x64(False) if on else contextlib.nullcontext()


def _of_nothing(function: Callable[..., Any], given: dict[str, Any]) -> Any:
    """The result for no images: that of one, without the one."""
    arrays, rest = _arrays_of(given)

    def one(x: jax.Array) -> jax.ShapeDtypeStruct:
        shape = (1, *x.shape[1:]) if x.ndim and x.shape[0] == 0 else x.shape
        return jax.ShapeDtypeStruct(shape, x.dtype)

    shapes = jax.eval_shape(
        lambda arrays: function(**arrays, **rest), jax.tree.map(one, arrays)
    )
    return jax.tree.map(lambda x: jnp.zeros((0, *x.shape[1:]), x.dtype), shapes)


def on_its_mesh(
    function: Callable[..., Any], given: dict[str, Any], lead: jax.Array
) -> Any:
    """The result; on a mesh whose axes are Explicit it has the sharding of ``lead``."""
    arrays, rest = _arrays_of(given)
    explicit = jax.sharding.AxisType.Explicit
    meshes = (jax.typeof(x).sharding.mesh for x in arrays.values())
    mesh = next((m for m in meshes if explicit in m.axis_types), None)
    if mesh is None:
        return function(**given)
    call = lambda arrays: function(**arrays, **rest)
    shapes = jax.eval_shape(
        call, {n: jax.ShapeDtypeStruct(x.shape, x.dtype) for n, x in arrays.items()}
    )

    own = [*jax.typeof(lead).sharding.spec, *[None] * lead.ndim]

    def spec(x: jax.ShapeDtypeStruct) -> jax.sharding.NamedSharding:
        axes = own[: x.ndim] if x.ndim == lead.ndim else own[: min(x.ndim, 1)]
        return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes))

    mapped = jax.sharding.auto_axes(call, out_sharding=jax.tree.map(spec, shapes))
    # Not op by op: what comes of the key alone would lie on one device.
    return jax.jit(mapped)(arrays)


def _arrays_of(given: dict[str, Any]) -> tuple[dict[str, jax.Array], dict[str, Any]]:
    """The arguments that are arrays, and the others."""
    kinds = (jax.Array, np.ndarray)
    arrays = {n: jnp.asarray(x) for n, x in given.items() if isinstance(x, kinds)}
    return arrays, {n: x for n, x in given.items() if n not in arrays}
