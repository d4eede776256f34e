"""Speed of the other methods' augmentations, beside the usual per-image pipeline.

    python -m experiments.benchmarks.methods [--quick] [--out FILE.jsonl]

Each method here, for a batch on the device, and one image at a time by Pillow, NumPy
and SciPy in as many worker processes as cores, which hold the images already and draw
their own numbers. Both start from uint8 images (what mixes pixels converts them) and
the workers send uint8 images back. On the same cores, the two taking turns, in one run.
That the results agree is for ``tests/augment`` to check.

The table shows images per second, medians over the rounds; a ratio is the median of the
rounds' ratios. Coins that leave a whole batch as it is are always up. At 32 pixels the
settings are those for CIFAR, at 224 those for ImageNet.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.ndimage

from experiments.benchmarks import augment as augment_lib
from experiments.benchmarks import common
from experiments.benchmarks.common import BATCHES, Row, Turns, photographs
from tests import oracle


def contestants_here(size: int) -> dict[str, Callable[..., Any]]:
    """Method -> function of a key and uint8 images [N, H, W, C]."""
    import jax.numpy as jnp

    from apr_jax import augment

    small = size == 32
    strengths = augment.get_method("prime").after[0].strengths

    def pixels(method: Callable[..., Any], **knobs: Any) -> Callable[..., Any]:
        return lambda key, x: method(key, x.astype(jnp.float32) / 255, **knobs)

    def levels(method: Callable[..., Any], **knobs: Any) -> Callable[..., Any]:
        return lambda key, x: method(key, x, **knobs)

    policy = "cifar10" if small else "imagenet"
    return {
        "cutout": levels(augment.cutout, size=size // 2),
        "patch_gaussian": pixels(augment.patch_gaussian, size=size * 3 // 4),
        "mixup": pixels(augment.mixup),
        "cutmix": pixels(augment.cutmix),
        "augmix": levels(augment.augmix),
        "autoaugment": levels(augment.autoaugment, policy=policy),
        "random_autoaugment": levels(augment.random_autoaugment),
        "hybrid_augment": pixels(augment.hybrid_augment, prob=1.0),
        "hybrid_augment_pp": pixels(augment.hybrid_augment_pp, prob=1.0, pair_prob=1.0),
        "hybrid_augment_single": levels(augment.hybrid_augment_single),
        "amplitude_mix": pixels(augment.amplitude_mix),
        "low_amplitude_swap": pixels(augment.low_amplitude_swap),
        "fourier_basis_noise": pixels(augment.fourier_basis_noise),
        "vital_phase": pixels(augment.vital_phase),
        "prime": pixels(augment.prime, **strengths.get(policy, {})),
    }


# -- one image at a time ---------------------------------------------------------------

Rng = np.random.Generator
Floats = np.ndarray


def box(rng: Rng, image: Floats, height: int, width: int) -> tuple[slice, slice]:
    """A rectangle around a random pixel, cut by the border."""
    places = []
    for side, length in zip(image.shape, (height, width), strict=False):
        centre = int(rng.integers(side))
        low = max(0, centre - length // 2)
        places.append(slice(low, max(0, min(side, centre + length // 2))))
    return places[0], places[1]


def cutout(rng: Rng, image: Floats, other: Floats) -> Floats:
    """Half the side."""
    image = image.copy()
    image[box(rng, image, len(image) // 2, len(image) // 2)] = 0
    return image


def patch_gaussian(rng: Rng, image: Floats, other: Floats) -> Floats:
    """Three quarters of the side."""
    size = len(image) * 3 // 4
    noisy = image / 255
    place = box(rng, image, size, size)
    noisy[place] += rng.uniform(0, 0.1) * rng.normal(size=noisy[place].shape)
    return noisy * 255


def mixup(rng: Rng, image: Floats, other: Floats) -> Floats:
    """Uniform weights."""
    weight = rng.beta(1, 1)
    return weight * image + (1 - weight) * other


def cutmix(rng: Rng, image: Floats, other: Floats) -> Floats:
    """Uniform areas."""
    side = int(len(image) * np.sqrt(rng.uniform()))
    place = box(rng, image, side, side)
    mixed = image.copy()
    mixed[place] = other[place]
    return mixed


def random_operation(rng: Rng, image: Floats) -> Floats:
    """One of AugMix's nine, at a level of up to 3."""
    return augment_lib.drawn_operation(image, rng.uniform(size=3))


def augmix(rng: Rng, image: Floats, other: Floats) -> Floats:
    """Three chains of AugMix's operations."""
    return chains(rng, image, random_operation)


def chains(rng: Rng, image: Floats, step: Callable[[Rng, Floats], Floats]) -> Floats:
    """Three chains of one to three steps, mixed and blended with the image."""
    mix = np.zeros(image.shape)
    for weight in rng.dirichlet((1, 1, 1)):
        view = image
        for _ in range(rng.integers(1, 4)):
            view = step(rng, view)
        mix += weight * view
    blend = rng.beta(1, 1)
    return (1 - blend) * image + blend * mix


def autoaugment(rng: Rng, image: Floats, other: Floats) -> Floats:
    """CIFAR's policy for small images, ImageNet's for large ones."""
    from apr_jax.augment.autoaugment import POLICIES

    policy = POLICIES["cifar10" if len(image) == 32 else "imagenet"]
    for name, prob, magnitude in policy[rng.integers(len(policy))]:
        if rng.uniform() < prob:
            image = oracle.pillow_op(
                image, name, magnitude, bool(rng.choice((True, False)))
            )
    return image


def random_autoaugment(rng: Rng, image: Floats, other: Floats) -> Floats:
    """Two of nine operations, any probability and magnitude."""
    for _ in range(2):
        if rng.uniform() * 10 < rng.integers(11):
            name = str(rng.choice(augment_lib.NAMES))
            level = float(rng.integers(10))
            image = oracle.pillow_op(
                image, name, level, bool(rng.choice((True, False)))
            )
    return image


def low_part(image: Floats) -> Floats:
    """A blur of three pixels."""
    taps = np.exp(-2.0 * np.arange(-1, 2) ** 2)
    blurred = image.astype(np.float64)
    for axis in (0, 1):
        blurred = scipy.ndimage.convolve1d(
            blurred, taps / taps.sum(), axis=axis, mode="mirror"
        )
    return blurred


def hybrid_augment(rng: Rng, image: Floats, other: Floats) -> Floats:
    """Own low part, the other's high one."""
    return low_part(image) + other - low_part(other)


def hybrid_augment_pp(rng: Rng, image: Floats, other: Floats) -> Floats:
    """With APR-P in the low part."""
    blurred = low_part(other)
    return oracle.recombine(blurred, low_part(image)) + other - blurred


def hybrid_augment_single(rng: Rng, image: Floats, other: Floats) -> Floats:
    """Two versions of one image."""
    once = random_operation(rng, image)
    if rng.uniform() >= 0.5:
        return once
    twice = random_operation(rng, once)
    pair = (once, twice) if rng.uniform() < 0.5 else (twice, once)
    return hybrid_augment(rng, *pair)


def amplitude_mix(rng: Rng, image: Floats, other: Floats) -> Floats:
    """Over each channel."""
    own, donor = (np.fft.fft2(x, axes=(0, 1)) for x in (image, other))
    weight = rng.uniform()
    size = (1 - weight) * np.abs(own) + weight * np.abs(donor)
    return np.fft.ifft2(size * np.exp(1j * np.angle(own)), axes=(0, 1)).real


def low_amplitude_swap(rng: Rng, image: Floats, other: Floats) -> Floats:
    """A square of 0.09."""
    own, donor = (np.fft.fft2(x, axes=(0, 1)) for x in (image, other))
    size, swapped = (np.fft.fftshift(np.abs(x), axes=(0, 1)) for x in (own, donor))
    reach, middle = int(0.09 * len(image)), len(image) // 2
    here = slice(middle - reach, middle + reach + 1)
    size[here, here] = swapped[here, here]
    size = np.fft.ifftshift(size, axes=(0, 1))
    return np.fft.ifft2(size * np.exp(1j * np.angle(own)), axes=(0, 1)).real


def fourier_basis_noise(rng: Rng, image: Floats, other: Floats) -> Floats:
    """A plane wave in each channel."""
    side = len(image)
    place = np.linspace(-side / 2, side / 2, side)
    noisy = image / 255
    for channel in range(3):
        f = rng.integers(1, side + 1) / side
        angle = -np.pi * rng.integers(64) / 63
        along = place[:, None] * np.cos(angle) + place[None] * np.sin(angle)
        wave = np.sin(2 * np.pi * f * along - np.pi / 4)
        wave *= rng.exponential(5) * side / 32 / np.linalg.norm(wave)
        noisy[..., channel] += wave
    return noisy * 255


def vital_phase(rng: Rng, image: Floats, other: Floats) -> Floats:
    """Phase noise by blocks of two frequencies."""
    spectrum = np.fft.fftn(image)
    size, half = np.abs(spectrum), len(image) // 2
    blocks = size.reshape(half, 2, half, 2, 3)
    vital = (blocks == blocks.max((1, 3), keepdims=True)).reshape(size.shape)
    deviation = np.sqrt(np.where(vital, 0.001, 0.014))
    angle = np.angle(spectrum) + deviation * rng.normal(size=size.shape)
    return np.fft.ifftn(size * np.exp(1j * angle)).real


@functools.cache
def modes(side: int, cut: int) -> tuple[Floats, Floats]:
    """The deformations' modes, and their distances from zero."""
    index = np.arange(1, cut + 1)
    waves = np.sin(np.pi * np.outer(np.linspace(0, 1, side), index))
    return waves, np.hypot(index[:, None], index[None])


def primitive(rng: Rng, image: Floats) -> Floats:
    """One of PRIME's three, in [0, 1]."""
    side, small = len(image), len(image) == 32
    largest = 100 if small else 500
    kind = rng.integers(3)
    if kind == 0:
        limit = rng.integers(3, largest + 1)
        cut = int(rng.beta(0.5, 0.5) * (limit - 1)) + 2
        waves, distance = modes(side, cut)
        low = 1 / (np.pi * side**2 * np.log(cut))
        high = max(low, 4 / (np.pi**3 * cut**2 * np.log(cut)))
        scale = np.sqrt(low + rng.beta(0.5, 0.5) * (high - low)) * side
        grid = np.meshgrid(np.arange(side), np.arange(side), indexing="ij")
        at = []
        for axis in grid:
            weights = rng.normal(size=(cut, cut)) * (distance < cut + 0.5) / distance
            at.append(np.clip(axis - scale * waves @ weights @ waves.T, 0, side - 1))
        planes = [
            scipy.ndimage.map_coordinates(image[..., c], at, order=1) for c in range(3)
        ]
        return np.stack(planes, axis=-1)
    if kind == 1:
        last = rng.integers(1, largest + 1)
        first = 1 if small else rng.integers(1, last + 1)
        index = np.arange(first, last + 1 if small else min(first + 20, last + 1))
        deviation = np.sqrt(rng.uniform(0, 0.01 if small else 0.05))
        curved = image.copy()
        for k in index:
            curved += deviation * rng.normal(size=3) * np.sin(np.pi * k * image)
        return np.clip(curved, 0, 1)
    kernel = rng.uniform(0, 4) * rng.normal(size=(3, 3))
    kernel[1, 1] += 1
    planes = [
        scipy.ndimage.correlate(image[..., c], kernel, mode="constant")
        for c in range(3)
    ]
    return np.clip(np.stack(planes, axis=-1), 0, 1)


def prime(rng: Rng, image: Floats, other: Floats) -> Floats:
    """Three chains of PRIME's primitives."""
    return 255 * chains(rng, image / 255, primitive)


PER_IMAGE: dict[str, Callable[[Rng, Floats, Floats], Floats]] = {
    function.__name__: function
    for function in (
        cutout,
        patch_gaussian,
        mixup,
        cutmix,
        augmix,
        autoaugment,
        random_autoaugment,
        hybrid_augment,
        hybrid_augment_pp,
        hybrid_augment_single,
        amplitude_mix,
        low_amplitude_swap,
        fourier_basis_noise,
        vital_phase,
        prime,
    )
}


def part(task: tuple[str, int, int, int]) -> np.ndarray:
    """A method on the held images from start to stop, as uint8."""
    name, start, stop, seed = task
    rng, method = np.random.default_rng(seed), PER_IMAGE[name]
    done = []
    for image in common.held[start:stop]:
        changed = method(rng, image, common.held[rng.integers(len(common.held))])
        if changed.dtype != np.uint8:
            changed = np.clip(np.round(changed), 0, 255).astype(np.uint8)
        done.append(changed)
    return np.stack(done)


def bench(size: int, methods: list[str], turns: Turns) -> list[Row]:
    """All methods at one size."""
    import jax

    count = BATCHES[size]
    images = photographs(count, size)
    device_images, key = jax.device_put(images), jax.random.key(0)
    rows: list[Row] = []
    here = contestants_here(size)
    with common.workers(images) as pool:
        for name in methods:
            run = jax.jit(here[name])
            tasks = [
                (name, *share, number)
                for number, share in enumerate(common.shares(count))
            ]
            contestants = {
                f"{name}, this project": lambda run=run: jax.block_until_ready(
                    run(key, device_images)
                ),
                f"{name}, per image": lambda tasks=tasks: list(pool.map(part, tasks)),
            }
            rows += turns.take(name, size, contestants, images=count)
    return rows


def main() -> None:
    """Measures, prints the table and writes the records."""
    parser = common.turns_parser(__doc__, rounds=5, seconds=0.4, quick=0.1)
    choices = tuple(PER_IMAGE)
    parser.add_argument("--methods", nargs="+", choices=choices, default=list(choices))
    arguments = parser.parse_args()
    print(common.machine())
    for size in arguments.sizes:
        rows = bench(size, arguments.methods, common.turns_of(arguments))
        print(common.table(rows), flush=True)
        if arguments.out:
            common.write_rows(arguments.out, rows, job="experiments.bench_rivals")


if __name__ == "__main__":
    main()
