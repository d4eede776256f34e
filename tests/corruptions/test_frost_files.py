"""The photographs of frost, damaged."""

import re

import numpy as np
import pytest
from PIL import Image

from apr_jax.corruptions import frost_files
from apr_jax.errors import DataError


@pytest.mark.parametrize(
    "contents", [b"", b"no picture", b"\x89PNG\r\n\x1a\n" + bytes(40)]
)
def test_a_damaged_photograph_is_named(tmp_path, contents):
    for name in frost_files.NAMES:
        Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / name)
    (tmp_path / frost_files.NAMES[2]).write_bytes(contents)
    path = re.escape(str(tmp_path / frost_files.NAMES[2]))
    with pytest.raises(DataError, match=f"^can't read {path}: [^\n]+$"):
        frost_files.load(tmp_path)
