"""Speed of reading ImageNet-like training images, beside Pillow, in one run.

    python -m experiments.benchmarks.input [--folder DIR] [--images N] [--size 224]

Four ways of making training images, random windows resized to a square: the project's
stream of the files; its stream of the same images packed (``apr-jax pack``, read by
Grain); Pillow (decode, crop, resize); and Pillow without the windows (decode, resize).
All of them use threads on all cores. They are counted in images per second of processor
time, that is per core, which other programs on the machine disturb least, and of the
clock. Rounds alternate; the table shows medians, ratios are medians over the rounds.

Without a folder the images are crops of scikit-learn's two photographs, enlarged to
the sizes that ImageNet has, as JPEGs of quality 90.
"""

import argparse
import dataclasses
import io
import os
import pathlib
import tempfile
from collections.abc import Callable
from concurrent import futures

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

from apr_jax import config as config_lib
from apr_jax import data
from apr_jax.data import folder, jpeg, pack
from apr_jax.data import images as images_lib
from experiments.benchmarks import common

BATCH_SIZE = 50
WARM_UP = 200  # images
# Width and height of typical ImageNet files.
SIZES = ((500, 375), (500, 333), (375, 500), (640, 480), (400, 300))

NAME = "bench_input"
STREAM, PACKED = "this project", "this project, packed"
WINDOWS, WHOLE = "Pillow: decode, crop, resize", "Pillow: decode, resize"


def write_photographs(root: pathlib.Path, count: int) -> None:
    """Writes ``count`` JPEGs, in the layout of an image folder."""
    photos = load_sample_images().images
    rng = np.random.default_rng(0)
    target = root / "train" / "photograph"
    target.mkdir(parents=True)
    for i in range(count):
        width, height = SIZES[i % len(SIZES)]
        photo = photos[i % len(photos)]
        share = rng.uniform(0.5, 0.8)
        tall = int(share * min(photo.shape[0], photo.shape[1] * height / width))
        wide = tall * width // height
        top = rng.integers(photo.shape[0] - tall + 1)
        left = rng.integers(photo.shape[1] - wide + 1)
        crop = Image.fromarray(photo[top : top + tall, left : left + wide])
        crop = crop.resize((width, height), Image.Resampling.BICUBIC)
        crop.save(target / f"{i:04d}.jpg", quality=90)


def compute(
    settings: config_lib.Data,
    packed: config_lib.Data,
    *,
    images: int,
    rounds: int,
) -> dict[str, np.ndarray]:
    """Measures all ways on the same files, ``rounds`` times by turns.

    Args:
        settings: an image folder, streamed.
        packed: the same images, packed.
        images: how many are read in a round.
        rounds: how many rounds.

    Returns:
        Name -> [rounds, 2], images per second of processor time and of the clock.
    """
    listing = folder.listing(settings, settings.train_split)
    files = [(listing.root / name).read_bytes() for name in listing.files]
    rng = np.random.default_rng(0)
    draws = rng.random((images, jpeg.TRIES, 4))

    pool = futures.ThreadPoolExecutor(os.cpu_count())

    def window_of(i: int) -> None:
        decoded = images_lib.decode(files[i % len(files)])
        jpeg.train_image(decoded, draws[i], settings.image_size)

    def whole(i: int) -> None:
        with Image.open(io.BytesIO(files[i % len(files)])) as file:
            pixels = np.asarray(file.convert("RGB"))
        images_lib.resize(pixels, settings.image_size, settings.image_size)

    def by_pillow(way: Callable[[int], None]) -> common.Timed:
        return common.timed(lambda: list(pool.map(way, range(images))))

    def round_of_stream(where: config_lib.Data) -> common.Timed:
        stream = data.imagenet.train_stream(
            where, seed=0, start_step=0, batch_size=BATCH_SIZE
        )
        # The first batches open files and start threads; after them nothing is left
        # that was read ahead, for nothing here takes longer than reading.
        for _ in range(WARM_UP // BATCH_SIZE):
            next(stream)

        def streamed() -> None:
            for _ in range(images // BATCH_SIZE):
                next(stream)

        cost = common.timed(streamed)
        stream.close()  # or it would go on reading ahead
        return cost

    ways = {
        STREAM: lambda: round_of_stream(settings),
        PACKED: lambda: round_of_stream(packed),
        WINDOWS: lambda: by_pillow(window_of),
        WHOLE: lambda: by_pillow(whole),
    }
    costs = [[way() for way in ways.values()] for _ in range(rounds)]
    seconds = np.array([[(c.processor, c.clock) for c in row] for row in costs])
    return {name: images / seconds[:, i] for i, name in enumerate(ways)}


def records(found: dict[str, np.ndarray], **about: object) -> list[dict[str, object]]:
    """A record of each way: its speeds, and how often they are those of Pillow."""
    measured = []
    for name, speeds in found.items():
        ratios = {
            f"ratio_to_{short}": speeds[:, 0] / found[other][:, 0]
            for short, other in (("windows", WINDOWS), ("whole", WHOLE))
        }
        measured.append(
            common.stamped(
                experiment=NAME,
                way=name,
                images_per_core_second=float(np.median(speeds[:, 0])),
                images_per_second=float(np.median(speeds[:, 1])),
                **{key: float(np.median(ratio)) for key, ratio in ratios.items()},
                lowest=float(min(ratios["ratio_to_windows"])),
                highest=float(max(ratios["ratio_to_windows"])),
                **about,
            )
        )
    return measured


def show(found: list[dict[str, object]]) -> None:
    """Prints the medians, and each way's speed per core over Pillow's."""
    columns = {
        "": "{way}",
        "images/s per core": "{images_per_core_second:.0f}",
        "images/s": "{images_per_second:.0f}",
        "per core, of Pillow's windows": (
            "{ratio_to_windows:.2f} ({lowest:.2f} to {highest:.2f})"
        ),
        "of Pillow's whole images": "{ratio_to_whole:.2f}",
    }
    common.show("", columns, found)


def main() -> None:
    """Reads flags, measures, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=pathlib.Path, help="has train/CLASS/*.jpg")
    parser.add_argument("--images", type=int, default=400, help="in each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=224, help="pixels")
    parser.add_argument("--out", type=pathlib.Path, help="append records here")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = args.folder or pathlib.Path(temporary) / "photographs"
        if args.folder is None:
            write_photographs(root, 100)
        values = {
            "source": "folder",
            "name": "bench",
            "data_dir": str(root),
            "image_size": args.size,
            "streaming": True,
        }
        settings = config_lib.parse({"data": values}).data
        out = pathlib.Path(temporary) / "packed"
        pack.write(settings, out, "bench", splits=("train",), quiet=True)
        packed = dataclasses.replace(settings, source="tfds", data_dir=str(out))
        found = compute(settings, packed, images=args.images, rounds=args.rounds)
        of = "scikit-learn's photographs" if args.folder is None else root.name
        about = {"of": of, "size": args.size, "rounds": args.rounds}
        measured = records(found, images=args.images, **about)
    show(measured)
    common.append(args.out, measured)


if __name__ == "__main__":
    main()
