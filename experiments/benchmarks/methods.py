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

import jax
import jax.numpy as jnp
import numpy as np

from apr_jax import augment
from experiments.benchmarks import common, per_image
from experiments.benchmarks.common import BATCHES, Row, Turns
from tests import oracle


def contestants_here(size: int) -> dict[str, Callable[..., Any]]:
    """Method -> function of a key and uint8 images [N, H, W, C]."""
    small = size == 32
    strengths = augment.get_method("prime").after[0].strengths

    def pixels(method: Callable[..., Any], **knobs: Any) -> Callable[..., Any]:
        return lambda key, x: method(key, x.astype(jnp.float32) / 255, **knobs)

    levels = functools.partial
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


def part(task: tuple[str, int, int, int]) -> np.ndarray:
    """A method on the held images from start to stop, as uint8."""
    name, start, stop, seed = task
    rng, method = np.random.default_rng(seed), getattr(per_image, name)
    done = []
    for image in common.held[start:stop]:
        other = common.held[rng.integers(len(common.held))]
        done.append(per_image.as_uint8(method(rng, image, other)))
    return np.stack(done)


def bench(size: int, methods: list[str], turns: Turns) -> list[Row]:
    """All methods at one size."""
    count = BATCHES[size]
    images = oracle.photo_crops((size, size), count)
    device_images, key = jax.device_put(images), jax.random.key(0)
    rows: list[Row] = []
    here = contestants_here(size)
    with common.workers(images) as pool:
        for name in methods:
            run = jax.jit(here[name])
            tasks = [(name, *own, i) for i, own in enumerate(common.shares(count))]
            ours = lambda run=run: jax.block_until_ready(run(key, device_images))
            theirs = lambda tasks=tasks: list(pool.map(part, tasks))
            contestants = {f"{name}, this project": ours, f"{name}, per image": theirs}
            rows += turns.take(name, size, contestants, images=count)
    return rows


def main() -> None:
    """Measures, prints the table and writes the records."""
    parser = common.turns_parser(__doc__, rounds=5, seconds=0.4, quick=0.1)
    choices = list(contestants_here(32))
    parser.add_argument("--methods", nargs="+", choices=choices, default=choices)
    arguments = parser.parse_args()
    print(common.machine())
    for size in arguments.sizes:
        rows = bench(size, arguments.methods, common.turns_of(arguments))
        common.report(rows, arguments.out, job="experiments.bench_rivals")


if __name__ == "__main__":
    main()
