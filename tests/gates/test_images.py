"""The gates, walked over by every public function that takes images or keys.

The functions come from the packages' own lists, so one that is added is checked too;
`fold` below is what such a function looks like without a gate, and must fail.
"""

import functools
import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from apr_jax import augment, fast_random, pixels, spectral
from apr_jax.errors import ArgumentError
from apr_jax.gates import images as gates
from apr_jax.gates import numbers

# Arguments without a default besides images and keys.
OTHERS = {
    "name": "rotate",
    "level": 3.0,
    "turns": 1,
    "radius": 3.0,
    "mask": np.ones((12, 12), bool),
    "donor_index": np.arange(3)[::-1],
    "amplitude": "low",
    "phase": "high",
    "edges": (2.0, 4.0),
    "u": 1,
    "v": 2,
}
# So that not all of a small image is blanked.
KNOBS = {"cutout": {"size": 3}, "random_crop": {"pad": 2}}
# Take floating point pixels of any range.
ANY_RANGE = {
    *("cutout", "random_crop", "random_flip", "quarter_turns"),
    *("vital_mask", "vital_phase"),
}
# Say where amplitudes are largest, which a NaN has no answer to.
NO_NAN = {"vital_mask"}
KEY = jax.random.key(0)
REFUSED = ("int8", "uint16", "int32", "bool")


def image_arguments(function):
    return [n for n in inspect.signature(function).parameters if n in gates.IMAGES]


def public(package):
    """The functions of a package's list that take images, by name."""
    found = {name: getattr(package, name) for name in package.__all__}
    return {
        name: function
        for name, function in found.items()
        if inspect.isfunction(function) and image_arguments(function)
    }


def methods():
    """The functions of the training methods, by name."""
    stages = [
        stage
        for method in augment.AUGMENTS.values()
        for stage in (method.single, method.mix, method.pair, *method.after)
        if stage
    ]
    plain = [getattr(stage.function, "func", stage.function) for stage in stages]
    return {function.__name__: function for function in plain}


AUGMENTATIONS = public(augment) | methods()
# Takes lists of channels, and has a test of its own.
SPECTRAL = {n: f for n, f in public(spectral).items() if n != "recombine_channels"}
BOTH = AUGMENTATIONS | SPECTRAL


def fold(key, images, *, prob=0.5):
    """A function as somebody might add it: without a gate."""
    keys = jax.random.split(key, images.shape[0])
    coin = jax.vmap(jax.random.bernoulli, (0, None))(keys, prob)
    return jnp.where(coin[:, None, None, None], images[:, ::-1], images).at[0].add(0)


def call(function, images, key=None, **knobs):
    """The result with the images in the place of all that must be images."""
    parameters = inspect.signature(function).parameters
    needed = {n for n, p in parameters.items() if p.default is inspect.Parameter.empty}
    others = OTHERS | {"donor_index": np.arange(len(images))[::-1]}
    given = {name: others[name] for name in needed & set(others)}
    given |= dict.fromkeys(needed & set(gates.IMAGES), images)
    if "key" in parameters:
        given["key"] = jax.random.key(0) if key is None else key
    return function(**given | KNOBS.get(function.__name__, {}) | knobs)


def images_of(dtype, count=3):
    rng = np.random.default_rng(1)
    levels = rng.integers(0, 256, (count, 12, 12, 3)).astype(np.uint8)
    return levels if dtype == np.uint8 else (levels / 255).astype(dtype)


@functools.cache
def traced(function, dtype, impl="unsafe_rbg"):
    """A function's program for a kind of key, and what it gives.

    None where it refuses the type.
    """
    trace = jax.make_jaxpr(functools.partial(call, function), return_shape=True)
    try:
        return trace(images_of(dtype), jax.random.key(3, impl=impl))
    except TypeError:
        return None


def results(function, dtype):
    """Shapes and types of what a function gives; None where it refuses the type."""
    found = traced(function, dtype)
    return None if found is None else jax.tree.leaves(found[1])


def kinds_taken(function):
    return [dtype for dtype in (np.float32, np.uint8) if results(function, dtype)]


# --- The checks ----------------------------------------------------------------------


def check_types(function):
    for dtype in REFUSED:
        with pytest.raises(TypeError, match=rf"must be .*(uint8|floating).*{dtype}"):
            call(function, np.ones((3, 12, 12, 3), dtype))
    assert kinds_taken(function)


def check_half_precision(function):
    """Images come back in their type, all else as for float32."""
    whole = results(function, np.float32) or ()
    for dtype in (jnp.bfloat16, jnp.float16) if whole else ():
        for got, wanted in zip(results(function, dtype), whole, strict=True):
            image = wanted.ndim == 4 and wanted.dtype == jnp.float32
            assert got.dtype == (dtype if image else wanted.dtype)


def check_values(function):
    """Grey levels as floats, and NaN, are refused where they can be seen."""
    if not results(function, np.float32):
        return
    images = images_of(np.float32)
    if function.__name__ not in ANY_RANGE:
        with pytest.raises(ValueError, match=r"must be in \[0, 1\].*255"):
            call(function, images * 255)
    images[0] = np.nan
    with pytest.raises(ValueError, match="finite"):
        call(function, images)


def check_nan(function):
    """Where they can't be seen, an image of NaN doesn't come back as another one."""
    if not results(function, np.float32) or function.__name__ in NO_NAN:
        return
    images = images_of(np.float32)
    images[0] = np.nan
    found = jax.tree.leaves(jax.jit(functools.partial(call, function))(images))
    assert np.isnan(np.asarray(found[0], np.float32)[0]).any()


def check_empty(function):
    dtype = kinds_taken(function)[-1]
    found = jax.tree.leaves(call(function, images_of(dtype, count=0)))
    for got, wanted in zip(found, results(function, dtype), strict=True):
        assert (got.shape, got.dtype) == ((0, *wanted.shape[1:]), wanted.dtype)


def drawn_with(jaxpr):
    """The kinds of keys that the numbers of a program are drawn with."""
    kinds = set()
    for equation in jaxpr.eqns:
        if equation.primitive.name.startswith("random_bits"):
            kinds.add(str(equation.invars[0].aval.dtype))
        for inner in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")
        ):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                kinds |= drawn_with(inner)
    return kinds


def check_keys(function, impls=("unsafe_rbg",)):
    """Whatever the key is, numbers are drawn with the one kind that `vmap` keeps."""
    if "key" not in inspect.signature(function).parameters:
        return
    for impl in impls:
        program, _ = traced(function, kinds_taken(function)[0], impl)
        assert drawn_with(program.jaxpr) <= {"key<fry>"}


def check_numbers(function):
    """A number that is none is refused by its name."""
    images = images_of(kinds_taken(function)[0])
    others = {"key", *gates.IMAGES, *numbers.FREE}
    for name in set(inspect.signature(function).parameters) - others:
        with pytest.raises(ArgumentError, match=f"^{name} is nan; it must be"):
            call(function, images, **{name: float("nan")})


CHECKS = {
    "types": (check_types, BOTH),
    "values": (check_values, AUGMENTATIONS),
    "empty": (check_empty, BOTH),
    "numbers": (check_numbers, BOTH),
    "keys": (check_keys, AUGMENTATIONS),
}


@pytest.mark.parametrize(
    ("check", "name"), [(c, n) for c, (_, walked) in CHECKS.items() for n in walked]
)
def test_every_function_is_behind_the_gate(check, name):
    function, walked = CHECKS[check]
    function(walked[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", BOTH)
def test_every_function_keeps_nan_and_types(name):
    check_nan(BOTH[name])
    check_half_precision(BOTH[name])
    check_keys(BOTH[name], ("rbg", "unsafe_rbg"))


@pytest.mark.parametrize("check", CHECKS)
def test_a_function_without_a_gate_fails(check):
    with pytest.raises((AssertionError, pytest.fail.Exception, IndexError)):
        CHECKS[check][0](fold)


# --- Keys ----------------------------------------------------------------------------


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg", "unsafe_rbg"])
def test_keys_of_any_kind_become_one(impl):
    keys = jax.random.split(jax.random.key(5, impl=impl), 6).reshape(2, 3)
    typed = fast_random.typed_keys(keys)
    assert jax.random.key_impl(typed) == "threefry2x32"
    assert typed.shape == (2, 3)
    data = np.asarray(jax.random.key_data(typed)).reshape(6, -1)
    assert len(np.unique(data, axis=0)) == 6
    raw = fast_random.typed_keys(jax.random.key_data(keys))
    np.testing.assert_array_equal(jax.random.key_data(raw).reshape(6, -1), data)
    one = jax.vmap(jax.vmap(fast_random.typed_keys))(keys)
    np.testing.assert_array_equal(jax.random.key_data(one).reshape(6, -1), data)
    if impl == "threefry2x32":
        np.testing.assert_array_equal(jax.random.key_data(keys).reshape(6, -1), data)


@pytest.mark.parametrize("wrong", [3, jnp.zeros(3, jnp.uint32), jnp.zeros(2)])
def test_what_is_no_key_is_refused(wrong):
    with pytest.raises(TypeError, match=r"jax\.random\.key"):
        augment.random_flip(wrong, images_of(np.uint8))


@pytest.mark.parametrize("impl", ["rbg", "unsafe_rbg"])
def test_under_vmap_each_image_has_its_own_key(impl):
    keys = jax.random.split(jax.random.key(2, impl=impl), 3)
    images = images_of(np.float32)
    alone = jax.jit(lambda k, image: augment.patch_gaussian(k, image[None], size=40)[0])
    each = jax.jit(jax.vmap(alone))
    found = np.asarray(each(keys, images))
    for i in range(3):
        # Compiled another way, the noise may differ in its last digit.
        np.testing.assert_allclose(found[i], alone(keys[i], images[i]), atol=1e-6)
    same = np.stack([images[0]] * 3)
    assert len(np.unique(np.asarray(each(keys, same)), axis=0)) == 3


# --- Values --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        ({"prob": 1.5}, "prob is 1.5; it must be a finite number and at least 0 and"),
        ({"prob": np.array([0.5, -1])}, "prob is -1.0; it must be a finite number"),
        ({"prob": jnp.array([0.5, jnp.nan])}, "prob is nan"),
        ({"prob": "0.5"}, "prob is '0.5'"),
        ({"prob": [0.5, 0.5, 0.5]}, "prob is [0.5, 0.5, 0.5]; it must be a finite"),
        ({"prob": jnp.full(3, 0.5)}, "prob has shape (3,), one for each image, which"),
        ({"prob": np.array([True])}, "prob is array([ True])"),
        ({"prob": np.array([0.5j])}, "prob is array([0.+0.5j])"),
        ({"noise": np.ones(3)}, "noise is array([1., 1., 1.])"),
        ({"donor_index": [0, 1, 3]}, "donor_index has 0 to 3; it must be from 0 to 2"),
        ({"donor_index": [-1, 1, 2]}, "donor_index has -1 to 2; it must be from 0"),
        (
            {"donor_index": [0, 1]},
            "donor_index must be whole numbers [3], got int64 [2]",
        ),
        ({"donor_index": np.ones(3)}, "must be whole numbers [3], got float32 [3]"),
        ({"noise": -0.1}, "noise is -0.1"),
        ({"clip": 1}, "clip is 1; it must be True or False"),
    ],
)
def test_numbers_out_of_range_are_named(knobs, said):
    with pytest.raises(ArgumentError, match=re.escape(said)):
        augment.apr_pair(jax.random.key(0), images_of(np.float32), **knobs)


@pytest.mark.parametrize(
    ("function", "fill"),
    [
        ("random_crop", 300),
        ("random_crop", 0.5),
        ("cutout", -1),
        ("cutout", [1, 2, 256]),
    ],
)
def test_what_is_no_grey_level_fills_no_grey_levels(function, fill):
    with pytest.raises(ArgumentError, match=r"fill is .*from 0 to 255"):
        getattr(augment, function)(jax.random.key(0), images_of(np.uint8), fill=fill)


def test_one_number_for_each_image():
    """Where it is taken, each has its own, none of them for no images."""
    images, ends = images_of(np.float32), jnp.array([0.0, 1.0, 0.0])
    key = jax.random.key(0)
    flipped = augment.random_flip(key, images, prob=ends)
    np.testing.assert_array_equal(flipped[1], images[1, :, ::-1])
    np.testing.assert_array_equal(flipped[::2], images[::2])
    index = [1, 2, 0]
    each = {"prob": ends, "per": "image", "donor_index": index}
    paired = augment.apr_pair(key, images, **each)
    np.testing.assert_array_equal(paired[::2], images[::2])
    mixed = spectral.recombine_within(images, index)
    np.testing.assert_allclose(paired[1], mixed[1], atol=1e-5)
    none = {"prob": jnp.zeros(0), "per": "image"}
    assert augment.apr_pair(key, images[:0], **none).shape == (0, 12, 12, 3)


def test_shapes_depend_on_no_traced_number():
    size = jax.jit(lambda n: augment.cutout(jax.random.key(0), images_of("f4"), size=n))
    with pytest.raises(
        ArgumentError, match="size is a whole number, 1 or more that mu"
    ):
        size(3)


def test_numbers_that_are_only_traced_pass():
    images = images_of(np.float32)
    each = jax.jit(
        lambda prob: augment.random_grey(jax.random.key(0), images, prob=prob)
    )
    np.testing.assert_array_equal(each(0.0), images)
    noised = jax.jit(lambda noise: augment.apr_pair(KEY, images, prob=1.0, noise=noise))
    plain = augment.apr_pair(KEY, images, prob=1.0)
    np.testing.assert_allclose(noised(0.0), plain, atol=1e-5)
    assert np.abs(noised(0.5) - plain).max() > 0.01
    shares = jax.jit(lambda alpha: augment.amplitude_mix(KEY, images, alpha=alpha))
    assert np.isfinite(shares(2.0)).all()


def test_an_argument_without_a_rule_is_refused_where_it_is_defined():
    def blur(images, *, reach):
        return images

    with pytest.raises(TypeError, match=r"no rule for the arguments \['reach'\]"):
        gates.images_gate("pixels")(blur)


def test_ringing_is_no_grey_level(rng):
    """The sharpest recombination there is stays in range for the next function."""
    point = np.zeros((1, 64, 64, 1), np.float32)
    point[0, 7, 9] = 1
    noise = rng.integers(0, 2, point.shape).astype(np.float32)
    ringing = spectral.recombine(noise, point)
    assert ringing.max() > 10
    gates.check_values(ringing, "unit")
    with pytest.raises(ValueError, match="got pixels up to 255"):
        gates.check_values(jnp.full((1, 4, 4, 1), 255.0), "unit")


def test_only_levels_and_pixels_become_pixels():
    assert pixels.to_pixels(images_of(np.uint8)).dtype == jnp.float32
    with pytest.raises(TypeError, match="int32"):
        pixels.to_pixels(jnp.zeros((1, 2, 2, 3), jnp.int32))


@pytest.mark.parametrize("function", [augment.apr_pair, augment.apr_single])
def test_standardised_images_are_refused(function, rng, key):
    """Augmentation comes before normalisation: the commonest mistake in a loop."""
    pixels = np.float32(rng.uniform(0, 0.5, (4, 8, 8, 3)))
    function(key, pixels)
    standardised = (pixels - 0.45) / 0.25
    with pytest.raises(ValueError, match=r"a mean of -0\.\d+: augment before norm"):
        function(key, standardised)
