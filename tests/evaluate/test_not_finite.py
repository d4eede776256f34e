"""Networks that don't answer everything: every measurement counts and says it.

Over all parts of the card, so that a part that is added is tested by being there.
"""

import jax.numpy as jnp
import numpy as np
import pytest

from apr_jax import config as config_lib
from apr_jax import data, parallel
from apr_jax.evaluate import card
from apr_jax.evaluate import classifier as classifier_lib
from apr_jax.evaluate.context import Context
from apr_jax.report import page
from apr_jax.report.run_view import RunView
from tests import toy

SETTINGS = {
    "clean": lambda folder: None,
    "corruption": lambda folder: config_lib.Corruption(
        corruptions=("brightness",), severities=(1, 2)
    ),
    "ood": lambda folder: config_lib.Ood(
        out=(f"dark=arrays:{folder}/dark.npz",), scores=("msp", "energy", "authors")
    ),
    "shift": lambda folder: config_lib.Shift(shift=(f"same=arrays:{folder}/test.npz",)),
    "adversarial": lambda folder: config_lib.Adversarial(
        attack="fgsm", linf=(1 / 255,), examples=40
    ),
    "fourier": lambda folder: config_lib.Fourier(
        examples=40, extent=3, radii=(2.0,), norm=0.1
    ),
}
# The share of examples that is right, or wrong, on the images as they are.
RIGHT = {
    "clean": ("test", "accuracy"),
    "shift": ("same", "accuracy"),
    "adversarial": ("linf/0.00392157/fgsm", "clean_accuracy"),
}
WRONG = {
    "corruption": ("clean", "error"),
    "fourier": ("test", "bands.clean_error"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy")
    toy.write_arrays(folder)
    dark = np.random.default_rng(0).integers(0, 30, (40, 8, 8, 3), np.uint8)
    np.savez(folder / "dark.npz", images=dark, labels=np.zeros(40, int))
    return folder


def shades(images):
    level = 255 * images.mean((1, 2, 3))
    return -jnp.abs(level[:, None] - (40.0 + 45.0 * jnp.arange(4))[None]) / 20


def dazzled(images):
    """The same, but the logits of bright images are NaN, that of class 0 first."""
    bright = images.mean((1, 2, 3)) > 0.5
    return jnp.where(bright[:, None], jnp.nan, shades(images))


def blind(images):
    return shades(images) * jnp.nan


def measured(part, folder, function):
    network = classifier_lib.from_function(
        function, toy.config(folder), "abcd", name="dazzled"
    )
    context = Context(parallel.make_layout(1), quiet=True)
    settings = SETTINGS[part](folder)
    return list(card._PARTS[part].measure(network, settings, context))


@pytest.mark.parametrize("part", card._PARTS)
def test_every_record_says_how_many_logits_were_not_finite(part, folder, capfd):
    assert part in SETTINGS, "a new part of the card needs settings here"
    records = measured(part, folder, dazzled)
    assert all(r.extra["not_finite"] > 0 for r in records)
    split = data.load(toy.config(folder).data).splits["test"]
    count = 40 if part in ("adversarial", "fourier") else 50
    pixels, labels = np.asarray(split.images)[:count] / 255, split.labels[:count]
    logits = np.asarray(dazzled(jnp.asarray(pixels, jnp.float32)))
    silent = np.isnan(logits).any(1)
    assert 3 < silent.sum() < 30
    found = {(r.split, r.metric): r for r in records}
    # By a class that nothing is of.
    right = np.mean(np.where(silent, -1, np.nan_to_num(logits).argmax(1)) == labels)
    if part in RIGHT:
        assert found[RIGHT[part]].value == pytest.approx(right)
        assert found[RIGHT[part]].extra["not_finite"] == np.isnan(logits).sum()
    elif part in WRONG and part != "fourier":
        assert found[WRONG[part]].value == pytest.approx(1 - right)
    assert all(np.isfinite(r.value) for r in records)
    # Seen on the page and in the terminal.
    run = RunView(name="one", records=records)
    page.write_report(folder / "page.html", [run])
    text = (folder / "page.html").read_text()
    assert "Logits that are not finite" in text
    most = max(r.extra["not_finite"] for r in records)
    assert f"{most:,} logits are NaN or infinite" in text
    page.terminal_summary([run])
    assert "logits are NaN or infinite; an example" in capfd.readouterr().out


@pytest.mark.parametrize("part", card._PARTS)
def test_nothing_is_said_of_finite_logits(part, folder):
    records = measured(part, folder, shades)
    assert not any("not_finite" in r.extra for r in records)
    page.write_report(folder / "page.html", [RunView(name="one", records=records)])
    assert "not finite" not in (folder / "page.html").read_text()


@pytest.mark.parametrize("part", card._PARTS)
def test_a_network_that_answers_nothing_is_never_right(part, folder):
    records = measured(part, folder, blind)
    good = [r for r in records if r.metric.endswith(("accuracy", "auroc", "oscr"))]
    # The best of all thresholds is one that decides nothing.
    good = [r for r in good if not r.metric.endswith("detection_accuracy")]
    bad = [r for r in records if r.metric.endswith("error") and "ece" not in r.metric]
    assert good or bad
    assert all(r.value == 0 for r in good)
    assert all(r.value == 1 for r in bad)
    page.write_report(folder / "page.html", [RunView(name="one", records=records)])


def test_unknown_images_without_an_answer_pass_for_known(folder):
    """Against pairs, counted one by one."""

    def dazzled_by_dark(images):
        dark = images.mean((1, 2, 3)) < 0.055
        return jnp.where(dark[:, None], jnp.nan, shades(images))

    records = measured("ood", folder, dazzled_by_dark)
    found = {r.metric: r for r in records if r.split == "dark"}
    split = data.load(toy.config(folder).data).splits["test"]
    with np.load(folder / "dark.npz") as stored:
        dark = stored["images"]
    inside, outside = (
        np.asarray(dazzled_by_dark(jnp.asarray(x / 255, jnp.float32)))
        for x in (np.asarray(split.images), dark)
    )
    assert 0 < np.isnan(outside[:, 0]).sum() < 40
    score = lambda z, none: np.where(
        np.isnan(z[:, 0]), none, np.log(np.exp(z.astype(np.float64)).sum(1))
    )
    known, unknown = score(inside, -np.inf), score(outside, np.inf)
    above = known[:, None] > unknown[None]
    wanted = np.mean(above + 0.5 * (known[:, None] == unknown[None]))
    assert found["energy.auroc"].value == pytest.approx(wanted, abs=1e-6)
    assert found["energy.auroc"].extra["not_finite"] == np.isnan(outside).sum()
