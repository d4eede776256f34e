"""Speed of making the fifteen corruptions, beside one image at a time.

    python -m experiments.benchmarks.corruptions --data test.npz --frost_dir FROST

makes the sets of CIFAR-10-C with ``apr_jax.corruptions`` on all cores, and a few images
of each with NumPy, SciPy, OpenCV and Pillow one by one on one core, as the benchmark's
own generator works (it needs about 1,060 s for 15 x 5 x 10,000 images on one core).
Prints the time of each corruption and of all, and their ratio, and appends it to
``results/bench_corruptions.jsonl``; needs OpenCV (opencv-python-headless) beside the
project's own requirements.
"""

import argparse
import os
import pathlib
import tempfile

import jax
import numpy as np

from apr_jax import corruptions
from apr_jax.corruptions import CORRUPTIONS, frost_files
from apr_jax.data import corrupted_files
from apr_jax.data.batches import ArraySplit
from apr_jax.runs import records
from experiments.benchmarks import common
from tests import oracle_corruptions

OUT = pathlib.Path(__file__).parents[1] / "results" / "bench_corruptions.jsonl"
_GENERATOR_SECONDS = 1060.0  # of the benchmark's own, on one core
_WHOLE = 10_000


def images_of(path: str, count: int) -> np.ndarray:
    """``images`` of an ``.npz``; without one noise of natural smoothness."""
    if path:
        with np.load(path) as stored:
            images = stored["images"]
        return np.resize(images, (count, *images.shape[1:]))
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (count, 8, 8, 3))
    fine = rng.integers(-20, 21, (count, 32, 32, 3))
    smooth = coarse.repeat(4, axis=1).repeat(4, axis=2)
    return np.clip(smooth + fine, 0, 255).astype(np.uint8)


def ours(images: np.ndarray, names: list[str], frost: str) -> tuple[float, float]:
    """Seconds for all severities, written to disk: on the clock, and of all cores."""
    split = ArraySplit(images, np.zeros(len(images), np.int32))
    with tempfile.TemporaryDirectory() as folder:
        recipe = corrupted_files.Recipe(
            "bench", len(images), images.shape[1], 0, "bench"
        )
        write = lambda: corrupted_files.write_npy(
            split,
            pathlib.Path(folder),
            names,
            recipe=recipe,
            frost_dir=frost,
            quiet=True,
        )
        return common.timed(write)[1:]


def theirs(images: np.ndarray, name: str, frost: str) -> float:
    """Seconds of one core for all severities of some images."""
    photographs = frost_files.load(frost) if name == "frost" else ()
    rng = np.random.default_rng(0)

    def all_severities() -> None:
        for severity in corruptions.SEVERITIES:
            for image in images:
                oracle_corruptions.corrupt(rng, image, name, severity, photographs)

    return common.timed(all_severities).processor


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="", help=".npz with uint8 images of 32 px")
    parser.add_argument("--frost_dir", default="", help="photographs of frost")
    parser.add_argument("--images", type=int, default=2_000, help="of each set, ours")
    parser.add_argument("--oracle_images", type=int, default=50)
    parser.add_argument("--out", type=pathlib.Path, default=OUT, help="gets a line")
    arguments = parser.parse_args()
    oracle_corruptions.cv2.setNumThreads(1)
    images = images_of(arguments.data, arguments.images)
    few = images[: arguments.oracle_images]
    print(common.machine())
    print("Microseconds an image; in brackets of all cores together. Compiling apart.")
    heads = f"{'ours':>10}{'(cores)':>10}{'compiling':>11}"
    print(f"{'':20}{heads}{'one by one':>12}{'ratio':>8}")
    total = dict.fromkeys(("ours", "busy", "compiling", "theirs"), 0.0)
    each = len(corruptions.SEVERITIES) * len(images)
    ratios = {}
    for name in CORRUPTIONS:
        first, _ = ours(images, [name], arguments.frost_dir)
        again, busy = ours(images, [name], arguments.frost_dir)
        slow = theirs(few, name, arguments.frost_dir)
        # What compiling takes doesn't grow with the number of images.
        cost = {
            "ours": again / each,
            "busy": busy / each,
            "compiling": max(first - again, 0.0),
            "theirs": slow / (len(corruptions.SEVERITIES) * len(few)),
        }
        total = {field: total[field] + seconds for field, seconds in cost.items()}
        ratio = cost["theirs"] / cost["ours"]
        ratios[name] = round(ratio, 2)
        print(
            f"{name:20}{1e6 * cost['ours']:10.1f}{1e6 * cost['busy']:10.1f}"
            f"{cost['compiling']:9.2f} s{1e6 * cost['theirs']:12.1f}{ratio:8.1f}",
            flush=True,
        )
    whole = len(corruptions.SEVERITIES) * _WHOLE
    seconds = whole * total["ours"] + total["compiling"]
    one_by_one = whole * total["theirs"]
    print(
        f"15 x 5 x {_WHOLE:,} images: {seconds:.1f} s, {total['compiling']:.1f} s of "
        f"them compiling; one by one on one core {one_by_one:.0f} s: "
        f"{one_by_one / seconds:.1f} times as fast "
        f"({total['theirs'] / total['busy']:.1f} times core for core, compiled)"
    )
    print(
        f"The benchmark's own generator takes about {_GENERATOR_SECONDS:,.0f} s on one "
        f"core: {_GENERATOR_SECONDS / seconds:.1f} times"
    )
    record = common.stamped(
        bench="corruptions",
        images=whole * len(CORRUPTIONS),
        seconds=round(seconds, 1),
        seconds_compiling=round(total["compiling"], 1),
        one_by_one_seconds=round(one_by_one, 1),
        ratio=round(one_by_one / seconds, 2),
        ratio_core_for_core=round(total["theirs"] / total["busy"], 2),
        ratio_each=ratios,
        cores=os.cpu_count(),
        device=jax.devices()[0].device_kind,
        jax=jax.__version__,
        code_version=records.code_version(),
    )
    common.append(arguments.out, [record])


if __name__ == "__main__":
    main()
