"""The image operations against Pillow, which defines them."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from apr_jax import target
from apr_jax.augment import OPS, apply_op, ops, ops_tonal, packed
from apr_jax.augment.ops import POLICY_OPS
from tests import oracle

LEVELS = np.linspace(0.1, 9.9, 20).astype(np.float32)

# Pillow warps in float64 and stretches with a rounded scale; all else is equal.
EXACT = {
    "autocontrast": 0.99,
    "rotate": 0.999,
    "shear_x": 0.999,
    "shear_y": 0.999,
}


@jax.jit
def run_all(images, op, level, negate):
    channels = images.shape[-1]
    words = ops.apply_ops(
        packed.pack(images), op, level, negate, names=POLICY_OPS, channels=channels
    )
    return packed.unpack(words, channels)


def compare(images, name, levels):
    """Per level, the shares of equal levels and of those at most one apart."""
    count = len(images)
    op = np.full(count, POLICY_OPS.index(name))
    for number, level in enumerate(levels):
        negate = np.arange(count) % 2 == number % 2
        got = run_all(images, op, np.full(count, level), negate)
        want = [
            oracle.pillow_op(image, name, float(level), turn)
            for image, turn in zip(images, negate, strict=True)
        ]
        away = np.abs(np.asarray(got, np.int32) - np.stack(want))
        yield (away == 0).mean(), (away <= 1).mean()


def check(images, name, levels):
    exact, close = np.transpose(list(compare(images, name, levels)))
    assert close.min() >= 0.99, f"{name}: {close}"
    # A single level is a large share of a tiny image.
    if images[0].size > 100:
        assert exact.mean() >= EXACT.get(name, 1.0), f"{name}: {exact}"


@pytest.fixture(scope="module")
def crops():
    return {
        "even": oracle.photo_crops((32, 32), 40),
        "odd": oracle.photo_crops((27, 45), 12),
        "grey": oracle.photo_crops((21, 16), 12)[..., :1],
    }


@pytest.mark.parametrize("name", POLICY_OPS)
def test_operations_are_pillows(crops, name):
    check(crops["even"], name, LEVELS[1::4])


@pytest.mark.parametrize("name", POLICY_OPS)
@pytest.mark.parametrize("kind", ["odd", "grey"])
def test_operations_take_any_size(crops, kind, name):
    check(crops[kind], name, LEVELS[::5])


@pytest.mark.parametrize("kind", ["even", "odd", "grey"])
def test_equalize_without_looking_up_words(crops, kind):
    """As a TPU computes it; it is the same arithmetic here."""
    images = crops[kind][:12]
    channels = images.shape[-1]

    def run(words):
        tables = ops_tonal.equalize_tables(words, channels=channels)
        return ops_tonal.apply_tables(words, tables)

    words = packed.pack(jnp.asarray(images))
    with target.for_platform("tpu"):
        lowered = jax.jit(run).lower(words)
    got = packed.unpack(lowered.compile()(words), channels)
    assert not re.search(r"stablehlo\.(gather|scatter)", lowered.as_text())
    want = [oracle.pillow_op(image, "equalize", 1.0, False) for image in images]
    np.testing.assert_array_equal(got, np.stack(want))


@pytest.mark.parametrize("sides", [(32, 32), (21, 33), (65, 8)])
def test_pixels_without_looking_up_words(rng, sides):
    """As a TPU copies those of small images; to the bit, whatever their type."""
    count, (height, width) = 3, sides
    words = rng.integers(0, 2**24, (count, *sides), np.uint32)
    planes = [words, rng.normal(size=words.shape).astype(np.float32)]
    rows = [rng.integers(0, height, (count, 5, 7), np.int32) for _ in range(2)]
    columns = [rng.integers(0, width, (count, 5, 7), np.int32) for _ in range(2)]
    with target.for_platform("tpu"):
        lowered = jax.jit(packed.pixels_at).lower(planes, rows, columns)
    found = bool(re.search(r"stablehlo\.gather", lowered.as_text()))
    assert found == (max(sides) > 64)
    got = lowered.compile()(planes, rows, columns)
    places = [(row, column) for row in rows for column in columns]
    image = np.arange(count)[:, None, None]
    for (row, column), pixels in zip(places, got, strict=True):
        for plane, pixel in zip(planes, pixels, strict=True):
            assert pixel.dtype == plane.dtype
            np.testing.assert_array_equal(pixel, plane[image, row, column])


@pytest.mark.slow
@pytest.mark.parametrize("name", OPS)
def test_operations_are_pillows_on_large_images(name):
    check(oracle.photo_crops((224, 224), 10), name, LEVELS)


@pytest.mark.parity
@pytest.mark.parametrize("name", OPS)
def test_operations_are_pillows_on_cifar(shared, name):
    check(oracle.cifar10_test(shared, 40), name, LEVELS[::5])


@pytest.mark.parametrize("shape", [(1, 1), (2, 3)])
def test_operations_take_tiny_and_flat_images(rng, shape):
    images = rng.integers(0, 256, (6, *shape, 3), np.uint8)
    images[3:] = [[[[0, 7, 255]]]] * 3
    for name in POLICY_OPS:
        check(images, name, LEVELS[::10])


def test_level_and_direction_may_differ_by_image(crops):
    images = crops["even"][:6]
    levels = np.array([1, 3, 5, 7, 9, 2], np.float32)
    negate = np.array([True, False] * 3)
    run = jax.jit(apply_op, static_argnums=1)
    got = run(images, "rotate", levels, negate=negate)
    for i in range(6):
        want = oracle.pillow_op(images[i], "rotate", float(levels[i]), negate[i])
        assert (np.abs(np.asarray(got[i], np.int32) - want) <= 1).mean() > 0.99


@pytest.mark.parametrize("chunk", [7, 100])
def test_chunks_change_nothing(rng, crops, chunk):
    images = crops["even"][:33]
    # One family missing, one image past the end of the names, which stays as it is.
    op = rng.choice([0, 1, 2, 4, 5, 9, 11, 12, 13, 14], 33)
    level = rng.uniform(0.1, 9.9, 33).astype(np.float32)
    negate = rng.random(33) < 0.5
    words = packed.pack(jnp.asarray(images))
    run = jax.jit(
        lambda *x: ops.apply_ops(*x, names=POLICY_OPS, channels=3, chunk=chunk)
    )
    got = packed.unpack(run(words, op, level, negate), 3)
    np.testing.assert_array_equal(got, run_all(images, op, level, negate))
    np.testing.assert_array_equal(got[op == 14], images[op == 14])


def test_nothing_to_do_is_nothing_done(crops):
    images = crops["even"][:5]
    words = packed.pack(jnp.asarray(images))
    none = jnp.full(5, len(OPS))
    zero = jnp.zeros(5)
    run = jax.jit(lambda *x: ops.apply_ops(*x, names=OPS, channels=3, chunk=2))
    np.testing.assert_array_equal(run(words, none, zero, zero > 0), words)


def test_wrong_arguments_are_named(crops):
    images = jnp.asarray(crops["even"][:2])
    with pytest.raises(ValueError, match=r"'twirl'.*autocontrast.*sharpness"):
        apply_op(images, "twirl", 3.0)
    with pytest.raises(ValueError, match=r"'some'.*base.*all"):
        ops.op_set("some")
    with pytest.raises(TypeError, match="float32"):
        apply_op(images / 255, "rotate", 3.0)
    with pytest.raises(ValueError, match=r"\(1, 3\).*\(2, 32, 32, 2\)"):
        apply_op(images[..., :2], "rotate", 3.0)
