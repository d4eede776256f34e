"""OpenOOD's protocol: which images are known, how knobs are chosen, what is said."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics
from PIL import Image
from scipy import special

from apr_jax import config as config_lib
from apr_jax import models, ood, parallel
from apr_jax import network as network_lib
from apr_jax.errors import ConfigError, DataError
from apr_jax.evaluate import classifier as classifier_lib
from apr_jax.evaluate import ood as ood_job
from apr_jax.evaluate import ood_inside, ood_sets, openood, openood_sets
from apr_jax.evaluate.context import Context
from apr_jax.report.sections import ood as section
from apr_jax.report.sections import ood_cells
from tests import toy

# List -> how many images, how bright.
LISTS = {
    "test_cifar10": (20, 40),
    "val_cifar10": (14, 40),
    "val_tin": (16, 60),
    "test_cifar100": (15, 50),
    "test_mnist": (12, 90),
    "test_svhn": (11, 80),
    "test_texture": (10, 20),
    "test_cifar10c": (9, 45),
}
FAR = ("mnist", "svhn", "texture")
SCORES = ("msp", "react", "ash_b")
SETTINGS = {"protocol": "openood", "scores": SCORES, "fit_examples": 60}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Lists and images as OpenOOD's script leaves them; two sets aren't there."""
    root = tmp_path_factory.mktemp("openood")
    lists = root / "benchmark_imglist" / "cifar10"
    lists.mkdir(parents=True)
    rng = np.random.default_rng(5)
    for name, (count, level) in LISTS.items():
        folder = root / "images_classic" / name
        folder.mkdir(parents=True)
        known = "cifar10" in name.replace("cifar100", "")
        lines = []
        for i in range(count):
            label = i % toy.CLASSES
            shade = level * (label + 1 if known else rng.integers(1, 5)) / 2
            noise = rng.integers(0, 80, (8, 8, 3)) + shade
            Image.fromarray(noise.astype(np.uint8)).save(folder / f"{i:02}.png")
            lines.append(f"{name}/{i:02}.png {label if known else -1}\n")
        (lists / f"{name}.txt").write_text("".join(lines))
    return root


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy")
    toy.write_arrays(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models.MODELS, "tiny", toy.TinyNet)
        config = toy.config(folder, data__name="cifar10")
        model = network_lib.make_model(config, num_classes=toy.CLASSES)
        init = jax.jit(partial(model.init, train=False))
        variables = init(jax.random.key(1), np.zeros((1, 8, 8, 3), np.float32))
        variables = jax.tree.map(lambda x: 3 * np.asarray(x), variables)
        return classifier_lib.make(config, variables, "abcd", step=7)


def run(network, done=(), quiet=True, **settings):
    context = Context(parallel.make_layout(1), done=done, quiet=quiet)
    wanted = config_lib.Ood(**{**SETTINGS, **settings})
    return list(ood_job.measure(network, wanted, context))


@pytest.fixture(scope="module")
def records(network, place):
    return run(network, openood_dir=str(place))


@pytest.fixture(scope="module")
def answers(network, place):
    """Logits and features of each list, and of the training images of the fit."""
    predict = jax.jit(network.predict)

    def of(name):
        files = sorted((place / "images_classic" / name).glob("*.png"))
        images = np.stack([np.asarray(Image.open(file)) for file in files])
        return [np.asarray(x) for x in predict(network.variables, images)]

    return {name: of(name) for name in LISTS}


def by_name(records):
    return {(r.split, r.metric): r for r in records}


def theirs(inside, outside):
    """As ``compute_all_metrics`` of OpenOOD asks scikit-learn."""
    both = np.concatenate([inside, outside])
    unknown = np.repeat([0, 1], [len(inside), len(outside)])
    fpr, tpr, _ = sklearn.metrics.roc_curve(unknown, -both)
    found = {
        "fpr95_ood_positive": fpr[np.argmax(tpr >= 0.95)],
        "auroc": sklearn.metrics.auc(fpr, tpr),
    }
    for name, target, score in (
        ("aupr_in", 1 - unknown, both),
        ("aupr_out", unknown, -both),
    ):
        precision, recall, _ = sklearn.metrics.precision_recall_curve(target, score)
        found[name] = sklearn.metrics.auc(recall, precision)
    return found


def msp(answer):
    logits = np.float64(answer[0])
    return 1 / np.exp(logits - logits.max(1, keepdims=True)).sum(1)


def test_numbers_are_those_of_the_lists_by_scikit_learn(records, answers):
    found = by_name(records)
    inside = msp(answers["test_cifar10"])
    full = np.concatenate([inside, msp(answers["test_cifar10c"])])
    wanted = {}
    for name in ("cifar100", *FAR):
        outside = msp(answers[f"test_{name}"])
        wanted[name] = theirs(inside, outside)
        wanted[f"full_{name}"] = theirs(full, outside)
    for start in ("", "full_"):
        means = {"near": ["cifar100"], "far": FAR, "all": ["cifar100", *FAR]}
        for group, members in means.items():
            rows = [wanted[start + member] for member in members]
            wanted[start + group] = {m: np.mean([r[m] for r in rows]) for m in rows[0]}
    for split, numbers in wanted.items():
        for metric, value in numbers.items():
            got = found[split, f"msp.{metric}"].value
            assert got == pytest.approx(value, abs=1e-6), (split, metric)
    assert {split for split, _ in found} == set(wanted)
    assert found["cifar100", "msp.auroc"].extra["inside"] == 20
    assert found["full_svhn", "msp.auroc"].extra["inside"] == 29
    assert found["full_cifar100", "msp.auroc"].extra["group"] == "near"


def test_known_classes_are_right_by_the_lists_labels(records, answers):
    found = by_name(records)
    right = np.concatenate(
        [
            answers[name][0].argmax(1) == np.arange(LISTS[name][0]) % toy.CLASSES
            for name in ("test_cifar10", "test_cifar10c")
        ]
    )
    inside = np.concatenate([msp(answers[f"test_cifar10{c}"]) for c in ("", "c")])
    outside = msp(answers["test_mnist"])
    pairs = inside[:, None] - outside[None]
    rate = np.mean(right[:, None] * ((pairs > 0) + 0.5 * (pairs == 0)))
    assert found["full_mnist", "msp.oscr"].value == pytest.approx(rate, abs=1e-6)


def test_knobs_are_those_of_the_highest_auroc(records, network, answers):
    weight, bias = (
        np.asarray(network.variables["params"]["Dense_0"][k])
        for k in ("kernel", "bias")
    )

    def ash_b(name, prune):
        features = np.float64(answers[name][1])
        count = max(1, 8 - round(8 * prune))
        kept = np.argsort(np.argsort(-features, axis=1, kind="stable")) < count
        shared = np.where(kept, features.sum(1, keepdims=True) / count, 0)
        return special.logsumexp(shared @ weight + bias, axis=1)

    areas = []
    for prune in (0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95):
        areas.append(theirs(ash_b("val_cifar10", prune), ash_b("val_tin", prune)))
    areas = [area["auroc"] for area in areas]
    best = (0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)[int(np.argmax(areas))]
    assert max(areas) > min(areas)
    for record in records:
        if record.metric.startswith("ash_b") and "members" not in record.extra:
            assert record.extra["chosen"] == {"ash_prune": best}
        assert ("chosen" in record.extra) == (
            not record.metric.startswith("msp") and "members" not in record.extra
        )
    found = by_name(records)["svhn", "ash_b.auroc"].value
    want = theirs(ash_b("test_cifar10", best), ash_b("test_svhn", best))["auroc"]
    assert found == pytest.approx(want, abs=1e-6)


def test_knobs_are_tried_in_openoods_order():
    odin = openood.candidates("odin")
    assert odin[:5] == [
        {"odin_temperature": t, "odin_epsilon": e}
        for t, e in [
            (1, 0.0014),
            (10, 0.0014),
            (100, 0.0014),
            (1000, 0.0014),
            (1, 0.0028),
        ]
    ]
    assert len(odin) == 8
    gen = openood.candidates("gen", classes=100)
    assert gen[6:8] == [
        {"gen_gamma": 10, "gen_top": 10},
        {"gen_gamma": 0.01, "gen_top": 50},
    ]
    assert {c["gen_top"] for c in gen} == {10, 50, 100}
    assert {c["gen_top"] for c in openood.candidates("gen", classes=10)} == {10}
    assert len(openood.candidates("gen")) == 42
    assert openood.candidates("vim", features=512) == [{"vim_dims": 256}]
    assert openood.candidates("vim", features=256) == []
    assert [c["knn_k"] for c in openood.candidates("knn")] == [50, 100, 200, 500, 1000]
    tied = (np.array([1.0, 2.0]), np.array([0.0]))
    worse = (np.array([1.0, 2.0]), np.array([1.5]))
    assert openood.best([worse, tied, tied]) == 1


def test_vim_is_fitted_once_for_each_number_of_dimensions(network, place, monkeypatch):
    tried, real = [], ood_inside.virtual_logit

    def virtual_logit(*arrays):
        tried.append(arrays[-1])
        return real(*arrays)

    monkeypatch.setitem(openood.SWEEPS, "vim", {"vim_dims": (2, 5)})
    monkeypatch.setattr(ood_inside, "virtual_logit", virtual_logit)
    rows = by_name(run(network, openood_dir=str(place), scores=("vim",)))
    assert tried == [2, 5]  # of known and unknown images of two spectra
    (chosen,) = {rows[name, "vim.auroc"].extra["chosen"]["vim_dims"] for name in FAR}
    assert chosen in tried


def test_what_is_missing_is_said_and_the_rest_measured(network, place, capsys):
    run(network, openood_dir=str(place), scores=("msp",), quiet=False)
    said = capsys.readouterr().err
    for name, group in (("tin", "near"), ("places365", "far")):
        (line,) = [row for row in said.splitlines() if f"'s {name} ({group})" in row]
        assert f"test_{name}.txt can't be read" in line
        assert "get it by https://github.com/Jingkang50/OpenOOD" in line


def test_what_is_done_is_not_done_again(network, place, records, monkeypatch):
    def collect(*_, **__):
        raise AssertionError("it was measured again")

    monkeypatch.setattr(ood_job.openood.ood_scores.Collector, "out", collect)
    again = run(network, done=records, openood_dir=str(place))
    assert len(again) <= len(records)


def test_sets_of_tfds_and_of_the_user_take_part(network, tmp_path, monkeypatch, capsys):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "tin.npy", rng.integers(0, 256, (6, 8, 8, 3), dtype=np.uint8))
    real = ood_sets.open_set

    def open_set(name, source, where, *rest, **more):
        if source != "tfds":
            return real(name, source, where, *rest, **more)
        if where != "svhn_cropped":
            raise DataError("there is none")
        path = str(tmp_path / "tin.npy")
        return dataclasses.replace(
            real(name, "arrays", path, *rest, **more), source=f"tfds:{where}"
        )

    monkeypatch.setattr(openood_sets.ood_sets, "open_set", open_set)
    out = (f"tin=arrays:{tmp_path}/tin.npy",)
    found = by_name(run(network, out=out, scores=("msp", "ash_b"), quiet=False))
    assert {split for split, _ in found} == {"tin", "svhn", "near", "far", "all"}
    row = found["svhn", "ash_b.auroc"]
    assert row.extra["settings"]["source"] == "tfds:svhn_cropped"
    assert row.extra["inside"] == 45  # a tenth of 50 is kept for choosing
    assert "chosen" not in row.extra
    said = capsys.readouterr().err
    assert "val_tin (val) is missing" in said
    assert "TFDS's mnist is not prepared" in said
    assert "without OpenOOD's validation set knobs are the settings'" in said


def test_the_page_has_both_spectra_and_the_terminal_means(records):
    class View:
        name = "run"

        def of(self, job):
            return [r for r in records if r.job == job]

    table = section.table([View()])
    heads = [str(column.header) for column in table.columns]
    assert len(heads) == 7
    assert "Full spectrum: mean, near" in heads
    assert "the page has each set" in str(table.title)
    cells = ood_cells.of_run(View())
    columns = ood_cells.columns([cells])
    assert columns[:6] == ["near", "far", "all", "full_near", "full_far", "full_all"]
    assert columns[6:] == [
        *("cifar100", *FAR),
        *(f"full_{name}" for name in ("cifar100", *FAR)),
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"out": ("lsun=arrays:x.npy",)}, "out has 'lsun', which OpenOOD doesn't"),
        ({"out": ("cifar10c=folder:x",)}, "'cifar10c', whose labels only OpenOOD's"),
        ({"near": ("tin",)}, "near is .* leave it out"),
        ({"scores_file": "x.npz"}, "scores_file is 'x.npz'; with protocol"),
        ({"protocol": "closed"}, "protocol is 'closed'"),
    ],
)
def test_settings_that_do_not_go_together(network, changes, message):
    with pytest.raises(ConfigError, match=message):
        run(network, **changes)


def test_data_without_a_benchmark(network):
    other = dataclasses.replace(network.config.data, name="quickdraw")
    with pytest.raises(ConfigError, match=r"data.name is 'quickdraw'; OpenOOD has"):
        ood_job.check(config_lib.Ood(protocol="openood"), other)


def test_a_damaged_list(place, network, tmp_path):
    file = tmp_path / "list.txt"
    file.write_text("no_label.png\n")
    with pytest.raises(DataError, match="it must be a path and a label"):
        openood_sets.listed("x", file, place, config_lib.Ood(), network.config)
    file.write_text("gone.png -1\n")
    with pytest.raises(DataError, match=r"gone.png is missing"):
        openood_sets.listed("x", file, place, config_lib.Ood(), network.config)


@pytest.mark.slow
def test_odin_is_chosen_on_images(network, place, answers):
    rows = by_name(run(network, openood_dir=str(place), scores=("odin",)))
    chosen = rows["svhn", "odin.auroc"].extra["chosen"]
    predict = lambda x: network.predict(network.variables, x)[0]
    images = {}
    for name in ("val_cifar10", "val_tin"):
        files = sorted((place / "images_classic" / name).glob("*.png"))
        stacked = np.stack([np.asarray(Image.open(file)) for file in files])
        images[name] = jnp.asarray(stacked / 255, jnp.float32)
    areas = []
    for values in openood.candidates("odin"):
        knobs = {k.removeprefix("odin_"): v for k, v in values.items()}
        pair = [np.float64(ood.odin(predict, x, **knobs)) for x in images.values()]
        areas.append(theirs(*pair)["auroc"])
    assert chosen == openood.candidates("odin")[int(np.argmax(areas))]
