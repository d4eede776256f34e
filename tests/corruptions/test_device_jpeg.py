"""JPEG as a program of the device, beside Pillow's."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from PIL import Image, features

from apr_jax.corruptions import corrupt, device_jpeg
from apr_jax.corruptions.digital import jpeg_quality

QUALITIES = {
    size: [jpeg_quality((size, size), severity) for severity in range(1, 6)]
    for size in (32, 224)
}


def by_pillow(images, quality):
    found = []
    for image in images:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=quality)
        found.append(np.asarray(Image.open(file)))
    return np.stack(found)


def natural(rng, height, width):
    """A picture with the spectrum of a photograph, one of noise, and one of edges."""
    down, along = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    fall = np.hypot(down, along) + 1 / max(height, width)
    wild = np.fft.rfft2(rng.normal(size=(height, width, 3)), axes=(0, 1))
    smooth = np.fft.irfft2(wild / fall[..., None], s=(height, width), axes=(0, 1))
    smooth = 128 + 60 * (smooth - smooth.mean()) / smooth.std()
    noise = rng.integers(0, 256, (height, width, 3))
    edges = np.broadcast_to(np.arange(width)[None, :, None] // 3 % 2 * 255, noise.shape)
    return np.clip(np.stack([smooth, noise, edges]), 0, 255).astype(np.uint8)


# Several programs; those of odd sizes have blocks that aren't full, in each direction.
@pytest.mark.parametrize(
    "shape",
    [(32, 32), (33, 41), (8, 15), pytest.param((224, 224), marks=pytest.mark.slow)],
)
def test_the_bits_of_pillow(rng, shape):
    images = natural(rng, *shape)
    run = jax.jit(device_jpeg.compress)
    for quality in [*QUALITIES[224 if min(shape) > 64 else 32], 85, 100, 1]:
        table = {k: jnp.asarray(v) for k, v in device_jpeg.tables(quality).items()}
        got = np.asarray(run(None, images, table)).astype(int)
        apart = np.abs(got - by_pillow(images, quality))
        # Another libjpeg than turbo may round otherwise.
        assert np.mean(apart <= 2) >= 0.99
        if features.check_feature("libjpeg_turbo"):
            assert not apart.any()


@pytest.mark.parametrize("quality", [1, 40, 50, 85, 100])
def test_the_tables_of_pillow(quality):
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG", quality=quality)
    luma, chroma = Image.open(file).quantization.values()
    ours = device_jpeg.tables(quality)
    np.testing.assert_array_equal(ours["luma"].ravel(), luma)
    np.testing.assert_array_equal(ours["chroma"].ravel(), chroma)


def test_corrupted_and_stored_by_the_device(key, rng):
    images = natural(rng, 32, 32)
    for name in ("jpeg_compression", "contrast"):
        ours, theirs = (
            corrupt(key, images, name, 3, stored_as="jpeg", jpeg=jpeg, chunk=2)
            for jpeg in ("device", "pillow")
        )
        apart = np.abs(np.asarray(ours).astype(int) - np.asarray(theirs))
        assert np.mean(apart <= 2) >= 0.99
    with pytest.raises(ValueError, match="jpeg is 'host'; choose from"):
        corrupt(key, images, "fog", 1, jpeg="host")


def test_it_can_be_exported(key, rng):
    images = natural(rng, 32, 32)

    def run(images, jpeg="device"):
        return corrupt(key, images, "jpeg_compression", 2, stored_as="jpeg", jpeg=jpeg)

    like = jax.ShapeDtypeStruct(images.shape, jnp.uint8)
    program = export.export(jax.jit(run), platforms=["cpu", "tpu"])(like)
    text = program.mlir_module()
    assert "gather" not in text
    assert "callback" not in text
    np.testing.assert_array_equal(program.call(images), run(images))
    theirs = export.export(jax.jit(lambda x: run(x, jpeg="pillow")))
    with pytest.raises(NotImplementedError, match="callback"):
        theirs(like)
