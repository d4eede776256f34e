"""Augmented training images that a run keeps for the page."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from apr_jax.runs import files

Array = npt.NDArray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Examples:
    """A few training images and what the augmentation made of them.

    Attributes:
        original: [N, H, W, C] uint8.
        single: [N, H, W, C] uint8 after APR-S, or None where there is none.
        mixed: [N, H, W, C] float after APR-P, 1 = white, clipped or not; or None.
        donor: [N] index of the image that gave ``mixed`` its amplitude, among
            ``single``, or ``original`` without it; or None without ``mixed``.
        seen: [V, N, H, W, C] float, the views that the network has of each image where
            more than APR makes them; or None.
        labels: N names of classes, or none.
    """

    original: Array
    single: Array | None = None
    mixed: Array | None = None
    donor: Array | None = None
    seen: Array | None = None
    labels: Sequence[str] = ()

    def __post_init__(self) -> None:
        wanted = self.original.shape
        for name, behind in (("single", 0), ("mixed", 0), ("seen", 1)):
            other = getattr(self, name)
            if other is not None and other.shape[behind:] != wanted:
                raise ValueError(f"{name} {other.shape} and original {wanted} differ")
        if (self.mixed is None) != (self.donor is None):
            raise ValueError("mixed and donor go together: both or neither")


def write_examples(path: files.Path, shown: Examples) -> None:
    """Keeps examples for this page and for those that show the run beside others."""
    fields = {f.name: getattr(shown, f.name) for f in dataclasses.fields(shown)}
    arrays = {k: np.asarray(v) for k, v in fields.items() if v is not None}
    files.write_arrays(path, arrays, compress=True)


def read_examples(path: files.Path) -> Examples:
    """Reads what ``write_examples`` kept."""
    with files.archive(path) as stored:
        fields: dict[str, Any] = dict(stored)
    fields["labels"] = [str(label) for label in fields["labels"]]
    return Examples(**fields)
