"""Mistakes in a command line of ``launch.py``: one line, status 2, nothing made."""

import json
import re
import sys

import pytest

from tests import toy

QUICK = "--config=configs/quickstart.py"
# Arguments -> what is said, among other things.
MISTAKES = {
    "": "--config is missing; there are quickstart, cifar10_small, cifar10_fast",
    "--config=configs/nothere.py": "can't be read; there are quickstart, cifar10_sm",
    "--config=configs": "--config=configs: can't be read; there are quickstart, ci",
    "--config=quickstrat": "unknown configuration 'quickstrat'; choose from quicks",
    "--config=cifar10_wrn_aprsp:pgd": "nothing can follow the configuration cifar10_w",
    "--config=configs/cifar10_fgsm.py:blurb": "unknown preset 'blurb'; choose from st",
    f"{QUICK} --config.optim.epoch=1": "--config.optim.epoch: no such field; did you "
    "mean optim.epochs",
    f"{QUICK} --config.optimm.epochs=1": "There are name, seed, data, augment",
    f"{QUICK} --config.optim.epochs=abc": "--config.optim.epochs is 'abc'; it must be "
    "of type float",
    f"{QUICK} --config.optim=3": "--config.optim: no such field",
    f"{QUICK} --wrkdir=1": "Unknown command line flag 'wrkdir'. Did you mean: workdir",
    f"{QUICK} stray": "unexpected argument 'stray'",
    f"{QUICK} --config.eval.parts=clean,ood": "several are written \"('clean', 'corr",
    f"{QUICK} --config.optim.epochs=0": "optim.epochs is 0.0; it must be above 0",
    f"{QUICK} --config.augment.pair_prob=nan": "augment.pair_prob is nan; it must be",
    f"{QUICK} --workdir=az://b/r": "--workdir is 'az://b/r'; it must be a file or",
    f"{QUICK} --workdir=s3://": "--workdir is 's3://'; it must be s3://BUCKET/NAME",
    f"{QUICK} --workdir=~nobody.here/r": "--workdir is '~nobody.here/r'; there is no",
    f"{QUICK} --workdir=\udcff": "--workdir is '\\udcff'; names of files must be UTF-8",
    f"{QUICK} --beside=az://b": "--beside is 'az://b'; it must be a file or folder",
    f"{QUICK} --beside=nothere": "nothere is not a run: it has no config.json",
    f"{QUICK} --workdir=a --beside=b/../a": "--beside names b/../a, which is the run",
    f"{QUICK} --config.data.data_dir=gs://b": "data.data_dir is 'gs://b'; it must be a",
    f"{QUICK} --config.data.cache_dir=gs://b": "data.cache_dir is 'gs://b'; it must",
    f"{QUICK} --process=1": "--processes and --process say nothing alone",
    f"{QUICK} --processes=2": "--processes and --process say nothing alone",
    f"{QUICK} --coordinator=host:1": "--coordinator host:1 needs --processes: ",
    f"{QUICK} --coordinator=host:1 --processes=2": "--coordinator host:1 needs --pro",
    f"{QUICK} --coordinator=host --distributed": "is 'host'; it must be HOST:PORT",
    f"{QUICK} --coordinator=host:0 --distributed": "a port from 1 to 65535",
    f"{QUICK} --coordinator=host:65536 --distributed": "a port from 1 to 65535",
    f"{QUICK} --coordinator=http://h:1 --distributed": "it must be HOST:PORT of",
    f"{QUICK} --coordinator=h:1 --processes=2 --process=2": "it must be from 0 to 1",
    f"{QUICK} --coordinator=h:1 --processes=2 --process=-1": "it must be from 0 to 1",
    f"{QUICK} --coordinator=h:1 --processes=0 --process=0": "it must be at least 1",
    f"{QUICK} --distributed --process=-1": "--process is -1; it must be 0 or more",
}
# What only those know who have JAX.
LATER = {
    "--config quickstart:blurb": "augment.method: unknown method 'blurb'",
    f"{QUICK} --config.model.name=wrn_10": "model.name: ",
    f"{QUICK}:blurb": "augment.method: unknown method 'blurb'",
    f"{QUICK} --distributed": "--distributed finds no other processes here (SLURM_STEP_"
    "NODELIST, SLURM_NTASKS, SLURM_PROCID, SLURM_LOCALID not set: start it by srun)",
}
# Imports once; each mistake is made in a copy of the process.
PROGRAM = """
import json, os, sys
from absl import app
import launch
from apr_jax import job
from apr_jax.evaluate import clean
print("heavy", *{"tensorflow", "tensorflow_datasets", "torch"} & {*sys.modules})
run = job.main
job.main = lambda *a, **k: print("JAX loads") or run(*a, **k)
os.environ["SLURM_JOB_ID"] = "5"
sys.path[0] = os.getcwd()
os.chdir(sys.argv[2])
os.symlink(sys.path[0] + "/configs", "configs")
for words in json.loads(sys.argv[1]):
    print("BEGIN", flush=True)
    if not os.fork():
        sys.argv = ["launch.py", *words.split()]
        try:
            app.run(launch.main, flags_parser=launch.parse)
        except SystemExit as end:
            print("status", end.code, flush=True)
            os._exit(0)
    os.wait()
print("made", sorted(os.listdir(".")))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
def test_a_mistake_is_one_line(tmp_path):
    mistakes = MISTAKES | LATER
    program = toy.start("-c", PROGRAM, json.dumps(list(mistakes)), tmp_path)
    output, _ = program.communicate(timeout=120)
    heavy, *said = output.partition("made")[0].split("BEGIN\n")
    assert heavy.endswith("heavy\n"), "imported with the job and a measurement"
    assert len(said) == len(mistakes), output
    for words, answer, expected in zip(mistakes, said, mistakes.values(), strict=True):
        *before, line, status = answer.splitlines()
        assert ("JAX loads" in before) == (words in LATER), answer
        before = [text for text in before if text != "JAX loads"]
        assert status == "status 2", answer
        assert line.startswith("error: "), answer
        assert expected in line, words
        assert not [
            text for text in before if not re.search("Warning|: starting$", text)
        ], answer
    assert output.endswith("made ['configs']\n"), output


CHECK = """
import sys, launch
from apr_jax.cli import train
launch.parse(["launch.py", *sys.argv[1:]])
train.check()
for name in ("jax", "tensorflow", "orbax", "matplotlib", "scipy"):
    assert name not in sys.modules, name
"""


def test_flags_are_checked_before_jax_loads(tmp_path):
    program = toy.start("-c", CHECK, QUICK, f"--workdir={tmp_path}")
    assert program.communicate(timeout=60) == ("", None)
    assert not list(tmp_path.iterdir())


def test_images_that_no_device_holds(monkeypatch, tmp_path):
    from apr_jax import data, job
    from apr_jax.errors import ConfigError

    monkeypatch.setattr(data, "load", None)  # nothing is read before
    sizes = {"data__image_size": 9_999, "train__batch_size": 10_000}
    config = toy.config(tmp_path, model__name="wrn_10_1", **sizes)
    wanted = "data.image_size is 9999, .*: the pixels of a step alone take 11,998 GB of"
    with pytest.raises(ConfigError, match=wanted):
        job.run(config, tmp_path / "run", quiet=True)
    assert not (tmp_path / "run" / "config.json").exists()


def test_a_network_that_no_device_holds(monkeypatch, tmp_path):
    from apr_jax import job, parallel
    from apr_jax.errors import ConfigError

    toy.write_arrays(tmp_path)
    config = toy.config(tmp_path, model__name="wrn_10_1")
    monkeypatch.setattr(parallel, "memory", lambda device: 12 * 77_000)
    with pytest.raises(
        ConfigError, match=r"model\.name is 'wrn_10_1', a network of 77,"
    ):
        job.run(config, tmp_path / "run", quiet=True)
    assert not (tmp_path / "run" / "config.json").exists()
