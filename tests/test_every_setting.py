"""Every setting changes what it says: a walk over all of them.

``TABLE`` has a line for each leaf of the configuration: another value, what the
configuration must have for it to matter, and a probe, whose finding must change; or the
test that sees its effect. A setting without a line fails. No probe trains.
"""

import ast
import functools
import hashlib
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from apr_jax import augment, ood, parallel, settings
from apr_jax import config as config_lib
from apr_jax import network as network_lib
from apr_jax.corruptions import frost_files
from apr_jax.evaluate import adversarial, corruption, corruption_sources, ood_scores
from apr_jax.evaluate import classifier as classifier_lib
from apr_jax.evaluate import fourier as fourier_lib
from apr_jax.evaluate.context import Context
from apr_jax.train import averaging, contrastive, optim
from apr_jax.train import plan as plan_lib
from apr_jax.train import step as step_lib
from apr_jax.train.state import state_of
from tests import toy

ROOT = pathlib.Path(__file__).resolve().parents[1]
TOTAL = 24
LEAVES = list(settings.leaves(config_lib.default()))
OF_SHIFT = "tests/evaluate/test_shift.py::test_"
OF_SETS = "tests/evaluate/test_ood.py::test_"


@pytest.fixture(autouse=True)
def _photographs(monkeypatch):
    def load(folder=None):
        rng = np.random.default_rng(len(folder or ""))
        return [rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)] * 5

    monkeypatch.setattr(frost_files, "load", load)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy")
    toy.write_arrays(folder)
    rng = np.random.default_rng(0)
    np.save(folder / "labels.npy", np.tile(np.load(folder / "test.npz")["labels"], 5))
    images = rng.integers(0, 256, (250, 8, 8, 3), dtype=np.uint8)
    np.save(folder / "gaussian_noise.npy", images)
    return folder


def digest(*arrays):
    found = hashlib.sha256()
    for array in arrays:
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


# --- Probes --------------------------------------------------------------------------


def step(config, **_):
    """The program of a training step on two devices, its constants, and its state."""
    sync = parallel.AXIS if config.train.sync_batch_norm else None
    model = network_lib.make_model(config, num_classes=4, sync_axis=sync)
    rate = contrastive.schedule(config, 6.0, TOTAL)
    state = jax.eval_shape(lambda: state_of(config, model))
    made = step_lib.make_train_step(
        model,
        optim.make_optimizer(config.optim, rate),
        config,
        average=averaging.make_update(config, TOTAL),
        axis_name=parallel.AXIS,
    )
    size = config.data.image_size
    shape = lambda *sides, dtype: jax.ShapeDtypeStruct(sides, dtype)
    program = jax.make_jaxpr(made, axis_env=[(parallel.AXIS, 2)])(
        state,
        shape(8, size, size, 3, dtype=jnp.uint8),
        shape(8, dtype=jnp.int32),
        shape(8, dtype=jnp.int32),
        jax.eval_shape(lambda: jax.random.key(0)),
    )
    constants = [np.asarray(c) for c in program.consts if not isinstance(c, jax.Array)]
    constants += [
        np.asarray(c)
        for c in program.consts
        if isinstance(c, jax.Array) and not jnp.issubdtype(c.dtype, jax.dtypes.prng_key)
    ]
    return hashlib.sha256(str(program).encode()).hexdigest(), digest(*constants)


def rate(config, **_):
    """The learning rate of each step."""
    found = contrastive.schedule(config, 6.0, TOTAL)
    return np.round([float(found(s)) for s in range(TOTAL + 1)], 7).tolist()


def start(config, **_):
    """The state that a run begins with."""
    model = network_lib.make_model(config, num_classes=4)
    leaves = jax.tree.leaves(state_of(config, model).params)
    return digest(*map(np.asarray, leaves))


def plan(config, *, tmp_path, **_):
    """A run's plan: data, layout, sizes."""
    found = plan_lib.plan(config, tmp_path / "run")
    splits = {} if found.resident is None else found.resident.splits
    return (
        found.layout.count,
        found.total_steps,
        found.steps_per_call,
        found.train_size,
        found.rows is None,
        found.mix.extra,
        {name: digest(split.images) for name, split in splits.items()},
    )


def shade(images):
    level = images.mean((1, 2, 3))[:, None]
    return -jnp.abs(level - jnp.arange(toy.CLASSES)[None] / 4)


def network(config):
    names = [str(i) for i in range(toy.CLASSES)]
    return classifier_lib.from_function(shade, config, names, name="shade")


def corrupted(config, **_):
    """The first images under a corruption, and what is measured."""
    chosen = config.eval.corruption
    context = Context(parallel.make_layout(1), quiet=True)
    names = corruption.names_of(chosen, config.data)
    found = corruption_sources.open_source(chosen, names, network(config), context)
    split = f"{names[0]}/{chosen.severities[-1]}"
    images = next(iter(found.batches(split))).image
    return names, chosen.severities, found.size(split), digest(images)


def attacked(config, *, monkeypatch, **_):
    """The attacks, their images, keys and batches, without running any."""
    seen = []

    def in_turn(engine, stages, key, images, labels, *, norm, eps, **_):
        drawn = jax.random.key_data(key).tolist()
        seen.append((engine.chunk, stages, drawn, len(images), norm, eps))
        raise StopIteration

    monkeypatch.setattr(adversarial.rounds, "attack_in_turn", in_turn)
    monkeypatch.setattr(adversarial.sequence, "examine", lambda *_, **__: [])
    context = Context(parallel.make_layout(1), quiet=True)
    measured = adversarial.measure(network(config), config.eval.adversarial, context)
    with pytest.raises(RuntimeError):  # a StopIteration within a generator
        list(measured)
    threats = adversarial.check(config.eval.adversarial, config.data)
    return seen, [(threat.norm, threat.eps) for threat in threats]


def probed(config, *, monkeypatch, **_):
    """What is asked of the probe of frequencies."""
    seen = []

    def make(part):
        def run(probe, job):
            seen.append((part, sorted(job.settings.items(), key=str), probe.size))
            return {"number": fourier_lib.metrics.wilson(1, 2)}, {}

        return run

    makers = {part: make(part) for part in fourier_lib.PARTS}
    monkeypatch.setattr(fourier_lib, "_MAKERS", makers)
    context = Context(parallel.make_layout(1), quiet=True)
    list(fourier_lib.measure(network(config), config.eval.fourier, context))
    return str(seen)


def scored(config, **_):
    """Scores of made-up features that depend on the knobs."""
    rng = np.random.default_rng(0)
    draw = lambda *shape: rng.normal(size=shape).astype(np.float32)
    features, weight, bias = np.abs(draw(120, 10)), draw(10, 4), draw(4)
    chosen = config.eval.ood
    fitted = ood.fit(
        features,
        features @ weight + bias,
        np.arange(120) % 4,
        weight=weight,
        bias=bias,
        react_quantile=chosen.react_quantile,
        dice_sparsity=chosen.dice_sparsity,
    )
    test = np.abs(draw(7, 10))
    zeros = np.zeros(7, np.float32)
    collected = ood_scores.Collected(
        test @ weight + bias, test, zeros.astype(int), odin=zeros, csi=zeros
    )
    names = ("react", "dice", "ash", "scale", "knn", "nnguide", "gen", "fdbd")
    # One by one: a knob compiles its own score anew, and no other.
    of = lambda name: ood_scores.scores_of((name,), collected, fitted, chosen)[name]
    return digest(*(np.asarray(of(name)) for name in names))


def odin(config, **_):
    """ODIN's score of a few images."""
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
    wrapped = ood_scores._with_scores(network(config), config.eval.ood, ("odin",))
    found = jax.jit(wrapped.predict)(wrapped.variables, images)
    return digest(*(np.asarray(part) for part in jax.tree.leaves(found)))


# --- The table -----------------------------------------------------------------------

SGD = {"augment__method": "standard"}
PLAIN = {"augment__method": "standard"}
SINGLE = {"augment__method": "apr_s"}
PAIR = {"augment__method": "apr_p"}
PGD = {"augment__method": "standard", "adversary__attack": "pgd"}
ADAMW = {"augment__method": "standard", "optim__name": "adamw"}
CYCLIC = {"optim__schedule": "cyclic"}
AVERAGE = {"augment__method": "standard", "optim__average": "ema"}
CSI = {"augment__method": "supclr"}
NOISY = {"augment__method": "noisymix"}
MOLLIFY = {"augment__method": "mollify"}
NOISE = {"eval__corruption__corruptions": ("gaussian_noise",)}
FOLDER = {"eval__corruption__source": "folder"}
ATTACK = {"eval__adversarial__examples": 20}
FREQUENCY = {"eval__fourier__examples": 20, "augment__method": "standard"}

# Field -> (another value, what it needs, probe), or the test that sees it.
TABLE = {
    "name": "tests/train/test_seeds.py::test_what_does_not_fit_is_refused",
    "seed": (1, PLAIN, start),
    "data.source": "tests/data/test_data.py::*",
    "data.name": "tests/data/test_tf.py::test_newest_version_and_configurations",
    "data.data_dir": "tests/data/test_tf.py::test_tfds_set_in_memory",
    "data.cache_dir": "tests/data/test_tf.py::test_second_start_imports_no_tensorflow",
    "data.train_split": ("test", {"train__batch_size": 8}, plan),
    "data.test_split": ("train", {}, plan),
    "data.shifted_splits": (("other",), {}, plan),
    "data.image_size": (12, {}, plan),
    "data.eval_resize": (
        "tests/data/test_tf.py::test_evaluation_is_resize_and_centre_crop"
    ),
    "data.extra_dirs": "tests/data/test_extra.py::*",
    "data.extra_ratio": "tests/data/test_extra.py::*",
    "data.streaming": "tests/train/test_watch_streamed.py::*",
    "data.max_broken": (
        "tests/data/test_tf.py::test_training_goes_on_past_broken_files"
    ),
    "data.shuffle_buffer": "tests/data/test_tf.py::test_the_buffer_shuffles_so_far",
    "data.workers": (
        "tests/data/test_array_records.py::test_processes_that_decode_change_no_bit"
    ),
    "data.mean": ((0.1, 0.2, 0.3), PLAIN, step),
    "data.std": ((0.1, 0.2, 0.3), PLAIN, step),
    "augment.method": ("apr_s", PLAIN, step),
    "augment.crop_pad": (2, PLAIN, step),
    "augment.crop_fill": (7, PLAIN, step),
    "augment.crop_edge": ("reflect", PLAIN, step),
    "augment.flip": (False, PLAIN, step),
    "augment.flip_by": ("epoch", PLAIN, step),
    "augment.label_smoothing": (0.1, PLAIN, step),
    "augment.single_prob": (0.25, SINGLE, step),
    "augment.single_level": (5.0, SINGLE, step),
    "augment.single_ops": ("all", SINGLE, step),
    "augment.single_overflow": ("wrap", SINGLE, step),
    "augment.pair_prob": (0.25, PAIR, step),
    "augment.pair_per": ("image", PAIR, step),
    "augment.pair_clip": (True, PAIR, step),
    "augment.pair_donors": ("device", PAIR, step),
    "augment.pair_consistency": (2.0, PAIR, step),
    "augment.axes": ((-3, -2), PAIR, step),
    "augment.heads_weight": (0.25, {"augment__method": "apr_p_heads"}, step),
    "augment.jsd_weight": (3.0, {"augment__method": "augmix"}, step),
    "augment.mix_alpha": (0.5, {"augment__method": "mixup"}, step),
    "augment.fact_alpha": (0.5, {"augment__method": "amplitude_mix"}, step),
    "augment.mix_prob": (0.5, {"augment__method": "cutmix"}, step),
    "augment.mix_depth": (1, NOISY, step),
    "augment.noise_add": (0.1, NOISY, step),
    "augment.noise_multiply": (0.1, NOISY, step),
    "augment.noise_sparse": (0.1, NOISY, step),
    "augment.mollify_beta": (4.0, MOLLIFY, step),
    "augment.mollify_noise_power": (2.0, MOLLIFY, step),
    "augment.mollify_blur_power": (2.0, MOLLIFY, step),
    "augment.cutout_size": (3, {"augment__method": "cutout"}, step),
    "augment.strengths": ("imagenet", {"augment__method": "augmix"}, step),
    "adversary.attack": ("fgsm", PGD, step),
    "adversary.eps": (0.01, PGD, step),
    "adversary.step_size": (0.01, PGD, step),
    "adversary.steps": (3, PGD, step),
    "adversary.held_out": (5, PGD, plan),
    "adversary.stop_drop": "tests/train/test_overfitting.py::*",
    "contrast.temperature": (0.1, CSI, step),
    "contrast.width": (9, CSI, step),
    "contrast.crop_area": (0.5, CSI, step),
    "contrast.linear_share": (0.5, CSI, rate),
    "contrast.linear_rate": (0.03, CSI, rate),
    "model.name": ("wrn_10_1", PLAIN, step),
    "model.dtype": ("bfloat16", PLAIN, step),
    "model.dropout": (0.3, {"model__name": "wrn_10_1", **PLAIN}, step),
    "model.norm": ("none", {"model__name": "wrn_10_1", **PLAIN}, step),
    "optim.name": ("adamw", SGD, step),
    "optim.learning_rate": (0.3, SGD, rate),
    "optim.momentum": (0.5, SGD, step),
    "optim.beta2": (0.9, ADAMW, step),
    "optim.nesterov": (False, SGD, step),
    "optim.clip": (1.0, SGD, step),
    "optim.accumulate": (2, SGD, step),
    "optim.weight_decay": (0.01, SGD, step),
    "optim.decay_on": ("weights", SGD, step),
    "optim.decay_per": ("step", SGD, step),
    "optim.norm_bias_rate": (8.0, SGD, step),
    "optim.epochs": (5.0, SGD, plan),
    "optim.schedule": ("constant", SGD, rate),
    "optim.milestones": ((1.0, 2.0), SGD, rate),
    "optim.gamma": (0.5, SGD, rate),
    "optim.warmup_epochs": (1.0, SGD, rate),
    "optim.peak": (0.25, CYCLIC, rate),
    "optim.start": (0.25, CYCLIC, rate),
    "optim.end": (0.25, CYCLIC, rate),
    "optim.average": ("lookahead", AVERAGE, step),
    "optim.average_decay": (0.5, AVERAGE, step),
    "optim.average_every": (3, AVERAGE, step),
    "optim.average_power": (2.0, AVERAGE, step),
    "train.batch_size": (32, {}, plan),
    "train.init_from": "tests/train/test_init_from.py::*",
    "train.sync_batch_norm": (False, PLAIN, step),
    "train.devices": (2, {}, plan),
    "train.steps_per_call": (3, {}, plan),
    "train.mapping": "tests/train/test_mapping.py::*",
    "train.deterministic": "tests/test_tuning.py::test_flags_of_a_deterministic_run",
    "train.log_every": "tests/train/test_loop.py::test_it_learns_and_says_so",
    "train.wandb": "tests/runs/test_wandb_run.py::*",
    "train.tensorboard": "tests/runs/test_curves.py::*",
    "train.watch": "tests/train/test_watch.py::*",
    "train.watch_examples": "tests/train/test_watch.py::*",
    "checkpoint.every_steps": (
        "tests/train/test_draws.py::test_states_are_saved_where_calls_pass_the_steps"
    ),
    "checkpoint.keep": "tests/runs/test_checkpoint.py::*",
    "eval.batch_size": "tests/evaluate/test_clean.py::test_every_example_once",
    "eval.parts": (
        "tests/evaluate/test_card.py::"
        "test_a_run_ends_with_the_parts_that_its_configuration_lists"
    ),
    "eval.save_predictions": "tests/evaluate/test_predictions.py::*",
    "eval.corruption.corruptions": (("fog",), NOISE, corrupted),
    "eval.corruption.sets": (("extra",), {}, corrupted),
    "eval.corruption.severities": ((1, 3), NOISE, corrupted),
    "eval.corruption.source": ("folder", NOISE, corrupted),
    "eval.corruption.dir": "tests/evaluate/test_corruption.py::test_an_npy_folder",
    "eval.corruption.examples": (7, NOISE, corrupted),
    "eval.corruption.frost_dir": (
        "/elsewhere",
        {"eval__corruption__corruptions": ("frost",)},
        corrupted,
    ),
    "eval.corruption.seed": (1, NOISE, corrupted),
    "eval.corruption.stored_as": ("jpeg", NOISE, corrupted),
    "eval.corruption.jpeg": (
        "tests/evaluate/test_corruption.py::test_records_say_who_compressed"
    ),
    "eval.shift.shift": OF_SHIFT + "folders_and_arrays_give_the_same",
    "eval.shift.cue_conflict": OF_SHIFT + "shape_or_texture",
    "eval.shift.perturbations": (
        "tests/evaluate/test_perturbations.py::test_arrays_and_folders"
    ),
    "eval.shift.examples": OF_SHIFT + "some_images_of_another_size",
    "eval.shift.fit": OF_SHIFT + "some_images_of_another_size",
    "eval.shift.tfds_dir": OF_SHIFT + "a_set_of_tfds_is_looked_for_where_it_is_said",
    "eval.ood.out": OF_SETS + "every_set_score_and_metric_has_a_record",
    "eval.ood.protocol": "tests/evaluate/test_openood.py::*",
    "eval.ood.openood_dir": "tests/evaluate/test_openood.py::*",
    "eval.ood.near": OF_SETS + "every_set_score_and_metric_has_a_record",
    "eval.ood.scores": OF_SETS + "a_function_has_no_features_of_its_own",
    "eval.ood.examples": OF_SETS + "a_part_of_each_set",
    "eval.ood.fit_examples": OF_SETS + "a_part_of_each_set",
    "eval.ood.fit": OF_SETS + "grey_images_of_another_size",
    "eval.ood.tfds_dir": OF_SETS + "bad_sets_are_refused_by_name",
    "eval.ood.scores_file": OF_SETS + "scores_from_elsewhere",
    "eval.ood.odin_temperature": (1.0, {}, odin),
    "eval.ood.odin_epsilon": (0.1, {}, odin),
    "eval.ood.react_quantile": (0.3, {}, scored),
    "eval.ood.dice_sparsity": (0.3, {}, scored),
    "eval.ood.ash_prune": (0.3, {}, scored),
    "eval.ood.scale_prune": (0.3, {}, scored),
    "eval.ood.gen_gamma": (0.5, {}, scored),
    "eval.ood.gen_top": (2, {}, scored),
    "eval.ood.vim_dims": "tests/evaluate/test_ood.py::test_vims_subspace_as_set",
    "eval.ood.fdbd_over": ("norm", {}, scored),
    "eval.ood.knn_k": (3, {}, scored),
    "eval.ood.nnguide_k": (3, {}, scored),
    "eval.adversarial.attack": ("pgd", ATTACK, attacked),
    "eval.adversarial.linf": ((0.1, 0.2), ATTACK, attacked),
    "eval.adversarial.l2": ((0.5,), ATTACK, attacked),
    "eval.adversarial.l1": ((2.0,), ATTACK, attacked),
    "eval.adversarial.examples": (30, ATTACK, attacked),
    "eval.adversarial.steps": (5, ATTACK, attacked),
    "eval.adversarial.queries": (9, ATTACK, attacked),
    "eval.adversarial.batch": (4, ATTACK, attacked),
    "eval.adversarial.seed": (1, ATTACK, attacked),
    "eval.adversarial.masking": (
        "tests/evaluate/test_masking.py::test_records_page_and_a_second_call"
    ),
    "eval.adversarial.surrogate": (
        "tests/evaluate/test_transfer.py::test_records_name_both_and_the_page_shows_them"
    ),
    "eval.fourier.parts": (("bands",), FREQUENCY, probed),
    "eval.fourier.examples": (30, FREQUENCY, probed),
    "eval.fourier.norm": (2.0, FREQUENCY, probed),
    "eval.fourier.extent": (5, FREQUENCY, probed),
    "eval.fourier.radii": ((1.0,), FREQUENCY, probed),
}


def test_every_setting_has_a_line():
    assert [leaf.name for leaf in LEAVES] == list(TABLE)


# (probe, what it needs) -> what it found.
FOUND: dict[tuple[str, str], object] = {}
PROBED = {name: line for name, line in TABLE.items() if not isinstance(line, str)}


@pytest.mark.usefixtures("_tiny_model")
@pytest.mark.parametrize("name", PROBED)
def test_a_setting_changes_what_it_says(name, folder, tmp_path, monkeypatch):
    value, needs, probe = PROBED[name]
    needs = dict(needs)
    if name == "data.shifted_splits":
        np.savez(folder / "other.npz", **np.load(folder / "test.npz"))
    changes = {name.replace(".", "__"): value}
    if name == "eval.corruption.source":
        changes["eval__corruption__dir"] = str(folder)
    given = {"tmp_path": tmp_path, "monkeypatch": monkeypatch}
    place = probe.__name__, str(needs)
    if place not in FOUND:
        twice = [probe(toy.config(folder, **needs), **given) for _ in range(2)]
        assert twice[0] == twice[1], "the probe itself is not steady"
        FOUND[place] = twice[0]
    given["tmp_path"] = tmp_path / "other"
    assert probe(toy.config(folder, **(needs | changes)), **given) != FOUND[place]


@pytest.mark.parametrize("name", [n for n in PROBED if n.startswith("augment.")])
def test_a_method_names_the_fields_that_change_it(name, folder):
    _, needs, _ = PROBED[name]
    method = toy.config(folder, **dict(needs)).augment.method
    assert name in augment.get_method(method).fields
    assert (name in augment.get_method("standard").fields) == (method == "standard")


@functools.cache
def functions_in(file):
    """Names of the functions at the top of a file, and its text."""
    text = (ROOT / file).read_text()
    found = {n.name for n in ast.parse(text).body if isinstance(n, ast.FunctionDef)}
    return found, text


def test_effects_that_tests_see_have_these_tests():
    for name, place in TABLE.items():
        if isinstance(place, str):
            file, _, test = place.partition("::")
            there, text = functions_in(file)
            assert test == "*" or test in there, f"{name}: {place}"
            field = name.rpartition(".")[2]
            assert test != "*" or field in text, f"{file}: {field}"


@pytest.mark.parametrize("leaf", LEAVES, ids=lambda x: x.name)
def test_what_is_computed_decides_the_hash(leaf):
    """Where and how fast is not part of it, nor how a finished network is measured."""
    line = TABLE[leaf.name]
    other = leaf.value if isinstance(line, str) else line[0]
    if other == leaf.value:
        other = {
            bool: lambda v: not v,
            str: lambda v: next((c for c in leaf.about.choices if c != v), v + "x"),
            int: lambda v: v + 1,
            float: lambda v: v + 0.25,
        }.get(leaf.kind, lambda v: ("a/b",))(leaf.value)
    changed = settings.mapped(
        config_lib.default(), lambda x: other if x.name == leaf.name else x.value
    )
    same = config_lib.config_hash(changed) == config_lib.config_hash(
        config_lib.default()
    )
    assert same == (leaf.about.incidental or leaf.name.startswith("eval."))
    # Those that may change in a run that goes on.
    assert leaf.about.incidental == (leaf.name in INCIDENTAL)


INCIDENTAL = {
    "name",
    "data.data_dir",
    "data.cache_dir",
    "data.max_broken",
    "data.workers",
    "train.devices",
    "train.steps_per_call",
    "train.mapping",
    "train.deterministic",
    "train.log_every",
    "train.wandb",
    "train.tensorboard",
    "train.watch",
    "train.watch_examples",
    "checkpoint.every_steps",
    "checkpoint.keep",
}
