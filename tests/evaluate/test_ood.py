"""Detection of unknowns as an evaluation: sets, scores, means, going on, the page."""

import dataclasses
from functools import partial

import jax
import numpy as np
import pytest
from PIL import Image

from apr_jax import config as config_lib
from apr_jax import data, metrics, models, parallel
from apr_jax import network as network_lib
from apr_jax import ood as ood_lib
from apr_jax.data import samples
from apr_jax.errors import ConfigError, DataError
from apr_jax.evaluate import classifier as classifier_lib
from apr_jax.evaluate import ood, ood_records, ood_sets
from apr_jax.evaluate.context import Context
from apr_jax.pixels import to_pixels
from apr_jax.report.run_view import RunView
from apr_jax.report.sections import ood as section
from apr_jax.report.sections import ood_cells
from apr_jax.runs import records as records_lib
from tests import toy

# CSI's own is for networks that were trained by it.
POSSIBLE = [name for name in ood_lib.SCORES if name != "csi"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The toy's own data, and out sets of all kinds beside them."""
    folder = tmp_path_factory.mktemp("toy")
    toy.write_arrays(folder)
    rng = np.random.default_rng(2)
    # Like the toy's own but noisier, so that no score tells all of them apart.
    noisy = rng.integers(0, 83, (40, 8, 8, 3)) + 45 * rng.integers(0, 4, (40, 1, 1, 1))
    np.savez(folder / "dark.npz", images=noisy.astype(np.uint8))
    np.save(folder / "grey.npy", rng.random((30, 6, 6)).astype(np.float32))
    for n in range(5):
        pixels = rng.integers(0, 256, (12 + n, 10, 3), np.uint8)
        (folder / "photos" / "deep").mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / "photos" / "deep" / f"{n}.png")
    return folder


@pytest.fixture(scope="module")
def network(folder):
    """A network with random weights."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models.MODELS, "tiny", toy.TinyNet)
        config = toy.config(folder)
        model = network_lib.make_model(config, num_classes=toy.CLASSES)
        init = jax.jit(partial(model.init, train=False))
        variables = init(jax.random.key(1), np.zeros((1, 8, 8, 3), np.float32))
        variables = jax.tree.map(lambda x: 3 * np.asarray(x), variables)
        return classifier_lib.make(config, variables, "abcd", step=7)


def run(network, folder, devices=1, done=(), scratch=None, quiet=True, **settings):
    wanted = {
        "out": (f"dark=arrays:{folder}/dark.npz", f"photos=folder:{folder}/photos"),
        "near": ("photos",),
        "fit_examples": 60,
        "knn_k": 3,
        "odin_temperature": 10.0,
        **settings,
    }
    return list(
        ood.measure(
            network,
            config_lib.Ood(**wanted),
            Context(
                parallel.make_layout(devices), done=done, scratch=scratch, quiet=quiet
            ),
        )
    )


@pytest.fixture(scope="module")
def records(network, folder):
    return run(network, folder)


def by_name(records):
    return {(r.split, r.metric): r for r in records}


def outputs(network, images):
    found = jax.jit(network.predict)(network.variables, images)
    return tuple(np.asarray(part) for part in found)


def test_every_set_score_and_metric_has_a_record(records):
    found = by_name(records)
    assert len(found) == len(records)
    names = {f"{s}.{m}" for s in POSSIBLE for m in ood_records.METRICS}
    for split in ("dark", "photos", "near", "far", "all"):
        assert {metric for where, metric in found if where == split} == names
    assert found["dark", "msp.auroc"].n == 90
    assert found["photos", "msp.auroc"].extra["group"] == "near"
    assert found["all", "knn.auroc"].value == pytest.approx(
        (found["dark", "knn.auroc"].value + found["photos", "knn.auroc"].value) / 2
    )
    for record in records:
        assert 0 <= record.value <= 1
        if record.low is not None:
            assert record.low <= record.value <= record.high


def test_values_are_those_of_the_scores_by_hand(network, folder, records):
    found = by_name(records)
    own = data.load(network.config.data)
    test = own.splits["test"]
    inside, features = outputs(network, test.images)
    dark = np.load(folder / "dark.npz")["images"]
    outside, dark_features = outputs(network, dark)
    energy = jax.jit(ood_lib.SCORES["energy"])
    wanted = metrics.ood_detection(energy(inside), energy(outside))
    for metric, value in wanted.items():
        assert found["dark", f"energy.{metric}"].value == pytest.approx(value, abs=1e-9)
    right = np.argmax(inside, 1) == test.labels
    rate = metrics.oscr(
        np.max(inside, 1), right, np.max(outside, 1), convention="authors"
    )
    assert found["dark", "authors.oscr"].value == pytest.approx(rate, abs=1e-9)

    logits_fn = lambda x: network.predict(network.variables, x)[0]
    odin = jax.jit(lambda x: ood_lib.odin(logits_fn, to_pixels(x), temperature=10.0))
    wanted = metrics.ood_detection(odin(test.images), odin(dark))["auroc"]
    assert found["dark", "odin.auroc"].value == pytest.approx(wanted, abs=2e-3)

    train = own.splits["train"]
    rows = samples.subset(96, 60, network.config.seed)
    logits, train_features = outputs(network, train.images[rows])
    head = network.variables["params"]["Dense_0"]
    fitted = ood_lib.fit(
        train_features,
        logits,
        train.labels[rows],
        weight=head["kernel"],
        bias=head["bias"],
    )
    for name in ("vim", "react", "mahalanobis"):
        scores = [
            jax.jit(ood_lib.SCORES[name])(*pair, fitted)
            for pair in ((inside, features), (outside, dark_features))
        ]
        wanted = metrics.ood_detection(*scores)["auroc"]
        assert 0.01 < wanted < 0.99  # or much could be wrong unseen
        assert found["dark", f"{name}.auroc"].value == pytest.approx(wanted, abs=2e-3)


def test_devices_and_batches_do_not_matter(network, folder, records):
    settings = dataclasses.replace(network.config.eval, batch_size=12)
    config = dataclasses.replace(network.config, eval=settings)
    other = dataclasses.replace(network, config=config)
    again = by_name(run(other, folder, devices=2))
    for key, record in by_name(records).items():
        assert again[key].value == pytest.approx(record.value, abs=5e-3), key


def test_what_is_done_is_not_done_again(
    network, folder, records, tmp_path, monkeypatch
):
    def explode(*_, **__):
        raise AssertionError("collected again")

    part = [r for r in records if r.split == "dark"]
    rest = run(network, folder, done=part, scratch=tmp_path)
    assert {r.split for r in rest} == {"photos", "near", "far", "all"}
    kept = list((tmp_path / "ood").glob("*.npz"))
    assert len(kept) == 2  # the test split and the training images

    calls = []
    make_collect = classifier_lib.make_collect

    def counting(*made):
        def run(*args, **kwargs):
            calls.append(kwargs["what"])
            return make_collect(*made)(*args, **kwargs)

        return run

    monkeypatch.setattr(classifier_lib, "make_collect", counting)
    again = by_name(run(network, folder, scratch=tmp_path))
    assert calls == ["dark", "photos"]
    for record in rest:
        value = again[record.split, record.metric].value
        assert value == pytest.approx(record.value, abs=1e-9)

    monkeypatch.setattr(classifier_lib, "make_collect", explode)
    assert run(network, folder, done=records) == []
    moved = by_name(run(network, folder, done=records, near=("dark",)))
    assert {split for split, _ in moved} == {"dark", "photos", "near", "far", "all"}
    assert moved["dark", "msp.auroc"].extra["group"] == "near"
    before = by_name(records)["far", "msp.auroc"].value
    assert moved["near", "msp.auroc"].value == before
    with pytest.raises(AssertionError, match="collected again"):  # other settings
        run(network, folder, done=records, examples=20)


def test_vims_subspace_as_set(network, folder):
    found = [
        by_name(run(network, folder, scores=("vim",), vim_dims=dims)) for dims in (0, 6)
    ]
    areas = [rows["dark", "vim.auroc"].value for rows in found]
    assert areas[0] != areas[1]
    knobs = [rows["dark", "vim.auroc"].extra["settings"]["knobs"] for rows in found]
    assert "vim_dims" not in knobs[0]  # as in records from before it could be set
    assert knobs[1]["vim_dims"] == 6


def test_a_part_of_each_set(network, folder):
    found = by_name(run(network, folder, examples=20, scores=("max_logit",), near=()))
    assert found["dark", "max_logit.auroc"].n == 40
    assert found["photos", "max_logit.auroc"].n == 25
    assert not [key for key in found if key[0] in ("near", "far")]


def test_grey_images_of_another_size(network, folder, capsys):
    spec = (f"grey=arrays:{folder}/grey.npy",)
    settings = {"out": spec, "near": (), "scores": ("energy",)}
    found = run(network, folder, **settings, quiet=False)
    said = "grey, repeated to three channels; 6 x 6, resized to 8 x 8"
    assert said in capsys.readouterr().err
    assert found[0].extra["note"] == said

    for fit, corner in (("pad", 0), ("resize", None)):
        opened = ood_sets.open_set(
            "grey", "arrays", f"{folder}/grey.npy", network.config.data, fit=fit
        )
        (batch,) = opened.batches(30)
        grey = np.rint(np.load(folder / "grey.npy") * 255)
        assert np.all(batch.image[..., 0] == batch.image[..., 2])
        if corner == 0:
            assert batch.image[:, 0].max() == 0
            np.testing.assert_array_equal(batch.image[:, 1:7, 1:7, 0], grey)
    with pytest.raises(DataError, match="6 x 6 and the classifier takes 8 x 8"):
        run(network, folder, **settings, fit="refuse")


@pytest.mark.parametrize("source", ["tfds", "parquet"])
@pytest.mark.parametrize("fit", ["pad", "refuse"])
def test_sets_that_are_decoded_whole_are_resized_and_nothing_else(
    network, folder, source, fit
):
    with pytest.raises(DataError, match=f"fit is '{fit}', but images of a {source} se"):
        ood_sets.open_set("x", source, str(folder), network.config.data, fit=fit)


def test_a_function_has_no_features_of_its_own(network, folder, capsys):
    weight = jax.random.normal(jax.random.key(3), (192, 4))
    function = classifier_lib.from_function(
        lambda x: (x - 0.5).reshape(len(x), -1) @ weight,
        network.config,
        "abcd",
        name="linear",
    )
    found = by_name(run(function, folder))
    scores = {metric.partition(".")[0] for _, metric in found}
    assert scores == {"msp", "max_logit", "energy", "entropy", "gen", "odin", "authors"}
    assert "the classifier gives no features or weights" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="scores can't be computed: knn"):
        run(function, folder, scores=("knn",))


def test_scores_from_elsewhere(network, rng, tmp_path):
    inside, far, close = (rng.normal(m, 1, n) for m, n in ((2, 50), (0, 30), (1, 20)))
    path = tmp_path / "mine.npz"
    arrays = {"id": inside, "far_set": far, "close_set": close, "correct": inside > 1}
    np.savez(path, **arrays)
    settings = {"scores_file": str(path), "near": ("close_set",), "out": ()}
    given = lambda **more: run(network, tmp_path, **settings, **more)
    made = given()
    found = by_name(made)
    assert found["close_set", "mine.auroc"].value == pytest.approx(
        metrics.ood_detection(inside, close)["auroc"]
    )
    assert found["far_set", "mine.oscr"].value == pytest.approx(
        metrics.oscr(inside, inside > 1, far)
    )
    assert found["near", "mine.auroc"].value == found["close_set", "mine.auroc"].value
    assert given(done=made) == []

    np.savez(path, **{"a/id": inside, "a/x": far, "b/id": -inside, "b/x": -far})
    settings["near"] = ()
    found = by_name(given())
    assert found["x", "a.auroc"].value == pytest.approx(1 - found["x", "b.auroc"].value)
    for wrong, message in (
        ({"x": far}, "has no 'id' or 'SCORE/id'; it has x"),
        ({"id": inside, "b/x": far}, "has 'b/x', but no scores of the same kind"),
        ({"id": inside, "x": far[:0]}, r"'x' is \[0\]; it must be \[N\]"),
        ({"id": inside, "x": far, "correct": far > 0}, "differ in length"),
    ):
        np.savez(path, **wrong)
        with pytest.raises(ConfigError, match=message):
            given()
    np.savez(path, id=inside, x=np.full(3, np.nan))
    with pytest.raises(DataError, match="score 'mine' can't be measured on 'x'"):
        given()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"out": ()}, "nothing to measure: give --out name=source:where"),
        ({"out": ("svhn",)}, "out is 'svhn'; write name=source:where"),
        ({"out": ("a=zip:b",)}, "'a' has the source 'zip'; choose from tfds, folder"),
        ({"out": ("a=folder:x",) * 2}, "out has 'a' twice"),
        ({"out": ("near=folder:x",), "near": ()}, "is the name of a mean"),
        ({"near": ("dork",)}, "near names 'dork', which is no out set; there are dark"),
        ({"scores": ("mps",)}, "scores has 'mps'; choose from 'msp', 'max_logit'"),
        ({"examples": -1}, "examples is -1; it must be at least 0"),
        ({"fit": "stretch"}, "fit is 'stretch'; choose from 'resize', 'pad', 'refuse'"),
        ({"ash_prune": 1.0}, "ash_prune is 1.0; it must be from"),
        ({"scores_file": "gone.npz"}, "scores_file gone.npz: .*No such file"),
    ],
)
def test_bad_settings_are_refused(network, folder, change, message):
    with pytest.raises(ConfigError, match=message):
        run(network, folder, **change)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda f: None, "'x.npy' is neither a file nor a folder with one of test.npz"),
        (lambda f: np.save(f, np.zeros((0, 8, 8, 3), np.uint8)), "'x' .* is empty"),
        (
            lambda f: np.save(f, np.zeros((4, 3, 8, 8), np.uint8)),
            r"the shape \[4, 3, 8, 8\].*channels come last",
        ),
        (
            lambda f: np.save(f, np.full((4, 8, 8, 3), 7.0)),
            "from 7 to 7; floats must",
        ),
        (lambda f: f.write_bytes(b"no"), "can't read"),
    ],
)
def test_bad_sets_are_refused_by_name(network, tmp_path, monkeypatch, make, message):
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "x.npy")
    with pytest.raises(DataError, match=message) as error:
        run(network, tmp_path, out=("x=arrays:x.npy",), near=(), scores=("msp",))
    assert "out set 'x'" in str(error.value)


def test_empty_and_missing_folders(network, tmp_path):
    for where, message in (
        (tmp_path, "no images in"),
        (tmp_path / "x", "no folder"),
    ):
        with pytest.raises(DataError, match=f"out set 'f': .*{message}"):
            run(network, tmp_path, out=(f"f=folder:{where}",), near=())


def test_records_survive_the_file_and_are_small(records, tmp_path):
    records_lib.append(tmp_path / "results.jsonl", records)
    assert records_lib.read(tmp_path / "results.jsonl") == records
    lines = (tmp_path / "results.jsonl").read_text().splitlines()
    assert max(map(len, lines)) < 4000


def test_the_section(records):
    other = [
        dataclasses.replace(r, value=r.value / 2, low=None, high=None) for r in records
    ]
    runs = [RunView(name="one & only", records=records), RunView(name="none")]
    page = section.html(runs)
    auroc = by_name(records)["dark", "knn.auroc"].value
    for wanted in ("one &amp; only", "Nearest neighbours", f"{100 * auroc:.1f}", "ROC"):
        assert wanted in page
    assert "Table 2" not in page  # the toy isn't CIFAR-10
    assert section.html([RunView(name="none")]) == ""
    assert section.table([RunView(name="none")]) is None
    runs[1] = RunView(
        name="two",
        records=[
            dataclasses.replace(
                r, data="cifar10", split=r.split.replace("dark", "svhn")
            )
            for r in other
        ],
    )
    assert "88.6" in section.html(runs)
    assert section.table(runs).row_count == 2 * (1 + len(POSSIBLE))


def test_the_section_shows_what_was_measured_together(network, folder):
    quick = {"scores": ("msp",), "fit_examples": 0}
    both = run(network, folder, **quick)
    dark = (f"dark=arrays:{folder}/dark.npz",)
    other = run(network, folder, **quick, out=dark, near=(), done=both)
    columns = lambda records: {
        split for split, _ in ood_cells.of_run(RunView(name="a", records=records))
    }
    assert columns(both) == {"near", "far", "all", "dark", "photos"}
    assert columns([*both, *other]) == {"all", "dark"}
    # Measuring both once more shows both once more, though nothing is computed.
    third = run(network, folder, **quick, done=[*both, *other])
    assert third
    assert columns([*both, *other, *third]) == {"near", "far", "all", "dark", "photos"}
    # A set that was measured anew, but not yet its mean: the old mean isn't shown.
    anew = [
        dataclasses.replace(r, value=r.value / 2) for r in both if r.split == "dark"
    ]
    assert columns([*both, *anew]) == {"near", "dark", "photos"}
