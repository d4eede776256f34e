"""Objects in a store, beside files of a disk that the same is done to."""

import errno
import pathlib

import pytest

from apr_jax.errors import ConfigError
from apr_jax.gates import places, stores


def both(tmp_path, store):
    return tmp_path / store.name, store


def told(root):
    """What the methods that paths share say of a tree that they make."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "a.b").mkdir(exist_ok=True)
    for name, text in (("a.b/c.json", "{}"), ("d.txt", "é"), ("e-1", "")):
        (root / name).write_bytes(text.encode())
    (root / "e-2").touch()
    (root / "d.txt").write_bytes("ü".encode())
    (root / "e-1").unlink()
    (root / "never").unlink(missing_ok=True)
    file, folder = root / "a.b" / "c.json", root / "a.b"
    with file.open("rb") as opened:
        contents = opened.read()
    named = [
        (p.name, p.suffix, p.parent.name, p.exists(), p.is_dir(), p.is_file())
        for p in (file, folder, root / "no" / "thing")
    ]
    return [
        named,
        sorted(p.name for p in root.iterdir()),
        sorted(p.name for p in root.glob("[a-d]*")),
        list((root / "no").glob("*")),
        (root / "d.txt").read_text(encoding="utf-8"),
        (root / "d.txt").stat().st_size,
        contents,
        file.is_relative_to(root),
        root.is_relative_to(file),
        root.joinpath("a.b", "c.json") == file,
        (root / "a.b" / "c.json").resolve() == file.resolve(),
    ]


def test_it_is_as_on_a_disk(tmp_path, store):
    disk, memory = map(told, both(tmp_path, store))
    assert memory == disk


def test_what_is_missing(tmp_path, store):
    for root in both(tmp_path, store):
        missing = root / "none"
        for ask in (missing.read_bytes, missing.stat, missing.unlink):
            with pytest.raises(FileNotFoundError) as met:
                ask()
            assert met.value.errno == errno.ENOENT
            assert str(met.value.filename) == str(missing)


def test_one_puts_what_is_new(store):
    place = store / "lock"
    assert place.write_new(b"1")
    assert not place.write_new(b"2")
    assert place.read_bytes() == b"1"


def test_files_go_there_and_back(tmp_path, store):
    (tmp_path / "one").write_bytes(b"123")
    (store / "one").upload(tmp_path / "one")
    (store / "one").copy(store / "under" / "two")
    (store / "under" / "two").download(tmp_path / "two")
    assert (tmp_path / "two").read_bytes() == b"123"
    assert sorted(store.below()) == ["one", "under/two"]
    assert (store / "under").below() == ["two"]


def test_what_a_store_says_is_an_error_of_the_system(store, monkeypatch):
    """Each package raises errors of its own kinds."""

    def fail(*_, **__):
        raise ValueError("no such key\nand more")

    monkeypatch.setattr(stores._files("memory"), "cat_file", fail)
    with pytest.raises(OSError, match="ValueError: no such key") as met:
        (store / "a").read_bytes()
    assert (met.value.errno, met.value.filename) == (errno.EIO, str(store / "a"))
    assert "more" not in str(met.value)


def test_no_file_of_the_system_is_opened(store):
    for function in (open, pathlib.Path):
        with pytest.raises(TypeError):
            function(store)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("http://a/b", r"in a store \(s3://, gs://\)"),
        ("file:///r", r"in a store \(s3://, gs://\)"),
        ("s3://", "must be s3://BUCKET/NAME"),
        ("s3://b/../c", "must be s3://BUCKET/NAME"),
        ("none://b", "and no_such_module is not installed: pip install no_such_module"),
    ],
)
def test_addresses_that_can_not_be(monkeypatch, address, words):
    if address.startswith("none"):
        monkeypatch.setitem(stores.PACKAGES, "none", "no_such_module")
    with pytest.raises(ConfigError, match=f"^--workdir is '{address}'.*{words}"):
        places.anywhere(address, "--workdir")


def test_an_address(monkeypatch):
    monkeypatch.setitem(stores.PACKAGES, "memory", "fsspec")
    place = places.anywhere("memory://b//runs/a/", "--workdir")
    assert str(place) == "memory://b/runs/a"
    assert places.anywhere("runs/a", "--workdir") == pathlib.Path("runs/a")
