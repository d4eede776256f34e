"""Speed of the augmentations, beside what they replace, in one run on one machine.

    python -m experiments.benchmarks.augment [--quick] [--out FILE.jsonl] [--parts ...]

Three comparisons, each on the same cores, the contestants taking turns:

pair    APR-P here, with the coin always up, and as the plain formula in PyTorch (fftn,
        abs, angle, exp, ifftn), also as the paper's code has it, which takes both
        images' amplitudes and angles. Needs PyTorch (pip install torch), which computes
        on the processor whatever JAX has.
single  APR-S here and with Pillow and NumPy in as many worker processes as cores, which
        are handed the random draws and hold the images already.
step    APR-SP's share of a WRN-40-2 training step, batch 128 (16 on a CPU): the time
        of the step less that of one which passes the same number of images through
        without APR, and the time of APR-SP by itself.
backends  The ways to compute the DFT of `apr_jax.spectral.recombine`.

Before the clock runs, the results are compared. The tables show images per second,
medians over the rounds; a ratio is the median of the rounds' ratios. Images are crops
of scikit-learn's two photographs.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from apr_jax import apr_pair, apr_single, augment, network, presets, spectral
from apr_jax import config as config_lib
from apr_jax.augment.keys import per_image_keys
from apr_jax.train import optim, step, views
from apr_jax.train.state import init_state
from experiments import recipes
from experiments.benchmarks import common, per_image
from experiments.benchmarks.common import BATCHES, Row, Turns
from tests import oracle

PARTS = ("pair", "single", "backends", "step")


# -- APR-P -----------------------------------------------------------------------------


def bench_pair(size: int, turns: Turns) -> list[Row]:
    """APR-P with the coin always up, against the plain formula in PyTorch."""
    try:
        import torch
    except ModuleNotFoundError as error:
        raise SystemExit(
            "the pair part compares with PyTorch: pip install torch, or leave it out "
            "with --parts"
        ) from error
    torch.set_num_threads(common.cores())
    count = BATCHES[size]
    pixels = oracle.photo_crops((size, size), count).astype(np.float32) / 255
    order = np.random.default_rng(1).permutation(count)
    device_pixels, device_order = jax.device_put((pixels, order.astype(np.int32)))
    key = jax.random.key(0)
    run = jax.jit(lambda key, x, index: apr_pair(key, x, prob=1.0, donor_index=index))

    def here() -> jax.Array:
        return run(key, device_pixels, device_order).block_until_ready()

    # PyTorch's own layout, [N, C, H, W], in which the formula is fastest there.
    tensor = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
    permutation, axes = torch.from_numpy(order), (1, 2, 3)

    @torch.no_grad()
    def plain() -> torch.Tensor:
        own = torch.fft.fftn(tensor, dim=axes)
        donor = torch.fft.fftn(tensor[permutation], dim=axes)
        mixed = donor.abs() * torch.exp(1j * own.angle())
        return torch.fft.ifftn(mixed, dim=axes).real

    @torch.no_grad()
    def released() -> torch.Tensor:
        own = torch.fft.fftn(tensor, dim=axes)
        _, angle = own.abs(), own.angle()
        donor = torch.fft.fftn(tensor[permutation], dim=axes)
        magnitude, _ = donor.abs(), donor.angle()
        mixed = magnitude * torch.exp(1j * angle)
        return torch.fft.ifftn(mixed, dim=axes).real

    want = plain().permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(np.asarray(here()), want, atol=1e-4)
    contestants = {
        "APR-P, this project": here,
        "PyTorch, plain formula": plain,
        "PyTorch, as released": released,
    }
    return turns.take("pair", size, contestants, images=count)


# -- APR-S -----------------------------------------------------------------------------


def pillow_part(part: tuple[int, int, np.ndarray]) -> np.ndarray:
    """APR-S of the held images from start to stop."""
    start, stop, draws = part
    join, as_uint8 = oracle.recombine, per_image.as_uint8
    pairs = zip(common.held[start:stop], draws.tolist(), strict=True)
    return np.stack([as_uint8(per_image.one_or_two(*pair, join)) for pair in pairs])


def bench_single(size: int, turns: Turns) -> list[Row]:
    """APR-S against Pillow and NumPy in a worker process for each core."""
    count = BATCHES[size]
    images = oracle.photo_crops((size, size), count)
    key = jax.random.key(0)
    keys = per_image_keys(key, count)
    draws = np.asarray(jax.vmap(lambda k: jax.random.uniform(k, (8,)))(keys))
    device_images = jax.device_put(images)
    run = jax.jit(apr_single)

    def here() -> jax.Array:
        return run(key, device_images).block_until_ready()

    parts = [(a, b, draws[a:b]) for a, b in common.shares(count)]
    with common.workers(images) as pool:

        def pillow() -> np.ndarray:
            return np.concatenate(list(pool.map(pillow_part, parts)))

        away = np.abs(np.asarray(here(), np.int32) - pillow())
        share = (away <= 1).mean()
        if share < 0.99:
            raise AssertionError(f"only {share:.2%} within one grey level of Pillow")
        name = f"Pillow and NumPy, {common.cores()} processes"
        contestants = {"APR-S, this project": here, name: pillow}
        return turns.take("single", size, contestants, images=count)


# -- backends, step --------------------------------------------------------------------


def bench_backends(size: int, turns: Turns) -> list[Row]:
    """The backends of `recombine`, and what "auto" makes of them."""
    count = BATCHES[size]
    images = oracle.photo_crops((size, size), count)
    pixels = jax.device_put(images.astype(np.float32) / 255)

    def contestant(backend: str) -> Callable[[], jax.Array]:
        run = jax.jit(functools.partial(spectral.recombine, backend=backend))
        return lambda: run(pixels[::-1], pixels).block_until_ready()

    contestants = {f"recombine, {b}": contestant(b) for b in spectral.BACKENDS}
    return turns.take("backends", size, contestants, images=count)


def bench_step(turns: Turns, dtype: str) -> list[Row]:
    """A WRN-40-2 training step with APR-SP, without, and APR-SP by itself."""
    base = presets.cifar("wrn_40_2,apr_sp,cifar10")

    def changed(**changes: object) -> config_lib.Config:
        settings = recipes.changed(base, model__dtype=dtype, **changes)
        return config_lib.parse(settings.to_dict())

    config = changed()
    # The same number of images through the network, none of them recombined.
    without = changed(augment__method="apr_p", augment__pair_prob=0.0)
    plain = changed(augment__crop_pad=0, augment__flip=False)
    # Several steps a call, so that coins of many steps come into a round and the calls
    # overlap with the work as they do in training. A CPU would take minutes for it.
    batch, steps = (16, 1) if jax.default_backend() == "cpu" else (128, 8)
    images = jax.device_put(oracle.photo_crops((32, 32), batch))
    labels = jnp.arange(batch) % 10
    positions = jnp.arange(batch)
    key = jax.random.key(0)
    model = network.make_model(config, num_classes=10)
    optimizer = optim.make_optimizer(config.optim, optim.schedule(config.optim, 390))
    start = init_state(key, model, optimizer, (32, 32, 3))

    def trainer(config: config_lib.Config) -> Callable[[], object]:
        run = jax.jit(step.make_train_step(model, optimizer, config), donate_argnums=0)
        state = jax.tree.map(jnp.copy, start)

        def work() -> object:
            nonlocal state
            for _ in range(steps):
                state, metrics = run(state, images, labels, positions, key)
            return jax.block_until_ready(metrics)

        return work

    share = views.Share(labels, positions, plain, None)

    @jax.jit
    def augmentation(key: jax.Array, number: jax.Array) -> jax.Array:
        key = jax.random.fold_in(key, number)
        clean = views.augment_images(key, images, positions, plain, augment.APR_S)
        mixed = views.mix_images(key, clean, augment.APR_P, share)[0]
        return jnp.sum(clean, dtype=jnp.uint32) + jnp.sum(mixed)

    def alone() -> object:
        return jax.block_until_ready([augmentation(key, i) for i in range(steps)])

    contestants = {
        "step with APR-SP": trainer(config),
        "step without APR, same images": trainer(without),
        "APR-SP alone": alone,
    }
    rows = turns.take(f"step, {dtype}", 32, contestants, images=steps * batch)
    # Seconds are the inverse of speeds.
    difference, itself = 1 - 1 / rows[1].ratio, rows[2].ratio
    print(f"APR-SP takes {difference:.1%} of the step by difference")
    print(f"and {itself:.2%} by itself")
    return rows


def main() -> None:
    """Measures, prints the table and writes the records."""
    parser = common.turns_parser(__doc__, rounds=9, seconds=0.5, quick=0.2)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument(
        "--dtype", default="float32", help="of the step's arithmetic, or bfloat16"
    )
    arguments = parser.parse_args()
    turns = common.turns_of(arguments)
    print(common.machine())
    by_size = {"pair": bench_pair, "single": bench_single, "backends": bench_backends}
    chosen = [bench for part, bench in by_size.items() if part in arguments.parts]
    rows = [row for n in arguments.sizes for bench in chosen for row in bench(n, turns)]
    if "step" in arguments.parts:
        rows += bench_step(turns, arguments.dtype)
    common.report(rows, arguments.out, job="experiments.bench_augment")


if __name__ == "__main__":
    main()
