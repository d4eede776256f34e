"""CDES, kernels: two stacked convolutions for each class, trained in one program.

    python -m experiments.cdes.train_kernels --data_dir TFDS

Trains the kernels of every class (SCR) and those for all classes (WCR) towards the
density with two peaks. Shows the density of the images before and after beside the
target, how the losses fell, and what each pair of convolutions does to every frequency.
Says how many images a second one step of training takes: all classes in one program,
one class after the other, and image by image, each in frequency space and as plain
convolutions.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from apr_jax import cdes
from apr_jax.console import say
from apr_jax.data import samples
from apr_jax.pixels import to_pixels
from apr_jax.runs.records import Record
from experiments import drawing, measures
from experiments.cdes import common
from experiments.lab import Lab, main

NAME = "cdes_train_kernels"
SIZES, OPTIONS = common.KERNELS, common.OPTIONS
# Images of each class that are timed in one step, and the least time of a timing.
TIMED, SECONDS = 100, 2.0
MEASURED = 500  # images of each set
PROFILES = {
    "before": ("images", "#7f8c8d"),
    "convolved": ("convolved", "#e67e22"),
    "after": ("new images", "#c0392b"),
}


def compute(lab: Lab) -> Iterator[Record]:
    """Trains, then measures each set of kernels; then the timings."""
    found = lab.load()
    train = found.splits["train"]
    names = [*found.class_names, "all classes"]
    if not all(lab.part(name).done for name in names):
        made = common.kernels(lab, train)
        images = common.kernel_images(lab, train)
        # Those of all classes lie class by class.
        mixed = np.concatenate(images[:, : -(-images.shape[1] // len(images))])
        mixed = mixed[samples.leading(np.arange(len(mixed)), MEASURED)]
        for i, name in enumerate(names):
            own, at = (made["scr"], i) if i < len(images) else (made["wcr"], 0)
            yield from measure(lab, name, own, at, [*images, mixed][i])
    if not lab.part("timing").done:
        yield from timings(lab, common.kernel_images(lab, train))


def measure(
    lab: Lab, name: str, own: Any, at: int, images: np.ndarray
) -> Iterator[Record]:
    """Density before and after, losses, and the filter of one set of kernels."""
    kernels = common.one_set(own, at)
    pixels = to_pixels(jnp.asarray(images[:MEASURED]))
    profiles = _profiles(kernels, pixels)
    target = cdes.double_peak(profiles["before"].shape[-1])
    history = own["history"][:, at]
    for kind, profile in profiles.items():
        missed = float(jnp.mean((profile - jnp.float32(target)[None]) ** 2))
        extra: dict[str, Any] = {"profile": np.round(profile.mean(0), 4).tolist()}
        if kind == "before":
            extra |= {
                "target": np.round(target, 4).tolist(),
                "history": np.round(history, 5).tolist(),
                "response": np.round(response(kernels, images.shape[1:]), 2).tolist(),
            }
        error = measures.number(missed, len(pixels))
        yield from lab.part(name).records({f"density_error.{kind}": error}, **extra)


@jax.jit
def _profiles(kernels: cdes.Kernels, pixels: jax.Array) -> dict[str, jax.Array]:
    """Density of each image [N, K]: as it is, convolved, and remade."""
    return {
        "before": cdes.density(pixels),
        "convolved": cdes.density(cdes.convolve(kernels, pixels)),
        "after": cdes.density(cdes.remake(kernels, pixels)),
    }


def response(kernels: cdes.Kernels, shape: tuple[int, ...]) -> np.ndarray:
    """Gain of each frequency of a grey image, shifted spectrum, [H, W]."""
    height, width, channels = shape
    dot = np.zeros((1, height, width, channels), np.float32)
    dot[:, height // 2, width // 2] = 1
    made = np.asarray(jax.jit(cdes.convolve)(kernels, dot))[0].mean(-1)
    return np.fft.fftshift(np.abs(np.fft.fft2(made)))


def timings(lab: Lab, images: np.ndarray) -> Iterator[Record]:
    """Images a second of one step's gradients, in several ways."""
    images = images[:, :TIMED]
    sets, count = images.shape[:2]
    recipe = common.recipe(lab)
    keys = jax.random.split(jax.random.key(lab.seed), sets)
    kernels = jax.vmap(lambda k: cdes.init_kernels(k, images.shape[-1]))(keys)
    bands = jax.eval_shape(cdes.density, jnp.zeros(images.shape[2:])).shape[-1]
    everything = jnp.asarray(images)
    own = [jax.tree.map(lambda leaf, s=s: leaf[s], kernels) for s in range(sets)]
    for form in cdes.FORMS:
        gradient = cdes.make_gradient(cdes.double_peak(bands), recipe, form=form)
        single = jax.jit(gradient)
        ways: dict[str, tuple[int, Callable[[int], Any]]] = {}
        ways["one class after the other"] = (
            count,
            lambda i, run=single: run(
                own[i % sets], everything[i % sets], keys[i % sets]
            ),
        )
        ways["image by image"] = (
            1,
            lambda i, run=single: run(
                own[i % sets], everything[i % sets, i % count][None], keys[0]
            ),
        )
        # Plain convolutions inside a loop are slow on a CPU.
        for way in cdes.WAYS if form == "fft" else ("vmap",):
            together = jax.jit(cdes.over_sets(gradient, way))
            ways[f"all classes, {way}"] = (
                sets * count,
                lambda _, run=together: run(kernels, everything, keys),
            )
        for way, (each, call) in ways.items():
            speed = each / seconds_of(call)
            say(f"{form}, {way}: {speed:,.0f} images/s")
            measured = measures.number(speed, sets * count, unit="img/s")
            yield from lab.part("timing").records({f"{form}, {way}": measured})


def seconds_of(call: Callable[[int], Any]) -> float:
    """Seconds of a call, the best of several runs of them after the first."""
    jax.block_until_ready(call(0))
    best, started, i = float("inf"), time.monotonic(), 0
    while i < 3 or time.monotonic() - started < SECONDS:
        before = time.monotonic()
        jax.block_until_ready(call(i))
        best, i = min(best, time.monotonic() - before), i + 1
    return best


def plot(records: Sequence[Record]) -> drawing.Figures:
    """Densities, and filters with their losses."""
    found = list(drawing.find(records, metric="density_error.before"))
    if not found:
        return {}
    return {"densities": _densities(records, found), "filters": _filters(found)}


def _densities(records: Any, found: Any) -> Figure:
    columns = 6
    rows = -(-len(found) // columns)
    title = (
        "Spectral density of images, of the convolved and of the new ones, beside the "
        "target"
    )
    figure = drawing.figure(11, 2.0 * rows + 0.6, title, size=11)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axes in grid.flat[len(found) :]:
        axes.set_axis_off()
    for axes in grid[-2, len(found) % columns :] if rows > 1 else ():
        axes.xaxis.set_tick_params(labelbottom=True)
    for axes, record in zip(grid.flat, found, strict=False):
        axes.plot(record.extra["target"], "k--", lw=1, label="target")
        for kind, (label, colour) in PROFILES.items():
            metric = f"density_error.{kind}"
            one = next(drawing.find(records, split=record.split, metric=metric))
            axes.plot(one.extra["profile"], color=colour, label=label)
        axes.set_title(record.split, fontsize=10)
    grid[0, 0].legend(fontsize=7)
    for axes in grid[:, 0]:
        axes.set_ylabel("density, 0 to 1")
    for axes in grid[-1]:
        axes.set_xlabel("band, low to high")
    return figure


def _filters(found: Any) -> Figure:
    title = (
        "What each pair of convolutions does to a grey image: gain of every frequency, "
        "the lowest in the middle"
    )
    figure = drawing.figure(11, 5.4, title, size=11)
    columns = -(-(len(found) + 1) // 2)
    grid = figure.subplots(2, columns)
    top = max(np.max(record.extra["response"]) for record in found)
    for axes, record in zip(grid.flat, found, strict=False):
        gain = np.array(record.extra["response"])
        shown = axes.imshow(gain, cmap="magma", vmin=0, vmax=top)
        axes.set_title(record.split, fontsize=9)
        axes.set_axis_off()
    for axes in grid.flat[len(found) :]:
        axes.set_axis_off()
    last = grid.flat[-1]
    last.set_axis_on()
    for record in found:
        history = np.array(record.extra["history"])
        for k, colour in ((0, "#2471a3"), (1, "#e67e22")):
            last.plot(np.arange(1, len(history) + 1), history[:, k], color=colour, lw=1)
    last.set(xlabel="epoch", yscale="log")
    last.set_title("losses: density (blue),\npixels (orange)", fontsize=9)
    figure.colorbar(shown, ax=grid[:, -1], label="gain", shrink=0.8)
    return figure


if __name__ == "__main__":
    main(__name__)
