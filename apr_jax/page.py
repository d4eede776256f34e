"""From work directories to the page and the table at the end of a job."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from apr_jax import (
    augment,
    curves,
    overfitting,
    report,
    results,
    rundir,
    sheet,
    views,
    watch,
)
from apr_jax import config as config_lib
from apr_jax.pixels import to_pixels

# Each example takes two rows of pictures on the page.
EXAMPLES = 6


def view(root: pathlib.Path) -> report.RunView:
    """Reads what a work directory holds: configuration, records, curve, classes."""
    run, config = rundir.open_run(root)
    return report.RunView(
        name=config.name,
        config=config_lib.to_dict(config),
        records=results.read(run.results) if run.results.exists() else (),
        curve=_curve(run),
        watched=watch.read(run.watched) if run.watched.exists() else (),
        class_names=rundir.read_class_names(run) if run.classes.exists() else (),
        examples=_read_examples(run.examples) if run.examples.exists() else None,
    )


def _curve(run: rundir.RunDir) -> Sequence[curves.CurveRow]:
    """The curve, with accuracy under attack where images were held out for it."""
    rows = curves.read_curve(run.curve) if run.curve.exists() else []
    for held in overfitting.read(run.root):
        if held["collapsed"] and rows and rows[-1].step < held["step"]:
            continue  # the run went back to before it
        near = [i for i, row in enumerate(rows) if row.step <= held["step"]][-1:]
        for i in near:
            extra = {**rows[i].extra, "held-out accuracy": held["robust_accuracy"]}
            rows[i] = dataclasses.replace(rows[i], extra=extra)
    return rows


def write(
    target: pathlib.Path,
    roots: Sequence[pathlib.Path],
    *,
    command: str = "",
    facts: Mapping[str, str] | None = None,
) -> None:
    """Draws the report of some work directories and prints the table.

    Args:
        target: file to write.
        roots: work directories; the first is the one that the page is about.
        command: that made the first.
        facts: further lines about the first.
    """
    views = [view(root) for root in roots]
    views[0] = dataclasses.replace(views[0], command=command, facts=facts or {})
    names = [v.name for v in views]
    for i, name in enumerate(names):  # columns must be told apart
        if names.count(name) > 1:
            views[i] = dataclasses.replace(views[i], name=f"{name} ({roots[i]})")
    report.write_report(target, views)
    report.terminal_summary(views, report=target)


def examples(
    config: config_lib.Config,
    images: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
) -> sheet.Examples:
    """Shows what the augmentation of a configuration does to a few images.

    APR is applied without chance, so that there is something to see; crop and flip
    are left out, so that the pictures can be compared. Of other methods the views that
    the network has are shown.

    Args:
        config: its ``augment`` part is used.
        images: uint8 [N, H, W, C].
        labels: [N].
        class_names: what the labels mean.
    """
    settings = config.augment
    method = augment.get_method(settings.method)
    originals = jnp.asarray(images)
    single_key, pair_key = jax.random.split(jax.random.key(config.seed))
    single = originals
    if method.single == "apr_s":
        single = augment.apr_single(
            single_key,
            originals,
            prob=1.0,
            level=settings.single_level,
            ops=settings.single_ops,
            axes=settings.axes,
            overflow=settings.single_overflow,
        )
    donor = np.roll(np.arange(len(images)), 1)
    mixed: Any = None
    if method.pair == "apr_p" and method.single in ("", "apr_s"):
        mixed = augment.apr_pair(
            pair_key,
            to_pixels(single),
            prob=1.0,
            axes=settings.axes,
            clip=settings.pair_clip,
            donor_index=jnp.asarray(donor),
        )
    return sheet.Examples(
        original=np.asarray(images),
        single=np.asarray(single) if method.single == "apr_s" else None,
        mixed=None if mixed is None else np.asarray(mixed),
        donor=None if mixed is None else donor,
        seen=_seen(config, originals, labels) if _further(method) else None,
        labels=[class_names[label] for label in labels],
    )


def _further(method: augment.Method) -> bool:
    """Whether a method does more to images than APR."""
    contrastive = method.loss == "contrastive"
    return (
        bool(method.after or method.mix or contrastive)
        or method.single not in ("", "apr_s")
        or method.pair not in ("", "apr_p")
    )


def _seen(
    config: config_lib.Config, images: jax.Array, labels: np.ndarray
) -> np.ndarray:
    """The views of a batch of these images alone, [V, N, H, W, C], four at most."""
    changed = dataclasses.replace(
        config.augment, crop_pad=0, flip=False, pair_prob=1.0, pair_donors="device"
    )
    key = jax.random.key(config.seed)
    views_of = jax.jit(
        lambda key, images, labels: (
            views.make_views(
                key,
                jax.random.fold_in(key, 1),
                images,
                labels,
                jnp.arange(len(labels)),
                dataclasses.replace(config, augment=changed),
            ).pixels
        )
    )
    pixels = np.asarray(views_of(key, images, jnp.asarray(labels, jnp.int32)))
    return pixels.reshape(-1, *images.shape)[:_VIEWS]


# Views of an image on the page, at most.
_VIEWS = 4


def write_examples(path: pathlib.Path, shown: sheet.Examples) -> None:
    """Keeps examples for this page and for those that show the run beside others."""
    fields = {f.name: getattr(shown, f.name) for f in dataclasses.fields(shown)}
    arrays: Any = {k: np.asarray(v) for k, v in fields.items() if v is not None}
    partial = path.with_name(f".{path.name}")
    with partial.open("wb") as file:
        np.savez_compressed(file, **arrays)
    partial.replace(path)


def _read_examples(path: pathlib.Path) -> sheet.Examples:
    with np.load(path) as stored:
        fields: dict[str, Any] = dict(stored)
    fields["labels"] = [str(label) for label in fields["labels"]]
    return sheet.Examples(**fields)
