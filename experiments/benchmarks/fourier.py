"""Speed of a Fourier heatmap: JAX and a PyTorch loop on the same network, in one run.

    python -m experiments.benchmarks.fourier
    python3.13 -m experiments.benchmarks.fourier --torch_python python3.11 --out FILE

A heatmap of 31 x 31 frequencies over 1,000 images of 32 x 32 pixels. The two take
turns, so that what else the machine does hits both; each is a process of its own that
compiles first. A turn is a few frequencies, and the whole map is extrapolated from
the median time of one: all frequencies cost the same. Symmetry leaves 481 waves of the
961; the PyTorch loop is credited with it too. Both have the same weights, and the
errors that they count under the same waves and signs are compared.
"""

import argparse
import pathlib
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np

from experiments.benchmarks import common, contest, torch_network

NORM = 4.0
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


def images(count: int) -> np.ndarray:
    """Random smooth uint8 images [count, 32, 32, 3]."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    return coarse.repeat(4, axis=1).repeat(4, axis=2)


def prepare(folder: pathlib.Path, model: str, count: int) -> None:
    """Writes random weights in PyTorch's layout, and what they make of the images.

    The answers on undisturbed images are the labels: an error is then an answer that
    a wave has changed.
    """
    import torch

    rng = np.random.default_rng(1)
    state = {}
    for name, tensor in torch_network.build(model).state_dict().items():
        shape = tuple(tensor.shape)
        if name.endswith("num_batches_tracked"):
            continue
        if len(shape) > 1:
            values = rng.normal(size=shape) * np.sqrt(2 / np.prod(shape[1:]))
        elif name.endswith(("running_var", "weight")):
            values = rng.uniform(0.5, 1.5, shape)
        else:
            values = 0.1 * rng.normal(size=shape)
        state[name] = values.astype(np.float32)
    np.savez(folder / "weights.npz", **state)
    network = torch_network.normalised(model, state, MEAN, STD)
    pixels = torch.from_numpy(images(count)).permute(0, 3, 1, 2).float() / 255
    with torch.inference_mode():
        logits = network(pixels)
    np.save(folder / "labels.npy", logits.argmax(1).numpy().astype(np.int32))


# Takes the numbers of waves, returns how many images are not recognised under each.
Count = Callable[[list[int]], list[int]]


def jax_count(args: argparse.Namespace, stored: dict[str, np.ndarray]) -> Count:
    """A counter that works as ``apr_jax.evaluate.fourier`` does."""
    from apr_jax import config as config_lib
    from apr_jax import data, parallel, tuning
    from apr_jax.evaluate import classifier, fourier_probe
    from apr_jax.evaluate.context import Context
    from apr_jax.models import torch_weights

    tuning.use_onednn()
    variables = torch_weights.from_torch(args.model, stored)
    settings = {
        "model": {"name": args.model},
        "data": {"mean": MEAN, "std": STD},
        "eval": {"batch_size": args.batch},
    }
    config = config_lib.parse(settings)
    network = classifier.make(config, variables, map(str, range(10)))
    layout = parallel.make_layout(1)
    labels = np.load(args.folder / "labels.npy")
    split = data.ArraySplit(images(args.images), labels)
    probe = fourier_probe.Probe(network, Context(layout, quiet=True), split)
    places, _ = fourier_probe.unique_waves(32, 32, 31)
    count = probe.waves(NORM)
    return lambda numbers: count(places[numbers]).tolist()


def torch_count(args: argparse.Namespace, stored: dict[str, np.ndarray]) -> Count:
    """A counter that is a loop over frequencies in PyTorch."""
    import torch

    network = torch_network.normalised(args.model, stored, MEAN, STD)
    network, device = torch_network.placed(network, args.cores)
    pixels = torch.from_numpy(images(args.images)).to(device)
    pixels = pixels.permute(0, 3, 1, 2).float() / 255
    labels = torch.from_numpy(np.load(args.folder / "labels.npy")).to(device)
    places = np.load(args.folder / "places.npy")

    @torch.inference_mode()
    def count(numbers: list[int]) -> list[int]:
        found = []
        for number in numbers:
            spectrum = torch.zeros((32, 17), dtype=torch.complex64, device=device)
            row, column = places[number]
            # The half spectrum has the columns up to 16.
            if column > 16:
                row, column = -row % 32, -column % 32
            spectrum[row, column] = 1
            wave = torch.fft.irfft2(spectrum, (32, 32))
            wave = wave / wave.norm()
            wrong = 0
            for start in range(0, len(pixels), args.batch):
                x = pixels[start : start + args.batch]
                signs = torch.randint(0, 2, (len(x), 3, 1, 1), device=device) * 2 - 1
                x = (x + NORM * signs * wave).clamp(0, 1)
                logits = network(x.contiguous(memory_format=torch.channels_last))
                wrong += int((logits.argmax(1) != labels[start : start + len(x)]).sum())
            found.append(wrong)
        return found

    return count


def child(args: argparse.Namespace) -> None:
    """Compiles, then answers each line of numbers with seconds and counts."""
    with np.load(args.folder / "weights.npz") as file:
        stored = dict(file)
    count = {"jax": jax_count, "torch": torch_count}[args.child](args, stored)

    def turn(numbers: list[int]) -> dict[str, Any]:
        done = common.timed(lambda: count(numbers))
        return {"seconds": done.clock / len(numbers), "counts": done.result}

    first = common.timed(lambda: count([0])).clock
    contest.answer(args.child, turn, first=first)


def compare(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Lets the two take turns; returns a record for each."""
    from apr_jax.evaluate import fourier_probe

    with tempfile.TemporaryDirectory() as folder:
        args.folder = pathlib.Path(folder)
        module = ["experiments.benchmarks.fourier", "--folder", folder]
        command = [args.torch_python, "-m", *module, "--child", "prepare"]
        subprocess.run([*command, *sys.argv[1:]], cwd=common.ROOT, check=True)
        places, _ = fourier_probe.unique_waves(32, 32, 31)
        np.save(args.folder / "places.npy", places)
        chosen = np.linspace(1, len(places) - 1, args.rounds * args.waves).astype(int)
        contestants = contest.compare(
            [("jax", sys.executable, "jax"), ("torch", args.torch_python, "torch")],
            module,
            chosen.reshape(args.rounds, args.waves).tolist(),
            patience=args.patience,
        )

    def measured(contestant: contest.Contestant) -> dict[str, Any]:
        counts = [n for answer in contestant.answers for n in answer["counts"]]
        seconds = statistics.median(contestant.seconds)
        return {
            "waves_timed": len(counts),
            "seconds_per_frequency": seconds,
            "seconds_to_first": contestant.first["first"],
            "seconds_of_map_extrapolated": len(places) * seconds,
            "mean_error": float(np.mean(counts)) / args.images,
        }

    shared = {"model": args.model, "images": args.images, "batch": args.batch}
    return contest.compared("bench_fourier", contestants, measured, **shared)


def main() -> None:
    """Parses the command line."""
    parser = contest.children_parser(__doc__, model="wrn_10_1", rounds=5, patience=300)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=250)
    parser.add_argument("--waves", type=int, default=2, help="in each turn")
    parser.add_argument("--folder", type=pathlib.Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child == "prepare":
        prepare(args.folder, args.model, args.images)
        return
    if args.child:
        child(args)
        return
    records = compare(args)
    common.show(
        f"31 x 31 heatmap, {args.model}, {args.images} images",
        {
            "": "{version}",
            "s/frequency": "{seconds_per_frequency:.3f}",
            "whole map, s": "{seconds_of_map_extrapolated:.0f}",
            "of PyTorch": "{ratio_to_pytorch:.2f}",
            "mean error": "{mean_error:.4f}",
        },
        records,
    )
    common.append(args.out, records)


if __name__ == "__main__":
    main()
