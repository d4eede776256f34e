"""Patterns of C-bar that are added to images: waves, plasma and coloured noise.

Of Mintun et al. ("On Interaction Between Augmentations and Corruptions in Natural
Corruption Robustness", NeurIPS 2021), with the arithmetic of their code. A function
``draw_...`` draws the parameters of each image, another one makes the image of them;
where their code has the side of a square image, this is the shorter side.
"""

import math

import jax
import jax.numpy as jnp

from apr_jax import fast_random
from apr_jax.augment.packed import look_up
from apr_jax.corruptions.constants import Shape, Values
from apr_jax.corruptions.resample import to_uint8

_TURN = 2 * math.pi
# Perlin's table of gradients, and how far it is repeated.
_TABLE, _REPEATED = 256, 514
_OCTAVES = (1, 2, 4, 8, 16)
_PLASMA_ROUNDS = (4, 7)


def each(numbers: jax.Array) -> jax.Array:
    """A number for each image, [N] -> [N, 1, 1]."""
    return numbers[:, None, None]


def places(shape: Shape) -> tuple[jax.Array, jax.Array]:
    """Row and column of each pixel, float32 [1, H, 1] and [1, 1, W]."""
    down, along = (jnp.arange(side, dtype=jnp.float32) for side in shape)
    return down[None, :, None], along[None, None, :]


def _added(images: jax.Array, noise: jax.Array, intensity: jax.Array) -> jax.Array:
    """Images uint8 [N, H, W, C], and noise [N, H, W] or [N, H, W, C] on top."""
    noise = noise if noise.ndim == images.ndim else noise[..., None]
    return to_uint8(images.astype(jnp.float32) + intensity * noise)


# --- Waves ---------------------------------------------------------------------------


def draw_wave(seeds: jax.Array) -> Values:
    """Frequencies along the axes in radians a pixel, and the phase; [N] each."""
    draw = fast_random.uniform(seeds, (4,), low=-1.0)
    larger = math.pi * draw[:, 0]
    smaller = jnp.abs(larger) * draw[:, 1]
    swapped = draw[:, 2] < 0
    return {
        "along": jnp.where(swapped, smaller, larger),
        "down": jnp.where(swapped, larger, smaller),
        "phase": math.pi * (draw[:, 3] + 1),
    }


def add_wave(images: jax.Array, drawn: Values, values: Values) -> jax.Array:
    """Adds a grey wave."""
    y, x = places((images.shape[1], images.shape[2]))
    angle = x * each(drawn["along"]) + y * each(drawn["down"]) + each(drawn["phase"])
    return _added(images, jnp.sin(angle), values["intensity"])


def single_frequency(seeds: jax.Array, images: jax.Array, values: Values) -> jax.Array:
    """Adds a grey wave of a random frequency and direction."""
    return add_wave(images, draw_wave(seeds), values)


def draw_rings(seeds: jax.Array, shape: Shape) -> Values:
    """Centre in pixels, lobes, their height and the rings' width; [N] each."""
    draw = fast_random.uniform(seeds, (5,))
    return {
        "x": shape[1] * draw[:, 0],
        "y": shape[0] * draw[:, 1],
        "lobes": 10 * draw[:, 2],
        "height": min(shape) / 10 * draw[:, 3],
        "width": min(shape) / 10 * draw[:, 4],
    }


def add_rings(images: jax.Array, drawn: Values, values: Values) -> jax.Array:
    """Adds rings that rise from one to the next, about a centre, with lobes."""
    y, x = places((images.shape[1], images.shape[2]))
    across, down = x - each(drawn["x"]), y - each(drawn["y"])
    lobes = jnp.sin(jnp.arctan2(across, down) * each(drawn["lobes"]))
    distance = jnp.sqrt(across**2 + down**2) + lobes * each(drawn["height"])
    width = jnp.maximum(each(drawn["width"]), 1e-6)
    return _added(images, distance % width / width - 0.5, values["intensity"])


def sine_waves(seeds: jax.Array, images: jax.Array, values: Values) -> jax.Array:
    """Adds rings about a random centre."""
    shape = (images.shape[1], images.shape[2])
    return add_rings(images, draw_rings(seeds, shape), values)


# --- Plasma --------------------------------------------------------------------------


def draw_plasma(seeds: jax.Array, shape: Shape) -> Values:
    """Time, rounds, sharpness and scale in pixels; [N] each."""
    draw = fast_random.uniform(seeds, (4,))
    low, high = _PLASMA_ROUNDS
    return {
        "time": 3 * _TURN * draw[:, 0],
        "rounds": low + jnp.floor((high - low) * draw[:, 1]).astype(jnp.int32),
        "sharpness": 0.5 + 0.5 * draw[:, 2],
        "scale": min(shape) * (0.075 + 0.125 * draw[:, 3]),
    }


def add_plasma(images: jax.Array, drawn: Values, values: Values) -> jax.Array:
    """Mixes with coloured clouds: waves whose argument is bent in each round."""
    _, height, width, channels = images.shape
    y, x = places((height, width))
    time, scale = each(drawn["time"]), each(drawn["scale"])
    full = (len(images), height, width)
    x, y = (jnp.broadcast_to(place / scale, full) for place in (x, y))
    finer = 2.25 - each(drawn["sharpness"])
    for turn in range(_PLASMA_ROUNDS[1] - 1):
        often, slow = 1.93**turn, 1.15**turn
        across = jnp.cos(y * often + time / slow) / finer**turn
        down = jnp.sin(x * often + time / slow) / finer**turn
        going = turn < each(drawn["rounds"])
        x = jnp.where(going, x + across - 0.3 * down, x)
        y = jnp.where(going, y + down + 0.3 * across, y)
    both = jnp.sin((x + y + jnp.sin(time)) * 0.5)
    clouds = jnp.stack([jnp.sin(x - time), both, jnp.sin(y + time)], axis=-1)
    kept = (1 - values["intensity"] / 255) * images.astype(jnp.float32)
    return to_uint8(kept + values["intensity"] * clouds[..., :channels])


def plasma(seeds: jax.Array, images: jax.Array, values: Values) -> jax.Array:
    """Mixes with random coloured clouds."""
    shape = (images.shape[1], images.shape[2])
    return add_plasma(images, draw_plasma(seeds, shape), values)


# --- Perlin --------------------------------------------------------------------------


def draw_perlin(seeds: jax.Array) -> Values:
    """A permutation int32 [N, 256] and gradients [N, 256, 2] of length 1."""
    order = jnp.argsort(fast_random.bits(seeds, (_TABLE,)), axis=1)
    draw = fast_random.uniform(seeds, (_TABLE, 2), lane=1)
    # Whole steps of a grid: the directions aren't uniform.
    at = (jnp.floor(2 * _TABLE * draw) - _TABLE) / _TABLE
    length = jnp.linalg.norm(at, axis=-1, keepdims=True)
    return {
        "order": order.astype(jnp.int32),
        "gradients": at / jnp.maximum(length, 1 / _TABLE),
    }


def add_perlin(images: jax.Array, drawn: Values, values: Values) -> jax.Array:
    """Mixes with grey turbulence of five octaves."""
    _, height, width, _ = images.shape
    shape = (height, width)
    order, gradients = (_repeated(drawn[k]) for k in ("order", "gradients"))
    down, along = places(shape)
    unit = 32 * min(shape) / 224
    total = jnp.zeros((len(images), height, width))
    for octave in _OCTAVES:
        noise = _lattice(
            order, gradients, down * (octave / unit), along * octave / unit
        )
        total += jnp.abs(noise) / octave
    clouds = jnp.clip(0.5 * total + 0.5, 0, 1)
    share = values["share"]
    kept = (1 - share) * images.astype(jnp.float32)
    return to_uint8(kept + 255 * share * clouds[..., None])


def perlin(seeds: jax.Array, images: jax.Array, values: Values) -> jax.Array:
    """Mixes with random grey turbulence."""
    return add_perlin(images, draw_perlin(seeds), values)


def _repeated(table: jax.Array) -> jax.Array:
    """A table of 256 entries, axis 1, as often as its indices go."""
    parts = [table, table, table[:, : _REPEATED - 2 * _TABLE]]
    return jnp.concatenate(parts, axis=1)


def _lattice(
    order: jax.Array, gradients: jax.Array, y: jax.Array, x: jax.Array
) -> jax.Array:
    """Perlin's noise at places [1, H, 1] and [1, 1, W]: [N, H, W]."""
    count = len(order)
    first = (jnp.arange(count) * _REPEATED)[:, None, None]
    low = [jnp.floor(place).astype(jnp.int32) % _TABLE for place in (y, x)]
    rest = [place - jnp.floor(place) for place in (y, x)]
    smooth = [part**2 * (3 - 2 * part) for part in rest]
    flat_order = order.reshape(-1)
    leaning = [gradients[..., axis].reshape(-1) for axis in (0, 1)]

    def corner(down: int, along: int) -> jax.Array:
        row = look_up(flat_order, first + (low[0] + down) % _TABLE)
        place = look_up(flat_order, first + row + (low[1] + along) % _TABLE)
        slopes = [look_up(part, first + place) for part in leaning]
        return (rest[0] - down) * slopes[0] + (rest[1] - along) * slopes[1]

    top, bottom = (
        corner(0, along) + smooth[0] * (corner(1, along) - corner(0, along))
        for along in (0, 1)
    )
    return 1.5 * (top + smooth[1] * (bottom - top))


# --- Coloured noise ------------------------------------------------------------------


def draw_phases(seeds: jax.Array, shape: Shape, fields: int) -> Values:
    """Phases of half of the frequencies, and of the middle column of an odd width.

    "half" is [N, F, H, W // 2], "middle" [N, F, H // 2].
    """
    height, width = shape
    half = fast_random.uniform(seeds, (fields, height, width // 2))
    middle = fast_random.uniform(seeds, (fields, height // 2), lane=1)
    return {"half": _TURN * half, "middle": _TURN * middle}


def _coloured(drawn: Values, shape: Shape, *, blue: bool) -> jax.Array:
    """Noise of standard deviation 1, [N, F, H, W]: blue, or brownish.

    The real part of the inverse transform of spectra whose phases are mirrored about
    the middle of the array, not about the frequency 0: as the published code has it.
    """
    height, width = shape
    y, x = places(shape)
    side = min(shape)
    down, along = (y - height / 2) * (side / height), (x - width / 2) * (side / width)
    distance = jnp.sqrt(down**2 + along**2)
    power = distance if blue else 1 / (distance**2 + 1)
    half, middle = drawn["half"], drawn["middle"]
    parts = [half]
    if width % 2:
        nought = jnp.zeros((*middle.shape[:2], height % 2))
        column = jnp.concatenate([middle, nought, middle[..., ::-1]], axis=-1)
        parts.append(column[..., None])
    phases = jnp.concatenate([*parts, half[..., ::-1, ::-1]], axis=-1)
    full = power[None]
    spectrum = jax.lax.complex(full * jnp.cos(phases), full * jnp.sin(phases))
    spectrum = jnp.roll(spectrum, (height // 2, width // 2), axis=(-2, -1))
    noise = jnp.fft.ifft2(spectrum, axes=(-2, -1)).real
    return noise / jnp.std(noise, axis=(-2, -1), keepdims=True)


def keep_blue(images: jax.Array, drawn: Values, values: Values) -> jax.Array:
    """Keeps the pixels where blue noise is above a threshold; the rest is black."""
    shape = (images.shape[1], images.shape[2])
    noise = _coloured(drawn, shape, blue=True)[:, 0]
    kept = noise > values["level"] - 2.5
    return jnp.where(kept[..., None], images, jnp.uint8(0))


def blue_noise_sample(seeds: jax.Array, images: jax.Array, values: Values) -> jax.Array:
    """Blackens pixels that random blue noise picks."""
    shape = (images.shape[1], images.shape[2])
    return keep_blue(images, draw_phases(seeds, shape, 1), values)


def add_brownish(images: jax.Array, drawn: Values, values: Values) -> jax.Array:
    """Adds noise of low frequencies, another one to each channel."""
    shape = (images.shape[1], images.shape[2])
    noise = _coloured(drawn, shape, blue=False).transpose(0, 2, 3, 1)
    return _added(images, noise, values["intensity"])


def brownish_noise(seeds: jax.Array, images: jax.Array, values: Values) -> jax.Array:
    """Adds random noise of low frequencies."""
    _, height, width, channels = images.shape
    return add_brownish(images, draw_phases(seeds, (height, width), channels), values)
