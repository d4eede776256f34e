"""Draws what recombination does: the picture at the top of the README.

    python -m experiments.paper.recombine [--out PICTURE.png]

Two photographs that scikit-learn ships swap their amplitude spectra (APR-P), and one
is recombined with an augmented copy of itself (APR-S).
"""

import argparse
import pathlib

import jax
import jax.numpy as jnp
import matplotlib.figure
import numpy as np
from sklearn.datasets import load_sample_images

from apr_jax import apr_single, recombine
from apr_jax.gates import places
from apr_jax.report.examples import amplitude_phase
from experiments import drawing

TARGET = pathlib.Path(__file__).parents[1] / "results" / "recombine.png"
SIZE = 320  # pixels; crops of the photographs


def compute() -> list[tuple[str, np.ndarray]]:
    """(title, image [H, W, 3] in [0, 1]) of each picture."""
    china, flower = load_sample_images().images
    china, flower = china[60 : 60 + SIZE, 150 : 150 + SIZE], flower[40:360, 160:480]
    pixels = [jnp.asarray(photo, jnp.float32) / 255 for photo in (china, flower)]
    keys = jax.random.split(jax.random.key(6), 1)
    single = apr_single(keys, jnp.asarray(china)[None], prob=1.0)[0]
    return [
        ("a", np.asarray(pixels[0])),
        ("b", np.asarray(pixels[1])),
        ("phase of a,\namplitude of b", np.asarray(recombine(pixels[1], pixels[0]))),
        ("phase of b,\namplitude of a", np.asarray(recombine(pixels[0], pixels[1]))),
        ("a recombined with\nan augmented a (APR-S)", np.asarray(single) / 255),
    ]


def plot(pictures: list[tuple[str, np.ndarray]], target: pathlib.Path) -> None:
    """Draws each picture over its log-amplitude and its phase."""
    figure = matplotlib.figure.Figure(figsize=(10, 3.3))
    grid = figure.add_gridspec(
        2, 2 * len(pictures), height_ratios=[2, 1], hspace=0.03, wspace=0.04
    )
    for column, (title, image) in enumerate(pictures):
        left = 2 * column
        amplitude, phase = amplitude_phase(255 * image[None])
        top = figure.add_subplot(grid[0, left : left + 2])
        top.imshow(np.clip(image, 0, 1))
        top.set_title(title, fontsize=8)
        below = [figure.add_subplot(grid[1, left + i]) for i in range(2)]
        below[0].imshow(amplitude[0], cmap="magma")
        below[1].imshow(phase[0], cmap="twilight")
        for axis in (top, *below):
            axis.set_axis_off()
    drawing.save(figure, target)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=places.argument, default=TARGET)
    plot(compute(), parser.parse_args().out)
