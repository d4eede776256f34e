"""Measuring in three processes: every example once, whatever doesn't divide."""

import socket

import numpy as np
import pytest
from PIL import Image

from apr_jax import job, models
from tests import toy

PROGRAM = """
import dataclasses, pathlib, sys
import numpy as np
folder, images, out, count, number, port = sys.argv[1:]
from apr_jax import data, models, parallel

if int(count) > 1:
    parallel.start_processes(f"localhost:{port}", int(count), int(number))
from apr_jax.evaluate import classifier as lib
from apr_jax.evaluate.context import Context
from tests import toy
models.MODELS["tiny"] = toy.TinyNet
network = lib.from_run(pathlib.Path(folder))
layout = parallel.make_layout(0)
found = {}
for batch in (3, 9):
    config = toy.config(pathlib.Path(images), eval__batch_size=batch)
    there = data.load(config.data, splits=("test",))
    network = dataclasses.replace(network, config=config)
    context = Context(layout, quiet=True, resident=there)
    found[f"arrays {batch}"] = lib.collect_split(network, "test", context)
    streamed = dict(source="folder", streaming=True, eval_resize=9)
    streamed = {f"data__{name}": value for name, value in streamed.items()}
    config = toy.config(pathlib.Path(images), eval__batch_size=batch, **streamed)
    network = dataclasses.replace(network, config=config)
    context = Context(layout, quiet=True)
    found[f"stream {batch}"] = lib.collect_split(network, "test", context)
if parallel.is_primary():
    logits = {name: outputs.logits for name, outputs in found.items()}
    labels = {f"labels of {name}": outputs.labels for name, outputs in found.items()}
    np.savez(out, **logits, **labels)
"""
STREAMED = 20  # images: 7, 7 and 6


def measure(root, out, count):
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    given = (root / "run", root / "images", out, count)
    started = [toy.start("-c", PROGRAM, *given, i, port) for i in range(count)]
    for process in started:
        said, _ = process.communicate(timeout=240)
        assert process.returncode == 0, said
    with np.load(out) as found:
        return dict(found)


@pytest.mark.slow
def test_three_processes_count_every_example_once(tmp_path, rng):
    images = tmp_path / "images"
    images.mkdir()
    toy.write_arrays(images)  # 50 to test on
    for i in range(STREAMED):
        path = images / "test" / f"class{i % toy.CLASSES}" / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (10 + i, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models.MODELS, "tiny", toy.TinyNet)
        config = toy.config(images, optim__epochs=1.0, optim__milestones=())
        job.run(config, tmp_path / "run", quiet=True)
    one = measure(tmp_path, tmp_path / "one.npz", 1)
    three = measure(tmp_path, tmp_path / "three.npz", 3)
    for batch in (3, 9):
        for name, count in (("arrays", 50), ("stream", STREAMED)):
            mine, theirs = (
                np.c_[found[f"labels of {name} {batch}"], found[f"{name} {batch}"]]
                for found in (one, three)
            )
            assert len(theirs) == count
            assert len(np.unique(mine, axis=0)) == count  # each tells which it is
            order = [np.lexsort(rows.T[::-1].round(4)) for rows in (mine, theirs)]
            np.testing.assert_allclose(
                mine[order[0]], theirs[order[1]], rtol=1e-4, atol=1e-5
            )
