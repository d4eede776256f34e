"""What the DFT by matrix products loses where a TPU multiplies in fewer passes.

    python -m experiments.checks.dft_precision IMAGES.npy ...

Recombines the images of each file (uint8 [N, H, W, 3]) by turns, with products as they
are on a TPU: numbers are split into parts of bfloat16, whose products are exact and
summed in float32. Precision HIGH is three products of two parts, HIGHEST six of three.
They are compared with the formula in float64. Where the phase of a frequency isn't
defined, as of the colours of a grey image, no two ways agree; so images that the FFT in
float32 misses by more than 1e-4, too, are told apart. One line for each goes to
``results/dft_precision.jsonl``.
"""

import argparse
from collections.abc import Callable, Iterator
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from apr_jax import spectral
from apr_jax.gates import places
from apr_jax.spectral import dft
from experiments.benchmarks import common

OUT = common.ROOT / "experiments" / "results" / "dft_precision.jsonl"
BOUND = 1e-4  # of the range [0, 1]
AXES = ((-3, -2, -1), (-3, -2))
# Which parts, from the largest on, are multiplied with which; the smallest come first.
PASSES = {
    "DEFAULT, 1 pass": ((0, 0),),
    "HIGH, 3 passes": ((0, 1), (1, 0), (0, 0)),
    "HIGHEST, 6 passes": ((0, 2), (1, 1), (2, 0), (0, 1), (1, 0), (0, 0)),
}

Dot = Callable[[jax.Array, np.ndarray], jax.Array]


def in_passes(pairs: tuple[tuple[int, int], ...]) -> Dot:
    """The product that a TPU makes of these pairs of parts."""
    count = 1 + max(max(pair) for pair in pairs)

    def parts(x: jax.Array) -> list[jax.Array]:
        found = []
        for _ in range(count):
            found.append(jax.lax.reduce_precision(x, 8, 7))
            x = x - found[-1]
        return found

    def dot(values: jax.Array, matrix: np.ndarray) -> jax.Array:
        left, right = parts(values), parts(jnp.asarray(matrix, jnp.float32))
        exact = jax.lax.Precision.HIGHEST
        return sum(jnp.dot(left[i], right[j], precision=exact) for i, j in pairs)  # type: ignore[return-value]

    return dot


def wanted(
    amplitude: np.ndarray, phase: np.ndarray, axes: tuple[int, ...]
) -> np.ndarray:
    """The formula of `spectral.recombine` in float64."""
    a, p = (np.fft.fftn(x.astype(np.float64), axes=axes) for x in (amplitude, phase))
    size = np.abs(p)
    unit = np.where(size > 0, p / np.where(size > 0, size, 1), 1)
    found: np.ndarray = np.fft.ifftn(np.abs(a) * unit, axes=axes).real
    return found


def compare(images: np.ndarray) -> Iterator[dict[str, object]]:
    """Records of uint8 images [N, H, W, 3], each in turn with the next one's."""
    phase = images.astype(np.float32) / 255
    amplitude = np.roll(phase, -1, axis=0)

    def errors(axes: tuple[int, ...], dot: Dot | None) -> tuple[np.ndarray, float]:
        backend = "matmul" if dot else "rfft"
        run = lambda *pair: spectral.recombine(*pair, axes=axes, backend=backend)
        with mock.patch.object(dft, "_dot", dot or dft._dot):
            mixed = jax.jit(run)(amplitude, phase)
        got, true = np.asarray(mixed, np.float64), wanted(amplitude, phase, axes)
        level = lambda x: np.floor(np.clip(x, 0, 1) * 255)
        other = float(np.mean(level(got) != level(true)))
        return np.abs(got - true).max(axis=(1, 2, 3)), other

    for axes in AXES:
        plain, _ = errors(axes, None)
        sound = plain <= BOUND
        for name, pairs in PASSES.items():
            worst, other = errors(axes, in_passes(pairs))
            yield {
                "experiment": "dft_precision",
                "size": images.shape[1],
                "axes": list(axes),
                "precision": name,
                "images": len(images),
                "sound": int(sound.sum()),
                "largest_error": float(worst[sound].max()),
                "median_of_images": float(np.median(worst[sound])),
                "above_bound": float(np.mean(worst[sound] > BOUND)),
                "other_levels": other,
            }


def main() -> None:
    """Parses the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.checks.dft_precision",
        description="What the DFT by matrix products loses in fewer passes.",
    )
    parser.add_argument("files", nargs="+", type=places.argument, help="IMAGES.npy")
    parser.add_argument("--out", type=places.argument, default=OUT, help="records")
    args = parser.parse_args()
    for file in args.files:
        for record in compare(np.load(file)):
            common.append(args.out, [record])
            print(record, flush=True)


if __name__ == "__main__":
    main()
