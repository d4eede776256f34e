"""Image files of every kind: one rule for each, whoever reads it."""

import ast
import dataclasses
import io
import pathlib
import shutil
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from apr_jax import data
from apr_jax.data import (
    corrupted,
    corrupted_files,
    corrupted_verify,
    folder,
    imagenet,
    images,
    samples,
    tfds,
)
from apr_jax.errors import DataError
from apr_jax.evaluate import ood_sets
from tests.data.test_data import settings

ROOT = pathlib.Path(__file__).resolve().parents[2]
SIZE = 8


def saved(pixels, kind, mode=None, **knobs):
    image = Image.fromarray(pixels)
    file = io.BytesIO()
    (image.convert(mode) if mode else image).save(file, kind, **knobs)
    return file.getvalue()


def png(depth, colour, rows, *chunks):
    """A PNG of raw rows, as Pillow doesn't write them."""

    def chunk(name, body):
        sum_ = struct.pack(">I", zlib.crc32(name + body))
        return struct.pack(">I", len(body)) + name + body + sum_

    head = struct.pack(">IIBBBBB", SIZE, SIZE, depth, colour, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = [(b"IHDR", head), *chunks, (b"IDAT", body), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def tiff(samples_, photometric, *, bits=16, largest=None, body=None):
    """A TIFF of one strip of grey, uint16, little endian."""
    body = body or samples_.tobytes()
    tags = [(256, SIZE), (257, SIZE), (258, bits), (259, 1), (262, photometric)]
    tags += [(273, 8), (277, 1), (278, SIZE), (279, len(body))]
    tags += [] if largest is None else [(281, largest)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    head = struct.pack("<2sHI", b"II", 42, 8 + len(body))
    return head + body + struct.pack("<H", len(tags)) + entries + bytes(4)


RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
GREY = np.ascontiguousarray(RGB[..., 0])
ALPHA = np.ascontiguousarray(RGB[..., 1:2])
DEEP = np.r_[8000, 45000, 255, 65535, RNG.integers(0, 65536, SIZE * SIZE - 4)]
DEEP = DEEP.astype(np.uint16).reshape(SIZE, SIZE)
DEEP_RGB = RNG.integers(0, 65536, (SIZE, SIZE, 3)).astype(np.uint16)
LEVELS = RNG.random((SIZE, SIZE)).astype(np.float32)
FEW = GREY // 64  # four colours
PALETTE = RNG.integers(0, 256, (256, 3), dtype=np.uint8)


def paletted(kind, **knobs):
    image = Image.fromarray(FEW)
    image.putpalette(PALETTE.tobytes())
    file = io.BytesIO()
    image.save(file, kind, **knobs)
    return file.getvalue()


def twelve_bits(samples_):
    """Three bytes of each two levels."""
    low, high = samples_.reshape(-1, 2).T.astype(int)
    body = np.stack([low >> 4, (low & 15) << 4 | high >> 8, high & 255], 1)
    return body.astype(np.uint8).tobytes()


def two_bits(row):
    return np.packbits(np.unpackbits(row[:, None], axis=1)[:, 6:]).tobytes()


def three(grey):
    return np.repeat(np.asarray(grey, np.uint8)[..., None], 3, -1)


INKS = RNG.integers(0, 256, (SIZE, SIZE, 4), dtype=np.uint8)
# Pillow takes CMYK without a profile: (255 - C) (255 - K) / 255.
PRINTED = np.rint((255.0 - INKS[..., :3]) * (255.0 - INKS[..., 3:]) / 255)


def printed(kind):
    file = io.BytesIO()
    Image.frombytes("CMYK", (SIZE, SIZE), INKS.tobytes()).save(file, kind)
    return file.getvalue()


ROTATED = Image.Exif()
ROTATED[0x0112] = 6  # to be turned by a quarter
JPEG = saved(RGB, "JPEG", quality=95)
# Bytes of the file, and what they are by hand; for JPEG by Pillow's decoder.
KINDS = {
    "png": (saved(RGB, "PNG"), RGB),
    "png grey": (saved(GREY, "PNG"), three(GREY)),
    "png alpha": (saved(np.concatenate([RGB, ALPHA], -1), "PNG"), RGB),
    "png grey alpha": (
        saved(np.stack([GREY, ALPHA[..., 0]], -1), "PNG"),
        three(GREY),
    ),
    "png 16 grey": (saved(DEEP, "PNG"), three(DEEP >> 8)),
    "png 16 colour": (
        png(16, 2, [row.astype(">u2").tobytes() for row in DEEP_RGB]),
        DEEP_RGB >> 8,
    ),
    "png 16 grey alpha": (
        png(16, 4, [r.astype(">u2").tobytes() for r in DEEP_RGB[..., :2]]),
        three(DEEP_RGB[..., 0] >> 8),
    ),
    "png 1 bit": (saved(GREY > 99, "PNG"), three((GREY > 99) * 255)),
    "png 2 bits": (
        png(2, 0, [two_bits(row) for row in FEW]),
        three(FEW * 85),
    ),
    "png palette": (paletted("PNG"), PALETTE[FEW]),
    "png palette alpha": (
        paletted("PNG", transparency=bytes([0, 90, 255, 255])),
        PALETTE[FEW],
    ),
    "png rotated": (saved(RGB, "PNG", exif=ROTATED), RGB),
    "bmp": (saved(RGB, "BMP"), RGB),
    "bmp grey": (saved(GREY, "BMP"), three(GREY)),
    "bmp palette": (paletted("BMP"), PALETTE[FEW]),
    "bmp 1 bit": (saved(GREY > 99, "BMP"), three((GREY > 99) * 255)),
    "gif": (paletted("GIF"), PALETTE[FEW]),
    "ppm": (saved(RGB, "PPM"), RGB),
    "pgm 16": (saved(DEEP, "PPM"), three(DEEP >> 8)),
    "tiff": (saved(RGB, "TIFF"), RGB),
    "tiff cmyk": (printed("TIFF"), PRINTED),
    "tiff 16": (saved(DEEP, "TIFF"), three(DEEP >> 8)),
    "tiff 16 white is 0": (tiff(DEEP, 0), three(65535 - DEEP >> 8)),
    "tiff 12 in 16": (tiff(DEEP >> 4, 1, largest=4095), three(DEEP >> 8)),
    "tiff 12 in 16, white is 0": (
        tiff(4095 - (DEEP >> 4), 0, largest=4095),
        three(DEEP >> 8),
    ),
    # A statistic, not the end of the scale: no camera has so many levels.
    "tiff 16, some used": (tiff(DEEP >> 1, 1, largest=32000), three(DEEP >> 9)),
    "tiff 12": (
        tiff(DEEP, 1, bits=12, body=twelve_bits(DEEP >> 4)),
        three(DEEP >> 8),
    ),
    "tiff floats": (saved(LEVELS, "TIFF"), three(np.rint(LEVELS * 255))),
    "webp": (saved(RGB, "WEBP", lossless=True), RGB),
    "jpeg cmyk": (printed("JPEG"), None),
    "jpeg grey": (saved(GREY, "JPEG"), None),
    "jpeg": (JPEG, np.asarray(Image.open(io.BytesIO(JPEG)))),
}


# --- The readers: (settings of a folder with one image, its path) -> uint8 [S, S, 3].


def resident(where, path):
    return data.load(where, splits=("train",)).splits["train"].images[0]


def streamed(where, path):
    (batch,) = imagenet.eval_stream(where, "train", batch_size=1)
    return batch.image[0]


def drawn(where, path):
    (batch,) = samples.stream(where, "train", examples=0, seed=0, rows=1)
    return batch.image[0]


def out_set(where, path):
    opened = ood_sets.open_set("x", "folder", str(path.parent), where)
    (batch,) = opened.batches(1)
    return batch.image[0]


def alone(where, path):
    return images.read(path)


def extra_folder(where, path):
    where = dataclasses.replace(where, extra_dirs=(str(path.parents[1]),))
    (path.parents[2] / "test" / "cat").mkdir(parents=True)
    shutil.copy(path, path.parents[2] / "test" / "cat")
    return data.load(where).extra.images[0]


def tree(where, path):
    """As one of ImageNet-C."""
    root = path.parents[2] / "C" / "fog" / "1"
    shutil.copytree(path.parents[1], root)
    listing = corrupted.list_tree(root.parents[1], "fog", 1, ("cat",))
    (batch,) = corrupted.tree_batches(listing, image_size=SIZE, batch_size=1)
    return batch.image[0]


def made_into_a_tree(where, path):
    """What there is to corrupt."""
    found = []
    with pytest.MonkeyPatch.context() as patch:
        as_it_is = lambda images, *_, **__: found.append(images) or images
        patch.setattr(corrupted_files, "_corruptor", lambda *_: as_it_is)
        corrupted_files.write_tree(
            folder.listing(where, "train"),
            path.parents[2] / "out",
            ("fog",),
            recipe=corrupted_files.Recipe("x", 1, SIZE, 0, ""),
            resize=SIZE,
            quiet=True,
        )
    return found[0][0]


def verified(where, path):
    """A corrupted file, and a clean one, of --verify."""
    stored = corrupted_verify._read(path, SIZE)
    where = dataclasses.replace(where, test_split="train")
    shutil.copytree(path.parents[1], path.parents[2] / "C" / "fog" / "1")
    files = corrupted_verify._open(where, path.parents[2] / "C", ("fog",))
    np.testing.assert_array_equal(files.clean(files.places)[0], stored)
    return stored


READERS = [resident, streamed, drawn, out_set, alone]
READERS += [extra_folder, tree, made_into_a_tree, verified]


def written(tmp_path, contents):
    path = tmp_path / "data" / "train" / "cat" / "x.png"  # whatever it is
    path.parent.mkdir(parents=True)
    path.write_bytes(contents)
    return settings(tmp_path, source="folder"), path


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_reader_decodes_every_kind_alike(tmp_path, kind, reader):
    contents, expected = KINDS[kind]
    if expected is None:  # lossy: Pillow's own decoder is the measure
        expected = np.asarray(Image.open(io.BytesIO(contents)).convert("RGB"))
    found = np.asarray(reader(*written(tmp_path, contents)))
    assert found.dtype == np.uint8
    # Only Pillow's product of CMYK rounds in its own way.
    off = 1 if kind == "tiff cmyk" else 0
    np.testing.assert_allclose(found, expected.astype(float), rtol=0, atol=off)


@pytest.fixture(scope="module")
def tfds_set(tmp_path_factory):
    """A set of TFDS whose files are of all kinds, each one class."""
    module = tfds.engine().tfds
    features, root = module.features, tmp_path_factory.mktemp("tfds")
    of = {
        "image": features.Image(shape=(SIZE, SIZE, 3)),
        "label": features.ClassLabel(names=list(KINDS)),
    }
    examples = [
        (str(i), {"image": io.BytesIO(contents), "label": i})
        for i, (contents, _) in enumerate(KINDS.values())
    ]
    module.dataset_builders.store_as_tfds_dataset(
        name="kinds",
        version="1.0.0",
        features=features.FeaturesDict(of),
        split_datasets={"train": examples},
        data_dir=root,
    )
    return settings(root, source="tfds", name="kinds", data_dir=str(root))


def tfds_resident(where):
    return data.load(where, splits=("train",)).splits["train"]


def tfds_streamed(where):
    (batch,) = imagenet.eval_stream(where, "train", batch_size=len(KINDS))
    return batch.image, batch.label


@pytest.mark.parametrize("reader", [tfds_resident, tfds_streamed])
def test_sets_of_tfds_are_decoded_as_files_are(tfds_set, reader, tmp_path):
    found, labels = reader(dataclasses.replace(tfds_set, cache_dir=str(tmp_path)))
    assert sorted(labels) == list(range(len(KINDS)))
    for image, label in zip(found, labels, strict=True):
        kind = list(KINDS)[label]
        wanted = images.decode(KINDS[kind][0])
        np.testing.assert_array_equal(image, wanted, err_msg=kind)


def test_colours_of_twelve_bits_in_a_tiff_of_sixteen_are_refused():
    image = Image.fromarray(RGB)
    file = io.BytesIO()
    image.save(file, "TIFF", tiffinfo={281: (4095,) * 3})
    assert images.decode(file.getvalue()).shape == (SIZE, SIZE, 3)  # of 8 bits
    deep = Image.open(file)
    deep.tag_v2[258] = (16, 16, 16)
    with pytest.raises(DataError, match="x has colours of 12 bits in a TIFF of 16"):
        images._rgb(deep, "x")


NO_RULE = {
    "integers of 32 bits": (DEEP.astype(np.int32), "mode 'I'"),
    "floats of 0 to 255": (LEVELS * 255, "divide by 255"),
    "not a number": (np.full_like(LEVELS, np.nan), "floats must be in"),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", NO_RULE)
def test_what_has_no_rule_is_refused_by_name(tmp_path, kind, reader, capfd):
    pixels, message = NO_RULE[kind]
    with pytest.raises(DataError, match=rf"(train|test|1)/cat/x\.png .*{message}"):
        reader(*written(tmp_path, saved(pixels, "TIFF")))
    assert "Traceback" not in capfd.readouterr().err


REFUSED = {"I", "La"}


@pytest.mark.parametrize("mode", sorted(Image.MODES))
def test_every_mode_of_pillow_has_a_rule_or_is_refused(mode):
    image = Image.new(mode, (2, 3))
    if mode in REFUSED:
        with pytest.raises(DataError, match=f"x is of Pillow's mode '{mode}'"):
            images._rgb(image, "x")
        return
    found = images._rgb(image, "x")
    assert (found.shape, found.dtype) == ((3, 2, 3), np.uint8)


def test_a_cache_of_older_rules_is_not_read(tmp_path, monkeypatch):
    where, _ = written(tmp_path, saved(DEEP, "PNG"))
    before = folder.fingerprint(where, "train")
    monkeypatch.setattr(images, "RULES", images.RULES + 1)
    assert folder.fingerprint(where, "train") != before


# --- New readers.

DECODERS = {"decode_image", "decode_bmp", "decode_gif", "decode_png", "imread"}
# Of small files that this project brings or has just written itself.
MAY_DECODE = {"jpeg.py": {"decode_png"}}
MAY_OPEN = {"images.py", "frost_files.py", "digital.py"}


@pytest.mark.parametrize(
    "path", sorted((ROOT / "apr_jax").rglob("*.py")), ids=lambda path: path.name
)
def test_no_module_decodes_by_itself(path):
    nodes = list(ast.walk(ast.parse(path.read_text())))
    names = {n.attr for n in nodes if isinstance(n, ast.Attribute)}
    assert names & DECODERS <= MAY_DECODE.get(path.name, set())
    opens = any(
        isinstance(n, ast.Attribute)
        and n.attr == "open"
        and isinstance(n.value, ast.Name)
        and n.value.id == "Image"
        for n in nodes
    )
    assert not opens or path.name in MAY_OPEN
