"""Files of weights: how they are wrapped, what is damaged, whose classes they know."""

import json
import re

import jax
import ml_dtypes
import numpy as np
import pytest

from apr_jax.errors import ConfigError, DataError
from apr_jax.evaluate import weights
from apr_jax.models import state_dicts, torch_weights
from tests import toy
from tests.models.test_torch_weights import plain_tensors

TYPES = {"float32": "F32", "float64": "F64", "float16": "F16", "bfloat16": "BF16"}


def safetensors(tensors):
    """The bytes of a file, as its format is described."""
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, array in tensors.items():
        end = len(data) + array.nbytes
        header[name] = {
            "dtype": TYPES[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [len(data), end],
        }
        data += array.tobytes()
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


@pytest.fixture(scope="module")
def tensors():
    rng = np.random.default_rng(0)
    return {
        name: rng.uniform(0.1, 1, array.shape).astype(np.float32)
        for name, array in plain_tensors("wrn_10_1").items()
    }


@pytest.fixture(scope="module")
def wanted(tensors):
    return torch_weights.from_torch("wrn_10_1", tensors)


def same(one, other, rtol=0.0):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol), one, other)


# --- Wrapped and named ----------------------------------------------------------------

OPTIMIZER = {"state": {0: {"momentum": np.zeros(3)}}, "param_groups": [{"lr": 0.1}]}


@pytest.mark.parametrize("wrapper", [*state_dicts.WRAPPERS, "something_else"])
def test_a_wrapper(tensors, wanted, wrapper):
    given = {"epoch": 3, wrapper: tensors, "optimizer": OPTIMIZER}
    same(torch_weights.from_torch("wrn_10_1", given), wanted)


@pytest.mark.parametrize(
    "prefix",
    [
        *("module.", "_orig_mod.", "model.", "1.", "backbone."),
        *("module.module.", "module._orig_mod.", "model.1.module."),
    ],
)
def test_what_stands_before_names(tensors, wanted, prefix):
    given = {prefix + name: array for name, array in tensors.items()}
    given |= {prefix + "bn1.num_batches_tracked": np.array(7)}
    same(torch_weights.from_torch("wrn_10_1", given), wanted)
    if prefix == "module.":  # of torch.optim.swa_utils
        given["n_averaged"] = np.array(3)
        same(torch_weights.from_torch("wrn_10_1", given), wanted)
        given["conv1.weight"] = tensors["conv1.weight"]
        with pytest.raises(ValueError, match=r"two tensors are called 'conv1.weight'"):
            torch_weights.from_torch("wrn_10_1", given)


@pytest.mark.parametrize(
    "given",
    [{}, {"a": 1}, {0: np.zeros(3)}, {"g": {"x": np.zeros(1)}, "d": {}, "e": 3}],
)
def test_nothing_of_a_network(given):
    with pytest.raises(ValueError, match=r"no tensors|no tensor called"):
        torch_weights.from_torch("wrn_10_1", given)


def test_weights_that_are_not_finite_are_named(tensors):
    given = dict(tensors)
    given["fc.bias"] = np.array([1, np.nan, np.inf])
    with pytest.raises(ValueError, match=r"NaN or infinite: fc.bias \(2 of 3\)"):
        torch_weights.from_torch("wrn_10_1", given)
    given["fc.bias"] = np.array([1, 2, 3j])
    with pytest.raises(ValueError, match=r"fc.bias is complex128, no real numbers"):
        torch_weights.from_torch("wrn_10_1", given)
    given["fc.weight"] = np.array(1.0)
    with pytest.raises(ValueError, match=r"not the weights .* fc.weight is \[\]"):
        torch_weights.from_torch("wrn_10_1", given)


# --- Files ----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", TYPES)
def test_safetensors(tensors, wanted, tmp_path, dtype):
    given = {n: a.astype(getattr(ml_dtypes, dtype, dtype)) for n, a in tensors.items()}
    path = tmp_path / "weights.safetensors"
    path.write_bytes(safetensors(given))
    rtol = {"float16": 1e-3, "bfloat16": 1e-2}.get(dtype, 0)
    same(torch_weights.load_torch_file("wrn_10_1", path), wanted, rtol)


def damages(whole):
    """Name -> bytes of a file that is none."""
    half = len(whole) // 2
    return {
        "empty": b"",
        "cut off in its head": whole[:20],
        "cut off": whole[:half],
        "one byte less": whole[:-1],
        "garbage": b"\xff" * 100,
        "text": b"hello",
        "a list": (2).to_bytes(8, "little") + b"[]",
        "JSON": b'{"a": 1}',
    }


def refused(path):
    said = rf"^can't read {re.escape(str(path))}: [^\n]+$"
    with pytest.raises(DataError, match=said):
        torch_weights.load_torch_file("wrn_10_1", path)


@pytest.mark.parametrize("kind", damages(b""))
def test_damaged_safetensors(tensors, tmp_path, kind):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(damages(safetensors(tensors))[kind])
    refused(path)


def test_files_that_are_not_there(tmp_path):
    for path in (tmp_path / "no.safetensors", tmp_path):
        if path.suffix or pytest.importorskip("torch"):
            refused(path)


@pytest.fixture(scope="module")
def saved(tensors, tmp_path_factory, torch):
    path = tmp_path_factory.mktemp("saved") / "weights.pth"
    torch.save({name: torch.tensor(array) for name, array in tensors.items()}, path)
    return path.read_bytes()


@pytest.mark.parametrize("kind", [*damages(b""), "a bit of a number"])
def test_damaged_files_of_pytorch(saved, tmp_path, kind):
    path = tmp_path / "weights.pth"
    place = len(saved) // 2
    flipped = saved[:place] + bytes([saved[place] ^ 1]) + saved[place + 1 :]
    path.write_bytes((damages(saved) | {"a bit of a number": flipped})[kind])
    refused(path)


def test_other_things_of_pytorch(tensors, wanted, tmp_path, torch):
    path = tmp_path / "weights.pth"
    for content in ([torch.zeros(3)], torch.zeros(3), torch.nn.Linear(3, 3), None):
        torch.save(content, path)
        refused(path)
    inside = {name: torch.nn.Parameter(torch.tensor(a)) for name, a in tensors.items()}
    same(torch_weights.from_torch("wrn_10_1", inside), wanted)
    short = {name: tensor.bfloat16() for name, tensor in inside.items()}
    same(torch_weights.from_torch("wrn_10_1", {"ema": short}), wanted, 1e-2)
    torch.save({"model_state": short}, path)
    same(torch_weights.load_torch_file("wrn_10_1", path), wanted, 1e-2)
    given = inside | {"fc.bias": inside["fc.bias"].to(torch.complex64)}
    with pytest.raises(ValueError, match="complex64, no real numbers"):
        torch_weights.from_torch("wrn_10_1", given)


# --- Classes --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "classes", "said"),
    [
        ("standard", 3, r"has 3 outputs; the data have 4 classes, 0, 1, 2, …$"),
        ("apr_sp_heads", 4, r"has 4 outputs; .* 4 classes, .*, for 2 heads$"),
        ("supclr", 4, r"augment.method is 'supclr', whose networks have further"),
    ],
)
def test_weights_of_other_classes(folder, tmp_path, method, classes, said):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(safetensors(plain_tensors("wrn_10_1", classes)))
    config = toy.config(folder, model__name="wrn_10_1", augment__method=method)
    with pytest.raises(ConfigError, match=said):
        weights.from_weights(path, config)


def test_names_of_classes(tensors, capsys):
    for given in (
        {"classes": ["cat", "dog", "emu"]},
        {"class_names": ("cat", "dog", "emu")},
        {"class_to_idx": {"dog": 1, "emu": 2, "cat": 0}},
    ):
        loaded = torch_weights.load("wrn_10_1", {"net": tensors, **given})
        assert loaded.class_names == ("cat", "dog", "emu")
        assert loaded.outputs == 3
    check = weights._check_classes
    check("w.pth", loaded, ("cat", "dog", "emu"), 1)
    assert capsys.readouterr().err == ""
    with pytest.raises(ConfigError, match=r"cat, dog, emu, .* in another order"):
        check("w.pth", loaded, ("cat", "emu", "dog"), 1)
    check("w.pth", loaded, ("Katze", "Hund", "Strauss"), 1)
    assert "the data theirs Katze, Hund, Strauss, …" in capsys.readouterr().err
