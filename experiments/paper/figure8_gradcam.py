"""Figure 8: Grad-CAM under fog, a standard network against one trained by APR-SP.

    python -m experiments.paper.figure8_gradcam --data_dir TFDS --standard A --apr_sp B

A and B are runs. Beside the maps a number: how well the map of the foggy image
correlates with that of the clean one, and how much of its mass lies on the clean map's
strongest fifth, over images that both networks recognise when clean. Maps are of the
true class.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from apr_jax import corruptions, metrics
from apr_jax import network as network_lib
from apr_jax.models import grad_cam
from apr_jax.runs.records import Record
from experiments import drawing, measures
from experiments.lab import Lab, main, sizes
from experiments.paper import networks as networks_lib

NAME = "apr_figure8_gradcam"
SIZES = sizes(**networks_lib.KNOBS, images=(500, 10_000), severity=(5, 5))
OPTIONS = networks_lib.OPTIONS
SHOWN = 5
STRONGEST = 0.2  # share of the pixels that count as where the clean map points


def compute(lab: Lab) -> Iterator[Record]:
    """Compares the maps of clean and foggy images, for each network."""
    networks = networks_lib.both(lab)
    weights = networks_lib.digests(networks)
    parts = {m: lab.part(f"fog, {m}", weights=weights) for m in networks}
    if parts["apr_sp"].done:
        return
    test = lab.tested("images")
    key = jax.random.key(lab.seed)
    fog = corruptions.corrupt(key, test.images, "fog", lab["severity"])
    foggy, labels = np.asarray(fog), test.labels
    right = {
        (method, what): recognised(network, images, labels)
        for method, network in networks.items()
        for what, images in (("clean", test.images), ("fog", foggy))
    }
    rows = np.flatnonzero(right["standard", "clean"] & right["apr_sp", "clean"])
    # Drawn among the recognised ones, whatever becomes of them in fog.
    drawn = np.random.default_rng([8, lab.seed]).permutation(rows)
    shown = np.searchsorted(rows, drawn[:SHOWN])
    for method, network in networks.items():
        classes = len(network.class_names)
        model = network_lib.make_model(network.config, num_classes=classes)
        explain = grad_cam.make_grad_cam(model, network.config.data)
        clean, foul = (
            measures.in_parts(
                lambda x, y, v=network.variables, explain=explain: explain(v, x, y)[0],
                images[rows],
                labels[rows],
                at_once=100,
            )
            for images in (test.images, foggy)
        )
        numbers = {
            f"accuracy, {what}": measures.share(hit)
            for (own, what), hit in right.items()
            if own == method
        }
        numbers["correlation with the clean map"] = _mean(correlations(clean, foul))
        numbers["mass kept where the clean map points"] = _mean(kept(clean, foul))
        extra: dict[str, Any] = {"method": method}
        extra["clean"] = [_small(m) for m in clean[shown]]
        extra["fog"] = [_small(m) for m in foul[shown]]
        extra["right"] = right[method, "fog"][rows[shown]].tolist()
        extra["names"] = [network.class_names[labels[i]] for i in rows[shown]]
        for what, images in (("original", test.images), ("foggy", foggy)):
            extra[what] = [drawing.pack(images[i]) for i in rows[shown]]
        first, *others = numbers
        part, rest = parts[method], {name: numbers[name] for name in others}
        yield from part.records({first: numbers[first]}, network, **extra)
        yield from part.records(rest, network, method=method)


def recognised(network: Any, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Whether each image is recognised, bool [N]."""
    return measures.logits_of(network, images, labels).right


def correlations(clean: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Pearson's of each pair of maps [N, H, W]; 0 where one of them is constant."""
    a, b = (m.reshape(len(m), -1) - m.mean((1, 2))[:, None] for m in (clean, other))
    spread = np.sqrt((a * a).sum(1) * (b * b).sum(1))
    return np.divide((a * b).sum(1), spread, out=np.zeros(len(a)), where=spread > 0)


def kept(clean: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Share of the other map's mass on the strongest pixels of the clean one."""
    a, b = (m.reshape(len(m), -1) for m in (clean, other))
    count = max(1, round(STRONGEST * a.shape[1]))
    places = np.argsort(-a, axis=1, kind="stable")[:, :count]
    mass = np.take_along_axis(b, places, axis=1).sum(1)
    total = b.sum(1)
    return np.divide(mass, total, out=np.zeros(len(a)), where=total > 0)


def _mean(values: np.ndarray) -> metrics.Measured:
    """Mean with a bootstrap interval over images."""
    rng = np.random.default_rng(0)
    draws = rng.integers(0, len(values), (1000, len(values)))
    low, high = np.quantile(values[draws].mean(1), [0.025, 0.975])
    value = float(values.mean())
    return metrics.Measured(value, float(low), float(high), "1", len(values))


def _small(heatmap: np.ndarray) -> Any:
    return np.round(heatmap / max(float(heatmap.max()), 1e-12), 2).tolist()


def plot(records: Sequence[Record]) -> drawing.Figures:
    """Draws originals, foggy images, and both networks' maps on both."""
    found = {r.extra["method"]: r for r in records if "original" in r.extra}
    any_one = found["standard"].extra
    count = len(any_one["names"])
    columns = [("original", "original", "", ""), ("fog", "foggy", "", "")]
    for method, title in networks_lib.TITLES.items():
        columns.append((f"{title},\nclean", "original", method, "clean"))
        columns.append((f"{title},\nfog", "foggy", method, "fog"))
    figure = drawing.figure(8.4, 1.4 * count + 1.0, _caption(records), size=9)
    grid = figure.subplots(count, len(columns), squeeze=False)
    for i, row in enumerate(grid):
        for axis, (title, image, method, which) in zip(row, columns, strict=True):
            shown = drawing.unpack(any_one[image][i])
            drawing.picture(axis, shown, "" if i else title)
            if method:
                own = found[method].extra
                style = {"cmap": "jet", "alpha": 0.5, "vmin": 0, "vmax": 1}
                drawn = axis.imshow(np.array(own[which][i]), **style)
                if which == "fog":
                    axis.set_xlabel("right" if own["right"][i] else "wrong", fontsize=7)
        row[0].set_ylabel(any_one["names"][i], fontsize=8)
    bar = figure.colorbar(drawn, ax=grid, shrink=0.4)
    bar.set_label("Grad-CAM of the true class, each map's maximum is 1", fontsize=7)
    return {"gradcam": figure}


def _caption(records: Sequence[Record]) -> str:
    lines = ["Where the networks look; images drawn among those both recognise clean"]
    for method, title in networks_lib.TITLES.items():
        own = (r for r in records if r.extra["method"] == method and r.unit == "1")
        parts = [f"{r.metric} {r.value:.2f}" for r in own]
        lines.append(f"{title}: " + ", ".join(parts))
    return "\n".join(lines)


if __name__ == "__main__":
    main(__name__)
