"""Drawing that the experiments share: records, figures, images, curves."""

import base64
import dataclasses
import io
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import PIL.Image
from matplotlib.figure import Figure

from apr_jax.runs.records import Record

Figures = dict[str, Figure]  # name of the picture's file -> figure


def find(records: Iterable[Record], **fields: Any) -> Iterator[Record]:
    """Records with these fields; those not of ``Record`` are looked for in settings."""
    known = {field.name for field in dataclasses.fields(Record)}
    for record in records:
        values = record.extra.get("settings", {})
        if all(
            (getattr(record, k) if k in known else values.get(k)) == v
            for k, v in fields.items()
        ):
            yield record


def figure(width: float, height: float, title: str = "", *, size: float = 10) -> Figure:
    """An empty figure in inches; ``size`` is that of its title."""
    made = Figure(figsize=(width, height), layout="constrained")
    if title:
        made.suptitle(title, fontsize=size)
    return made


def picture(
    axis: Any, image: np.ndarray, title: str = "", *, size: float = 8, **drawn: Any
) -> Any:
    """Draws an image without ticks, under its title if it has one; returns it."""
    shown = axis.imshow(image, **drawn)
    axis.set(xticks=[], yticks=[])
    if title:
        axis.set_title(title, fontsize=size)
    return shown


def curve(
    axis: Any,
    records: Iterable[Record],
    at: Callable[[Record], float],
    style: str = "-",
    *,
    interval: float = 0,
    **line: Any,
) -> None:
    """Draws percentages in the order of ``at``.

    Args:
        axis: of Matplotlib.
        records: of fractions.
        at: a record's place.
        style: of the line.
        interval: opacity of the band between the intervals' ends; 0 for none.
        line: more for Matplotlib.
    """
    rows = sorted(records, key=at)
    places = [at(record) for record in rows]
    axis.plot(places, [100 * r.value for r in rows], style, **line)
    if interval:
        low = [100 * (r.value if r.low is None else r.low) for r in rows]
        high = [100 * (r.value if r.high is None else r.high) for r in rows]
        kind = {"color": line["color"], "alpha": interval, "linewidth": 0}
        axis.fill_between(places, low, high, **kind)


def save(figure: Figure, target: pathlib.Path) -> pathlib.Path:
    """Writes a figure as a small PNG and returns its place."""
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=100, bbox_inches="tight", pil_kwargs={"optimize": True})
    return target


def pack(image: np.ndarray) -> str:
    """A picture as text: [H, W, 3], uint8 or pixels that are clipped to [0, 1]."""
    if image.dtype != np.uint8:
        image = np.rint(255 * np.clip(image, 0, 1)).astype(np.uint8)
    file = io.BytesIO()
    PIL.Image.fromarray(image).save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def unpack(text: str) -> np.ndarray:
    """The uint8 [H, W, 3] that ``pack`` was given."""
    return np.asarray(PIL.Image.open(io.BytesIO(base64.b64decode(text))))
