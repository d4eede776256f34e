"""Figure 5: t-SNE of the high-frequency amplitude, and how far it separates sets.

    python -m experiments.paper.figure5_tsne --data_dir TFDS

Clean images against the same ones under Gaussian noise, and against images of another
set. So that nobody has to trust the picture: the AUROC of a linear classifier and of
nearest neighbours on the same amplitudes, cross-validated, with an image and its noisy
copy always in the same fold. 0.5 is no separation, 1 a perfect one.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.manifold import TSNE
from sklearn.model_selection import GroupKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from apr_jax import corruptions, metrics, spectral
from apr_jax.metrics import detection
from apr_jax.pixels import to_pixels
from apr_jax.runs.records import Record
from experiments import drawing, measures
from experiments.lab import Lab, main, sizes

NAME = "apr_figure5_tsne"
# Amplitudes beyond a radius of 12 of 16 cycles; luma, log.
SIZES = sizes(
    images=(1000, 1000), radius=(0.375, 0.375), folds=(5, 10), severity=(1, 1)
)
OPTIONS = {"--out_set": {"help": "another set, name=source:where; CIFAR-100"}}
PROBES: dict[str, Any] = {
    "linear": lambda: LogisticRegression(C=0.01, max_iter=2000),
    "nearest neighbours": lambda: KNeighborsClassifier(15),
}


def compute(lab: Lab) -> Iterator[Record]:
    """Embeds and separates each pair of sets."""
    test = lab.tested("images")
    features = high_amplitudes(test.images, lab["radius"])
    for name, (others, groups) in _others(lab, test.images).items():
        part = lab.part(name, out=lab.options.out_set or "")
        if part.done:
            continue
        both = np.concatenate([features, high_amplitudes(others, lab["radius"])])
        label = np.repeat([1, 0], [len(features), len(others)])
        together = np.concatenate([np.arange(len(features)), groups])
        own, numbers = (both, label, together), {}
        for probe, make in PROBES.items():
            numbers[f"auroc, {probe}"] = separation(make(), *own, folds=lab["folds"])
        scaled = StandardScaler().fit_transform(both)
        places = TSNE(random_state=lab.seed, init="pca").fit_transform(scaled)
        extra = {"places": np.round(places, 1).tolist(), "known": len(features)}
        for metric, number in numbers.items():
            yield from part.records({metric: number}, **extra)
            extra = {}


def _others(lab: Lab, images: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Name -> images to tell from the clean ones, and groups that stay together."""
    key = jax.random.key(lab.seed)
    noisy = corruptions.corrupt(key, images, "gaussian_noise", lab["severity"])
    found = {"gaussian noise": (np.asarray(noisy), np.arange(len(images)))}
    specs = lab.out_sets("cifar100=tfds:cifar100")
    for name, rows in lab.unknown(specs, lab["images"]).items():
        found[name] = (rows, len(images) + np.arange(len(rows)))
    return found


def high_amplitudes(images: np.ndarray, radius: float) -> np.ndarray:
    """log(1 + |F|) of the luma beyond a radius, one of each mirrored pair: [N, D].

    Args:
        images: uint8 [N, H, W, 3].
        radius: as a share of the longer side.
    """
    pixels = np.asarray(to_pixels(jax.numpy.asarray(images)))
    grey = pixels @ np.array([0.2989, 0.5870, 0.1140], np.float32)
    height, width = grey.shape[1:]
    amplitude = jax.jit(lambda x: spectral.amplitude(x, axes=(-3, -2)))
    whole = np.asarray(amplitude(grey[..., None]))[..., 0]
    near = spectral.radial_mask(height, width, radius * max(height, width))
    keep = ~np.fft.ifftshift(np.asarray(near))
    keep[:, width // 2 + 1 :] = False
    return np.log1p(whole[:, keep])


def separation(
    probe: Any,
    features: np.ndarray,
    label: np.ndarray,
    groups: np.ndarray,
    *,
    folds: int,
) -> metrics.Measured:
    """AUROC of a classifier's held-out scores, with DeLong's interval."""
    scores = np.empty(len(label))
    for rows, held in GroupKFold(folds).split(features, label, groups):
        fitted = make_pipeline(StandardScaler(), probe).fit(features[rows], label[rows])
        scores[held] = fitted.predict_proba(features[held])[:, 1]
    inside, outside = scores[label == 1], scores[label == 0]
    value = detection.ood_detection(inside, outside)["auroc"]
    low, high = detection.ood_intervals(inside, outside)["auroc"]
    number = measures.number(value, len(label), unit="fraction")
    return dataclasses.replace(number, low=low, high=high)


def plot(records: Sequence[Record]) -> drawing.Figures:
    """Draws each embedding beside its numbers."""
    splits = list(dict.fromkeys(r.split for r in records))
    title = "t-SNE of the high-frequency amplitude (Figure 5)"
    figure = drawing.figure(4.2 * len(splits), 4.4, title)
    axes = figure.subplots(1, len(splits), squeeze=False)[0]
    for axis, split in zip(axes, splits, strict=True):
        own = [r for r in records if r.split == split]
        extra = next(r.extra for r in own if "places" in r.extra)
        places, count = np.array(extra["places"]), extra["known"]
        style = {"s": 5, "alpha": 0.5, "linewidths": 0}
        axis.scatter(*places[count:].T, color="grey", label=split, **style)
        axis.scatter(*places[:count].T, color="tab:red", label="clean", **style)
        numbers = [
            f"{r.metric}: {r.value:.3f} ({r.low:.3f} to {r.high:.3f})" for r in own
        ]
        axis.set_title("\n".join([f"clean against {split}", *numbers]), fontsize=8)
        axis.set(xticks=[], yticks=[])
        axis.legend(fontsize=8, markerscale=3)
    return {"tsne": figure}


if __name__ == "__main__":
    main(__name__)
