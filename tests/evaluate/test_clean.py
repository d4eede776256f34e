"""Measuring: every example once, the same numbers however it is run."""

import html
import subprocess
import sys

import jax
import numpy as np
import pytest

from apr_jax import config as config_lib
from apr_jax import corruptions, data, job, models, parallel
from apr_jax.errors import ConfigError, DataError
from apr_jax.evaluate import classifier as classifier_lib
from apr_jax.evaluate import clean, corruption, weights
from apr_jax.evaluate.context import Context
from apr_jax.runs import records as records_lib
from apr_jax.runs import workdir
from tests import toy

pytestmark = pytest.mark.usefixtures("_tiny_model")


@pytest.fixture(scope="module")
def finished(folder, tmp_path_factory):
    """A work directory after a whole job."""
    root = tmp_path_factory.mktemp("finished") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models.MODELS, "tiny", toy.TinyNet)
        changes = {"augment__method": "apr_sp", "augment__crop_pad": 0}
        config = toy.config(folder, optim__epochs=2.0, **changes)
        assert job.run(config, root, quiet=True) is None
    return root


def expected_logits(finished, folder):
    """Logits of the test split, straight from the network, all in one batch."""
    network = classifier_lib.from_run(finished)
    with np.load(folder / "test.npz") as stored:
        images, labels = stored["images"], stored["labels"]
    logits, _ = jax.jit(network.predict)(network.variables, images)
    return np.asarray(logits), labels


@pytest.mark.parametrize(("batch", "devices"), [(7, 1), (50, 2), (64, 8)])
def test_every_example_once(finished, folder, batch, devices):
    network = classifier_lib.from_run(finished)
    config = toy.config(folder, eval__batch_size=batch)
    split = data.load(config.data).splits["test"]
    outputs = classifier_lib.make_collect(
        network, Context(parallel.make_layout(devices), quiet=True)
    )(
        data.eval_batches(split, batch),
        50,
    )
    logits, labels = expected_logits(finished, folder)
    np.testing.assert_array_equal(outputs.labels, labels)
    np.testing.assert_allclose(outputs.logits, logits, rtol=1e-4, atol=1e-5)
    assert outputs.features.shape == (50, 8)


@pytest.mark.parametrize("expected", [49, 51])
def test_a_wrong_count_is_an_error(finished, folder, expected):
    network = classifier_lib.from_run(finished)
    split = data.load(toy.config(folder).data).splits["test"]
    with pytest.raises(DataError, match=f"{expected} examples, but 50 were"):
        classifier_lib.make_collect(
            network, Context(parallel.make_layout(1), quiet=True)
        )(
            data.eval_batches(split, 16),
            expected,
        )


def test_records_of_a_job(finished, folder):
    records = records_lib.read(finished / "results.jsonl")
    found = {record.metric: record for record in records}
    logits, labels = expected_logits(finished, folder)
    assert found["accuracy"].value == pytest.approx(
        np.mean(logits.argmax(1) == labels), abs=1e-9
    )
    probabilities = np.exp(logits - np.log(np.exp(logits).sum(1, keepdims=True)))
    picked = probabilities[np.arange(50), labels]
    assert found["nll"].value == pytest.approx(-np.log(picked).mean(), rel=1e-4)
    scaled = {f"{m}_scaled" for m in ("nll", "ece", "rms_calibration_error", "brier")}
    scaled.add("temperature")  # one half is fitted to, the other one measured
    for record in records:
        size = 25 if record.metric in scaled else 50
        assert (record.n, record.step, record.split) == (size, 12, "test")
        assert record.low <= record.value <= record.high
    assert set(found) == scaled | {
        "accuracy",
        "error",
        "nll",
        "ece",
        "rms_calibration_error",
        "brier",
        "aurc",
    }
    right = logits.argmax(1) == labels
    surest = np.argsort(-probabilities.max(1))
    risks = np.cumsum(~right[surest]) / np.arange(1, 51)
    assert found["aurc"].value == pytest.approx(risks.mean(), abs=1e-6)
    halves = found["temperature"].extra
    assert "seed 0" in halves["fitted_on"]
    assert halves["measured_on"] == "the other half"


def test_the_page_is_complete(finished):
    page = (finished / "report.html").read_text()
    for wanted in ("toy", "Accuracy", "APR-S", "Calibration", "Learning rate"):
        assert wanted in page
    (command,) = workdir.read_commands(workdir.RunDir(finished))
    assert html.escape(command) in page
    assert "<script src" not in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_measuring_a_run_again_gives_the_same_numbers(finished, monkeypatch):
    network = classifier_lib.from_run(finished)
    monkeypatch.setattr(clean, "_CONFUSED", toy.CLASSES - 1)
    again = clean.measure(network, None, Context(parallel.make_layout(1), quiet=True))
    first = records_lib.read(finished / "results.jsonl")
    before = {r.metric: r.value for r in first}
    # The matrix is of few classes alone.
    assert [any("confusion" in r.extra for r in x) for x in (first, again)] == [1, 0]
    assert {r.metric: r.value for r in again} == pytest.approx(before, rel=1e-5)


def test_a_directory_that_is_no_run(tmp_path):
    with pytest.raises(ConfigError, match=r"is not a run: it has no config"):
        classifier_lib.from_run(tmp_path)


def test_a_run_without_checkpoint(folder, tmp_path):
    config = toy.config(folder)
    run = workdir.prepare(tmp_path, config, write=True)
    workdir.claim(run, config, "abcd")
    with pytest.raises(ConfigError, match="has no checkpoint yet"):
        classifier_lib.from_run(tmp_path)


def test_a_wrong_beside_is_found_before_training(folder, tmp_path):
    with pytest.raises(ConfigError, match="is not a run"):
        job.run(toy.config(folder), tmp_path / "run", beside=[tmp_path], quiet=True)
    assert not (tmp_path / "run").exists()


def test_pytorch_weights(folder, tmp_path, rng, capfd, torch):
    config = toy.config(folder, model__name="wrn_10_1")
    shapes = wrn_shapes(toy.CLASSES)
    tensors = {
        name: torch.tensor(0.1 * rng.standard_normal(shape), dtype=torch.float32)
        for name, shape in shapes.items()
    }
    for name in shapes:
        if name.endswith("running_var"):
            tensors[name] = tensors[name].abs() + 1.0
    torch.save({"state_dict": tensors}, tmp_path / "weights.pth")
    loaded = weights.from_weights(tmp_path / "weights.pth", config)
    assert loaded.name == "weights"
    records = clean.measure(loaded, None, Context(parallel.make_layout(1), quiet=True))
    # Half of them after a temperature that the other half chose.
    assert {record.n for record in records} == {25, 50}

    # Its own normalisation is used: here one that undoes the configuration's.
    images = np.full((2, 8, 8, 3), 0.3, np.float32)
    mean, std = (np.array(v) for v in (config.data.mean, config.data.std))
    own = {"mu": torch.tensor(mean + 0.1).view(1, 3, 1, 1), "sigma": torch.ones(3)}
    torch.save({"state_dict": tensors | own}, tmp_path / "normal.pth")
    normal = weights.from_weights(tmp_path / "normal.pth", config)
    assert normal.config.data.std == (1.0, 1.0, 1.0)
    beside = {"state_dict": tensors, "mu": own["mu"], "sigma": [1.0] * 3}
    torch.save(beside, tmp_path / "beside.pth")
    again = weights.from_weights(tmp_path / "beside.pth", config)
    assert again.config.data == normal.config.data
    assert "normal.pth brings its own normalisation" in capfd.readouterr().err
    moved = (images - (mean + 0.1)) * std + mean
    np.testing.assert_allclose(
        normal.predict(normal.variables, images)[0],
        loaded.predict(loaded.variables, moved.astype(np.float32))[0],
        rtol=1e-4,
    )

    tensors.pop("fc.weight")
    torch.save(tensors, tmp_path / "weights.pth")
    with pytest.raises(ConfigError, match=r"weights.pth: .*fc.weight"):
        weights.from_weights(tmp_path / "weights.pth", config)


def wrn_shapes(classes):
    """Names and shapes of WRN-10-1's tensors in the usual PyTorch implementation."""
    shapes = {"conv1.weight": (16, 3, 3, 3)}

    def norm(name, width):
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.{part}"] = (width,)

    width = 16
    for number, out in enumerate((16, 32, 64), 1):
        block = f"block{number}.layer.0"
        norm(f"{block}.bn1", width)
        shapes[f"{block}.conv1.weight"] = (out, width, 3, 3)
        norm(f"{block}.bn2", out)
        shapes[f"{block}.conv2.weight"] = (out, out, 3, 3)
        if out != width:
            shapes[f"{block}.conv_shortcut.weight"] = (out, width, 1, 1)
        width = out
    norm("bn1", 64)
    shapes.update({"fc.weight": (classes, 64), "fc.bias": (classes,)})
    return shapes


@pytest.mark.slow
def test_the_command_explains_itself(tmp_path):
    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "apr_jax.evaluate.clean", *arguments],
            capture_output=True,
            text=True,
            check=False,
        )

    missing = run(str(tmp_path / "nothing"))
    assert missing.returncode == 2
    assert "is not there; give a run's directory or a file of weights" in missing.stderr
    helped = run("--help")
    assert "--beside: Finished runs" in helped.stdout + helped.stderr


def test_a_plain_function_of_pixels(folder):
    config = toy.config(folder)

    def brightness(pixels):
        assert pixels.dtype == np.float32
        mean = pixels.mean((1, 2, 3))
        return np.array([0.0, 1.0, 0.0, 0.0])[None] * mean[:, None]

    theirs = classifier_lib.from_function(brightness, config, "abcd", name="bright")
    records = clean.measure(theirs, None, Context(parallel.make_layout(2), quiet=True))
    labels = data.load(config.data).splits["test"].labels
    found = {record.metric: record for record in records}
    assert found["accuracy"].value == pytest.approx(np.mean(labels == 1), abs=1e-9)
    assert found["accuracy"].extra["classifier"] == "bright"


def torch_wrn(torch, classes):
    """WRN-10-1 in PyTorch, with the usual names of its parameters."""
    nn = torch.nn

    class Block(nn.Module):
        def __init__(self, inner, outer, stride):
            super().__init__()
            self.bn1 = nn.BatchNorm2d(inner)
            self.conv1 = nn.Conv2d(inner, outer, 3, stride, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(outer)
            self.conv2 = nn.Conv2d(outer, outer, 3, 1, 1, bias=False)
            self.conv_shortcut = None
            if inner != outer:
                self.conv_shortcut = nn.Conv2d(inner, outer, 1, stride, bias=False)

        def forward(self, x):
            y = torch.relu(self.bn1(x))
            kept = x if self.conv_shortcut is None else self.conv_shortcut(y)
            return kept + self.conv2(torch.relu(self.bn2(self.conv1(y))))

    class Stage(nn.Module):
        def __init__(self, *arguments):
            super().__init__()
            self.layer = nn.Sequential(Block(*arguments))

        def forward(self, x):
            return self.layer(x)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
            self.block1 = Stage(16, 16, 1)
            self.block2 = Stage(16, 32, 2)
            self.block3 = Stage(32, 64, 2)
            self.bn1 = nn.BatchNorm2d(64)
            self.fc = nn.Linear(64, classes)

        def forward(self, x):
            x = self.block3(self.block2(self.block1(self.conv1(x))))
            return self.fc(torch.relu(self.bn1(x)).mean((2, 3)))

    return Net()


def test_both_frameworks_measure_the_same(folder, tmp_path, torch):
    """A network trained in PyTorch: its own numbers, and ours of its weights."""
    config = toy.config(folder, model__name="wrn_10_1")
    split = data.load(config.data).splits["test"]
    mean, std = (
        torch.tensor(v)[:, None, None] for v in (config.data.mean, config.data.std)
    )

    def inputs(images):
        pixels = torch.tensor(np.array(images)).permute(0, 3, 1, 2) / 255
        return (pixels - mean) / std

    torch.manual_seed(0)
    net = torch_wrn(torch, toy.CLASSES)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    labels = torch.tensor(np.array(split.labels), dtype=torch.long)
    for _ in range(8):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(inputs(split.images)), labels).backward()
        optimizer.step()
    torch.save(net.state_dict(), tmp_path / "theirs.pth")
    net.eval()
    ours = weights.from_weights(tmp_path / "theirs.pth", config)
    context = Context(parallel.make_layout(1), quiet=True)

    def check(images, records):
        with torch.no_grad():
            logits = net(inputs(images))
        found = {record.metric: record.value for record in records}
        wrong = (logits.argmax(1) != labels).double().mean()
        nll = torch.nn.functional.cross_entropy(logits.double(), labels)
        brier = (logits.softmax(1) - torch.eye(toy.CLASSES)[labels]).pow(2).sum(1)
        assert found["error"] == pytest.approx(float(wrong), abs=1e-9)
        assert found["nll"] == pytest.approx(float(nll), rel=1e-3)
        assert found["brier"] == pytest.approx(float(brier.mean()), rel=1e-3)
        return float(wrong)

    check(split.images, clean.measure(ours, None, context))
    sets = config_lib.Corruption(corruptions=("gaussian_noise",), severities=(5,))
    records = list(corruption.measure(ours, sets, context))
    noisy = corruptions.corrupt(
        jax.random.key(0), np.asarray(split.images), "gaussian_noise", 5
    )
    check(noisy, [r for r in records if r.split == "gaussian_noise/5"])
