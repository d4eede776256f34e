"""Generated configurations: refused in one line, or they get as far as training."""

import math
import random

import jax
import pytest

from apr_jax import config as config_lib
from apr_jax import job, settings
from apr_jax.errors import UserError, words
from apr_jax.train import loop
from tests import toy

pytestmark = pytest.mark.usefixtures("_tiny_model")

LEAVES = list(settings.leaves(config_lib.default()))
NUMBERS = [
    *(math.nan, math.inf, -math.inf, -0.0, 0.5, 1e-300, 1e308, 1e6, True),
    *(-1, 0, 1, 3, 10**400, -(10**400), 2**31, 2**63, 99_999),
]
TEXTS = [
    *(
        "",
        "x",
        "none",
        "../x",
        "~nobody.x/y",
        "gs://b/c",
        "\0",
        "é",
        "\udcff",
        "\n",
        " ",
    ),
    *(
        "x" * 300,
        "wrn_10_1",
        "wrn_10_99999",
        "wrn_99994_1",
        "wrn_10_" + "9" * 400,
        "%s",
    ),
    *(
        "apr_p+apr_s",
        "cutout+",
        "+",
        "a=folder:/nothere",
        "train[:0]",
        "test[:1",
        "csi",
    ),
]
ODD = [None, [], {}, b"x", {"a": 1}, object, (None,), ((1,),), 1j, "text", 3, (1, "x")]


def value(rng, leaf):
    """A value for a field: of its choices, of its type, or of another."""
    if rng.random() < 0.15:
        return rng.choice(ODD)
    if leaf.about.choices and rng.random() < 0.3:
        return rng.choice(leaf.about.choices)
    pool = TEXTS if "str" in str(leaf.kind) else NUMBERS
    if leaf.kind in (int, float, str, bool):
        return rng.choice(pool)
    return tuple(rng.choice(pool) for _ in range(rng.randint(0, 3)))


class ReachedTraining(BaseException):
    pass


@pytest.mark.parametrize("seed", range(4))
def test_generated_configurations(folder, tmp_path, monkeypatch, seed):
    def reached(*_, **__):
        raise ReachedTraining

    monkeypatch.setattr(loop, "train", reached)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    rng, ends = random.Random(seed), {"refused": 0, "reached": 0}
    for number in range(50):
        changes = {
            leaf.name: value(rng, leaf)
            for leaf in rng.sample(LEAVES, rng.choice([1, 1, 2]))
        }
        values = toy.settings(folder).to_dict()
        for name, new in changes.items():
            *groups, last = name.split(".")
            group = values
            for part in groups:
                group = group[part]
            group[last] = new
        if values["data"]["source"] == "tfds":  # it would look for a network
            continue
        root = tmp_path / str(number)
        said = None
        try:
            config = config_lib.parse(values)
            job.run(config, root, quiet=True)
        except (UserError, OSError) as error:  # names may be too long for the system
            said = words(error)
        except ReachedTraining:
            ends["reached"] += 1
            for item in jax.tree.leaves(config_lib.flatten(config)):
                assert isinstance(item, str) or math.isfinite(item), changes
        if said is not None:
            ends["refused"] += 1
            assert "\n" not in said, changes
            assert not (root / "config.json").exists(), changes
    assert min(ends.values()) > 0, ends
