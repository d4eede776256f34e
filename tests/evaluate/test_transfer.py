"""Images of a surrogate as records that name both networks, and on the page."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from apr_jax import config as config_lib
from apr_jax import parallel
from apr_jax.attacks import rounds
from apr_jax.errors import ConfigError
from apr_jax.evaluate import adversarial, transfer
from apr_jax.evaluate import classifier as classifier_lib
from apr_jax.evaluate.context import Context
from apr_jax.report.run_view import RunView
from apr_jax.report.sections import transfer as section
from tests import toy

OTHER = """
import jax.numpy as jnp

def create():
    def other(pixels):
        levels = (40 + 45 * jnp.arange(4, dtype=jnp.float32)) / 255
        mean = pixels.mean((1, 2, 3))[:, None]
        return -16.0 * jnp.square(mean - levels[None] - 0.01)
    return other
"""


def shades(pixels):
    """The toy set's shades, told apart by the mean, and no gradient."""
    levels = (40 + 45 * jnp.arange(toy.CLASSES, dtype=jnp.float32)) / 255
    mean = jnp.round(pixels.mean((1, 2, 3)) * 255)[:, None] / 255
    return -16.0 * jnp.square(mean - levels[None])


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy")
    toy.write_arrays(folder)
    (folder / "other.py").write_text(OTHER)
    return folder


def network(place, **changes):
    made = classifier_lib.from_function(
        shades, toy.config(place), "0123", name="rounded"
    )
    return dataclasses.replace(made, **changes)


def measured(place, classifier, **given):
    settings = {"attack": "square", "queries": 2, "steps": 3, "examples": 24}
    settings |= {"linf": (0.12,), "surrogate": (f"{place / 'other.py'}:create",)}
    done = given.pop("done", ())
    context = Context(parallel.make_layout(1), quiet=True, done=done)
    settings = config_lib.Adversarial(**(settings | given))
    return list(adversarial.measure(classifier, settings, context))


def test_records_name_both_and_the_page_shows_them(place, capfd, monkeypatch):
    none = lambda engine, stage, task, standing, images, tick: (standing, images)
    monkeypatch.setattr(rounds, "run_stage", none)  # attacks on the network itself
    blind = network(place, differentiable=False)
    every = measured(place, blind)
    records = [r for r in every if r.job == transfer.JOB]
    by = {r.metric: r for r in records}
    assert list(by) == [
        "clean_accuracy",
        "surrogate_accuracy",
        "surrogate_fgsm",
        "transfer_fgsm",
        "surrogate_pgd",
        "transfer_pgd",
        "transfer_accuracy",
    ]
    digest = by["transfer_pgd"].extra["settings"]["surrogate_weights"][:6]
    assert {(r.split, r.n) for r in records} == {(f"linf/0.12/other-{digest}", 24)}
    assert {r.extra["classifier"] for r in records} == {"rounded"}
    assert {r.extra["settings"]["surrogate"] for r in records} == {"other"}
    assert {len(r.extra["settings"]["surrogate_weights"]) for r in records} == {12}
    clean, moved = by["clean_accuracy"].value, by["transfer_accuracy"].value
    assert clean == 1
    assert moved <= min(by["transfer_fgsm"].value, by["transfer_pgd"].value) < 0.5
    assert by["surrogate_pgd"].value < 0.5
    assert "made on other" in " ".join(capfd.readouterr().err.split())

    page = section.html([RunView(name="a", records=records), RunView(name="none")])
    for wanted in ("made on other, n = 24", "PGD on the other network", "100.0 %"):
        assert wanted in page
    shown = section.table([RunView(name="a", records=records)])
    assert shown is not None
    assert shown.row_count == 8
    assert section.html([RunView(name="none")]) == ""
    assert section.table([RunView(name="none")]) is None
    (row,) = section.answers([RunView(name="a", records=records)])
    assert row.cells[0].metric == "transfer_accuracy"

    # All there: nothing again. Another surrogate is another measurement, and stands
    # beside the first, before it or after it.
    assert measured(place, blind, done=every) == []
    same = lambda engine, stage, key, images, labels, **_: images
    monkeypatch.setattr(transfer.surrogate, "craft", same)
    (place / "third.py").write_text(OTHER.replace("other", "third"))
    both = tuple(f"{place / name}.py:create" for name in ("third", "other", "third"))
    again = measured(place, blind, done=every, surrogate=both)
    assert len(again) == len(records)
    assert {r.extra["settings"]["surrogate"] for r in again} == {"third"}
    assert {r.value for r in again if r.metric.startswith("transfer")} == {1}
    for order in ([*records, *again], [*again, *records]):
        seen = RunView(name="a", records=order)
        assert {r.extra["settings"]["surrogate"] for r in seen.of(transfer.JOB)} == {
            "other",
            "third",
        }
        page = section.html([seen, RunView(name="b", records=again)])
        assert page.count("made on other, n = 24") == 1
        assert page.count("made on third, n = 24") == 1
        assert len(section.answers([seen])) == 2

    # Called alike, they are told apart by their weights.
    alike = [dataclasses.replace(r, split=f"linf/0.12/other-{0:06}") for r in records]
    page = section.html([RunView(name="a", records=[*records, *alike])])
    for wanted in (f"made on other ({digest}), n", "made on other (000000), n"):
        assert wanted in page


def test_surrogates_that_do_not_fit(place, tmp_path, monkeypatch):
    images, labels = np.zeros((2, 8, 8, 3), np.float32), np.zeros(2, np.int32)
    own = network(place)
    monkeypatch.setattr(classifier_lib, "from_run", lambda root: found)
    for changes, message in (
        ({"class_names": ("a", "b")}, "tells 2 classes apart, 'a' first"),
        ({"config": toy.config(place, data__image_size=12)}, "images of 12 pixels"),
        ({"differentiable": False}, "has no gradient to follow"),
    ):
        found = dataclasses.replace(own, **changes)
        with pytest.raises(ConfigError, match=f"surrogate is .*{message}"):
            transfer.opened(str(tmp_path), own, images, labels)
    found = own
    opened = transfer.opened(str(tmp_path), own, images, labels)
    assert opened == dataclasses.replace(own, name=tmp_path.name)
