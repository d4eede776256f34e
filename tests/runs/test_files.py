"""Files that are whole or not there, and clear words about those that are damaged."""

import io
import os
import zipfile

import numpy as np
import pytest

from apr_jax.errors import DataError
from apr_jax.runs import files


def test_a_file_is_replaced_whole_and_its_folder_made(tmp_path):
    path = tmp_path / "new" / "folder" / "text.txt"
    files.write_text(path, "first ü\n")
    files.write_bytes(path, "second ü\n".encode())
    assert path.read_bytes() == b"second \xc3\xbc\n"
    assert os.listdir(path.parent) == ["text.txt"]


def test_a_failure_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("old")

    def interrupted():
        with files.replacing(path) as file:
            file.write(b"half of the new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["text.txt"]


def test_the_contents_are_on_the_disk_before_the_name(tmp_path, monkeypatch):
    path, seen = tmp_path / "text.txt", []
    fsync = os.fsync

    def watch(descriptor):
        size = os.fstat(descriptor).st_size
        seen.append((size, path.exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watch)
    files.write_bytes(path, b"contents")
    assert seen == [(8, False)]
    assert path.exists()


@pytest.mark.parametrize("compress", [False, True])
def test_archives_hold_what_numpy_writes(tmp_path, rng, compress):
    path = tmp_path / "arrays.npz"
    arrays = {"a/b": rng.normal(size=(3, 2)), "names": np.array(["x", "ü"])}
    files.write_arrays(path, arrays, compress=compress)
    kind = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with zipfile.ZipFile(path) as packed:
        assert {info.compress_type for info in packed.infolist()} == {kind}
        found = np.load(io.BytesIO(packed.read("a/b.npy")))
    np.testing.assert_array_equal(found, arrays["a/b"])
    with files.archive(path) as stored:
        assert sorted(stored) == ["a/b", "names"]
        assert stored["names"].tolist() == ["x", "ü"]


def _truncated(path):
    np.savez(path, a=np.zeros(1000))
    path.write_bytes(path.read_bytes()[:200])


def _single(path):
    with path.open("wb") as file:
        np.save(file, np.zeros(3))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "No such file"),
        (lambda path: path.write_bytes(b""), "No data left"),
        (lambda path: path.write_bytes(b"text"), "pickle"),
        (lambda path: np.savez(path, b=np.zeros(3)), "a is not a file in the archive"),
        (lambda path: np.savez(path, a=np.array([{}])), "allow_pickle"),
        (_single, r"it is no \.npz archive"),
        (_truncated, "not a zip file"),
    ],
)
def test_a_damaged_archive_is_named(tmp_path, make, message):
    path = tmp_path / "arrays.npz"
    make(path)
    with (
        pytest.raises(DataError, match=f"can't read .*arrays.npz: .*{message}"),
        files.archive(path) as stored,
    ):
        _ = stored["a"]


def damages(whole):
    """Name -> bytes that are no array of numbers."""
    pickled, packed = io.BytesIO(), io.BytesIO()
    np.save(pickled, np.array([print], object), allow_pickle=True)
    np.savez(packed, images=np.zeros(3))
    return {
        "empty": b"",
        "its head": whole[:20],
        "cut off": whole[:-9],
        "text": b"hello\n",
        "a zip file": b"PK\x03\x04" + bytes(200),
        "pickled": pickled.getvalue(),
        "an archive": packed.getvalue(),
        "a huge shape": whole.replace(b"(", b"(9999999999,", 1),
        "a negative shape": whole.replace(b"(", b"(-", 1),
        "no type": whole.replace(b"descr", b"dscrr", 1),
        "another type": whole.replace(b"|u1", b"xx1", 1),
        "no header": whole.replace(b"{", b"[", 1),
    }


@pytest.mark.parametrize("mapped", [True, False])
@pytest.mark.parametrize("kind", damages(b""))
def test_a_damaged_array_is_named(tmp_path, kind, mapped):
    path = tmp_path / "images.npy"
    np.save(path, np.zeros((3, 4), np.uint8))
    path.write_bytes(damages(path.read_bytes())[kind])
    with pytest.raises(DataError, match=r"can't read .*images.npy: [^\n]+$"):
        files.read_array(path, mapped=mapped)
