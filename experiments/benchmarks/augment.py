"""How fast the augmentations are, beside what they replace, in one run on one machine.

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

import argparse
import concurrent.futures
import dataclasses
import functools
import itertools
import math
import multiprocessing
import os
import pathlib
import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageOps

from apr_jax import network
from apr_jax.train.state import init_state

PARTS = ("pair", "single", "backends", "step")
BATCHES = {32: 256, 224: 32}  # image size -> images
STEP_BATCH, STEPS = 128, 8
CPU_STEP_BATCH, CPU_STEPS = 16, 1


@dataclasses.dataclass(frozen=True)
class Row:
    """Images per second of one contestant, and how often that is the first one's."""

    part: str
    size: int
    name: str
    speed: float
    ratio: float  # the first contestant's speed over this one's
    low: float  # the lowest and the highest ratio of a round
    high: float
    images: int


def photographs(count: int, size: int) -> np.ndarray:
    """Random crops of two photographs: uint8 [count, size, size, 3]."""
    from sklearn.datasets import load_sample_images

    rng = np.random.default_rng(0)
    crops = []
    for photo in load_sample_images().images * math.ceil(count / 2):
        if size <= 64:
            photo = np.asarray(Image.fromarray(photo).reduce(4))
        top, left = (rng.integers(side - size + 1) for side in photo.shape[:2])
        crops.append(photo[top : top + size, left : left + size])
    return np.stack(crops[:count])


def take_turns(
    part: str,
    size: int,
    contestants: dict[str, Callable[[], object]],
    *,
    images: int,
    rounds: int,
    seconds: float,
) -> list[Row]:
    """Times the contestants in turns, each turn about `seconds` long.

    Each is called once beforehand; a call must return only when its work is done.
    """
    speeds: dict[str, list[float]] = {name: [] for name in contestants}
    calls = {}
    for name, work in contestants.items():
        work()
        start = time.perf_counter()
        work()
        once = time.perf_counter() - start
        calls[name] = max(1, round(seconds / once))
    for _ in range(rounds):
        for name, work in contestants.items():
            start = time.perf_counter()
            for _ in range(calls[name]):
                work()
            elapsed = time.perf_counter() - start
            speeds[name].append(calls[name] * images / elapsed)
    first = next(iter(speeds.values()))
    rows = []
    for name, own in speeds.items():
        ratios = [a / b for a, b in zip(first, own, strict=True)]
        rows.append(
            Row(
                part=part,
                size=size,
                name=name,
                speed=statistics.median(own),
                ratio=statistics.median(ratios),
                low=min(ratios),
                high=max(ratios),
                images=images,
            )
        )
    return rows


# -- APR-P -----------------------------------------------------------------------------


def bench_pair(size: int, *, cores: int, rounds: int, seconds: float) -> list[Row]:
    """APR-P with the coin always up, against the plain formula in PyTorch."""
    import jax

    from apr_jax import apr_pair

    try:
        import torch
    except ModuleNotFoundError as error:
        raise SystemExit(
            "the pair part compares with PyTorch: pip install torch, or leave it out "
            "with --parts"
        ) from error
    torch.set_num_threads(cores)
    count = BATCHES[size]
    pixels = photographs(count, size).astype(np.float32) / 255
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
    return take_turns(
        "pair", size, contestants, images=count, rounds=rounds, seconds=seconds
    )


# -- APR-S -----------------------------------------------------------------------------

NAMES = (
    "autocontrast",
    "equalize",
    "posterize",
    "rotate",
    "solarize",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
)


def pillow_operation(image: np.ndarray, draw: Sequence[float]) -> np.ndarray:
    """One of AugMix's nine operations at a level of up to 3, by Pillow."""
    name, strength, direction = NAMES[int(draw[0] * 9)], draw[1], draw[2]
    level = 0.1 + 2.9 * strength
    sign = -1 if direction < 0.5 else 1
    picture = Image.fromarray(image)
    width, height = picture.size
    bilinear = Image.Resampling.BILINEAR
    simple = {
        "autocontrast": lambda: ImageOps.autocontrast(picture),
        "equalize": lambda: ImageOps.equalize(picture),
        "posterize": lambda: ImageOps.posterize(picture, 4 - int(level * 4 / 10)),
        "solarize": lambda: ImageOps.solarize(picture, 256 - int(level * 256 / 10)),
        "rotate": lambda: picture.rotate(sign * int(level * 3), resample=bilinear),
    }
    if name in simple:
        return np.asarray(simple[name]())
    matrix = {
        "shear_x": (1, sign * level * 0.03, 0, 0, 1, 0),
        "shear_y": (1, 0, 0, sign * level * 0.03, 1, 0),
        "translate_x": (1, 0, sign * int(level * (width / 3) / 10), 0, 1, 0),
        "translate_y": (1, 0, 0, 0, 1, sign * int(level * (height / 3) / 10)),
    }[name]
    affine = Image.Transform.AFFINE
    return np.asarray(picture.transform(picture.size, affine, matrix, bilinear))


def pillow_single(image: np.ndarray, draw: Sequence[float]) -> np.ndarray:
    """APR-S of one uint8 image by Pillow and NumPy, from eight uniform draws."""
    once = pillow_operation(image, draw[0:3])
    if draw[6] >= 0.5:
        return once
    twice = pillow_operation(once, draw[3:6])
    first, second = (np.fft.fftn(x, axes=(0, 1, 2)) for x in (once, twice))
    if draw[7] < 0.5:
        first, second = second, first
    mixed = np.abs(first) * np.exp(1j * np.angle(second))
    levels = np.fft.ifftn(mixed, axes=(0, 1, 2)).real
    return np.clip(np.round(levels), 0, 255).astype(np.uint8)


_held: np.ndarray  # the images, in a worker process


def hold(images: np.ndarray) -> None:
    """Gives a worker process its images."""
    global _held
    _held = images


def pillow_part(part: tuple[int, int, np.ndarray]) -> np.ndarray:
    """APR-S of the held images from start to stop."""
    start, stop, draws = part
    pairs = zip(_held[start:stop], draws.tolist(), strict=True)
    return np.stack([pillow_single(image, draw) for image, draw in pairs])


def bench_single(size: int, *, cores: int, rounds: int, seconds: float) -> list[Row]:
    """APR-S against Pillow and NumPy in a worker process for each core."""
    import jax

    from apr_jax import apr_single
    from apr_jax.augment.keys import per_image_keys

    count = BATCHES[size]
    images = photographs(count, size)
    key = jax.random.key(0)
    keys = per_image_keys(key, count)
    draws = np.asarray(jax.vmap(lambda k: jax.random.uniform(k, (8,)))(keys))
    device_images = jax.device_put(images)
    run = jax.jit(apr_single)

    def here() -> jax.Array:
        return run(key, device_images).block_until_ready()

    bounds = np.linspace(0, count, cores + 1).astype(int)
    parts = [(int(a), int(b), draws[a:b]) for a, b in itertools.pairwise(bounds)]
    # Workers that share a core slow each other down.
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(
        cores, context, initializer=hold, initargs=(images,)
    ) as pool:

        def pillow() -> np.ndarray:
            return np.concatenate(list(pool.map(pillow_part, parts)))

        away = np.abs(np.asarray(here(), np.int32) - pillow())
        share = (away <= 1).mean()
        if share < 0.99:
            raise AssertionError(f"only {share:.2%} within one grey level of Pillow")
        name = f"Pillow and NumPy, {cores} processes"
        contestants = {"APR-S, this project": here, name: pillow}
        return take_turns(
            "single", size, contestants, images=count, rounds=rounds, seconds=seconds
        )


# -- backends, step --------------------------------------------------------------------


def bench_backends(size: int, *, rounds: int, seconds: float) -> list[Row]:
    """The backends of `recombine`, and what "auto" makes of them."""
    import jax

    from apr_jax import recombine, spectral

    count = BATCHES[size]
    pixels = jax.device_put(photographs(count, size).astype(np.float32) / 255)

    def contestant(backend: str) -> Callable[[], jax.Array]:
        run = jax.jit(functools.partial(recombine, backend=backend))
        return lambda: run(pixels[::-1], pixels).block_until_ready()

    contestants = {f"recombine, {b}": contestant(b) for b in spectral.BACKENDS}
    return take_turns(
        "backends", size, contestants, images=count, rounds=rounds, seconds=seconds
    )


def bench_step(*, rounds: int, seconds: float, dtype: str) -> list[Row]:
    """A WRN-40-2 training step with APR-SP, without, and APR-SP by itself."""
    import jax
    import jax.numpy as jnp

    from apr_jax import config as config_lib
    from apr_jax import presets
    from apr_jax.train import optim, step, views

    values = presets.cifar("wrn_40_2,apr_sp,cifar10")
    values.model.dtype = dtype
    config = config_lib.parse(values.to_dict())
    # The same number of images through the network, none of them recombined.
    without = dataclasses.replace(
        config,
        augment=dataclasses.replace(config.augment, method="apr_p", pair_prob=0.0),
    )
    # Several steps a call, so that coins of many steps come into a round and the calls
    # overlap with the work as they do in training. A CPU would take minutes for it.
    batch, steps = STEP_BATCH, STEPS
    if jax.default_backend() == "cpu":
        batch, steps = CPU_STEP_BATCH, CPU_STEPS
    images = jax.device_put(photographs(batch, 32))
    labels = jnp.arange(batch) % 10
    positions = jnp.arange(batch)
    key = jax.random.key(0)
    model = network.make_model(config, num_classes=10)
    optimizer = optim.sgd(config.optim, optim.schedule(config.optim, 390))
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

    @jax.jit
    def augmentation(key: jax.Array, number: jax.Array) -> jax.Array:
        key = jax.random.fold_in(key, number)
        plain = dataclasses.replace(config.augment, crop_pad=0, flip=False)
        clean = views.augment_images(key, images, positions, plain)
        mixed = views.mix_images(key, clean, positions, plain, None, labels=labels)[0]
        return jnp.sum(clean, dtype=jnp.uint32) + jnp.sum(mixed)

    def alone() -> object:
        return jax.block_until_ready([augmentation(key, i) for i in range(steps)])

    contestants = {
        "step with APR-SP": trainer(config),
        "step without APR, same images": trainer(without),
        "APR-SP alone": alone,
    }
    return take_turns(
        f"step, {dtype}",
        32,
        contestants,
        images=steps * batch,
        rounds=rounds,
        seconds=seconds,
    )


# -- output ----------------------------------------------------------------------------


def table(rows: Sequence[Row]) -> str:
    """The measurements as text."""
    lines = [f"{'':36}{'px':>4}{'images/s':>12}{'times slower':>14}  (rounds)"]
    part = None
    for row in rows:
        if (row.part, row.size) != part:
            part = (row.part, row.size)
            lines.append(f"-- {row.part}")
        spread = "" if row.low == row.high else f"  ({row.low:.2f} to {row.high:.2f})"
        lines.append(
            f"{row.name:36}{row.size:4}{row.speed:12,.0f}{row.ratio:14.2f}{spread}"
        )
        if row.name.startswith("step without"):
            # Seconds are the inverse of speeds.
            share = 1 - 1 / row.ratio
            lines.append(f"{'':36}APR-SP takes {share:.1%} of the step by difference")
        if row.name == "APR-SP alone":
            lines.append(f"{'':36}and {row.ratio:.2%} by itself")
    return "\n".join(lines)


def write_records(
    path: pathlib.Path,
    rows: Sequence[Row],
    *,
    job: str = "experiments.bench_augment",
) -> None:
    """Appends two records for each row: its speed, and the first one's ratio to it."""
    import jax

    from apr_jax.metrics import Measured
    from apr_jax.runs import records as records_lib

    device = f"{jax.devices()[0].device_kind}, {len(os.sched_getaffinity(0))} cores"
    for row in rows:
        speed = Measured(row.speed, None, None, "images/s", row.images)
        ratio = Measured(row.ratio, None, None, "1", row.images)
        measured = {"images_per_second": speed, "speed_of_first_over_this": ratio}
        records = records_lib.records_of(
            measured,
            job=job,
            data=row.name,
            split=f"{row.part}, {row.size} px",
            step=0,
            config_hash="",
            seed=0,
            device=device,
            extra={"ratio_lowest": row.low, "ratio_highest": row.high},
        )
        records_lib.append(path, records)


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument(
        "--sizes", nargs="+", type=int, choices=tuple(BATCHES), default=list(BATCHES)
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=0.5, help="length of a turn")
    parser.add_argument("--quick", action="store_true", help="3 rounds of 0.2 seconds")
    parser.add_argument("--out", type=pathlib.Path, help="append records to this file")
    parser.add_argument(
        "--dtype", default="float32", help="of the step's arithmetic, or bfloat16"
    )
    return parser.parse_args()


def main() -> None:
    """Measures, prints the table and writes the records."""
    arguments = parse_arguments()
    rounds, seconds = arguments.rounds, arguments.seconds
    if arguments.quick:
        rounds, seconds = 3, 0.2
    cores = len(os.sched_getaffinity(0))
    import jax

    print(f"{cores} cores, {jax.devices()[0].device_kind}, JAX {jax.__version__}")
    often = {"rounds": rounds, "seconds": seconds}
    rows: list[Row] = []
    for size in arguments.sizes:
        if "pair" in arguments.parts:
            rows += bench_pair(size, cores=cores, **often)
        if "single" in arguments.parts:
            rows += bench_single(size, cores=cores, **often)
        if "backends" in arguments.parts:
            rows += bench_backends(size, **often)
    if "step" in arguments.parts:
        rows += bench_step(dtype=arguments.dtype, **often)
    print(table(rows))
    if arguments.out:
        write_records(arguments.out, rows)


if __name__ == "__main__":
    main()
