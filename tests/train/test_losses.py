"""Losses and views: equation 7, blended labels, like answers, the adversary."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from apr_jax import augment
from apr_jax import config as config_lib
from apr_jax import network as network_lib
from apr_jax.errors import ConfigError
from apr_jax.evaluate import classifier, ood_scores
from apr_jax.pixels import to_pixels
from apr_jax.spectral import recombine
from apr_jax.train import adversarial, loop, losses, plan, views
from tests import toy


@pytest.fixture
def settings(tmp_path):
    return toy.config(tmp_path).augment


def ce(logits, labels):
    return -special.log_softmax(logits, axis=-1)[np.arange(len(labels)), labels]


def views_of(labels, others, weight):
    return views.Views(np.zeros(()), labels, others, np.float32(weight))


def with_method(settings, name, **changes):
    return dataclasses.replace(settings, method=name, **changes)


def loss_of(logits, seen, settings):
    """The loss as one program: each operation alone would be one of its own."""
    run = lambda logits, seen: losses.training_loss(logits, seen, settings)
    return jax.jit(run)(logits, seen)


def accuracy_of(logits, seen, settings):
    run = lambda logits, seen: losses.training_accuracy(logits, seen, settings)
    return jax.jit(run)(logits, seen)


def test_two_heads_are_equation_7(settings, rng):
    logits = rng.normal(size=(2 * 5, 2 * 3)).astype(np.float32)
    y, donor = rng.integers(0, 3, (2, 5)), rng.integers(0, 3, (2, 5))
    seen = views_of(y, donor, np.ones((2, 5)))
    got = loss_of(logits, seen, with_method(settings, "apr_p_heads", heads_weight=0.3))
    want = 0.0
    for view in range(2):
        rows = logits[5 * view : 5 * view + 5]
        want += 0.3 * ce(rows[:, :3], y[view]).mean()
        want += 0.7 * ce(rows[:, 3:], donor[view]).mean()
    np.testing.assert_allclose(got, want, rtol=1e-5)
    joined = network_lib.join_heads(logits, 0.3)
    np.testing.assert_allclose(joined, 0.3 * logits[:, :3] + 0.7 * logits[:, 3:])
    right = accuracy_of(
        logits, seen, with_method(settings, "apr_p_heads", heads_weight=1.0)
    )
    np.testing.assert_allclose(right, np.mean(logits[:5, :3].argmax(1) == y[0]))


@pytest.mark.parametrize("smoothing", [0.2, 1.0])
def test_smoothed_labels_are_pytorchs(settings, rng, smoothing, monkeypatch, torch):
    monkeypatch.setitem(
        augment.AUGMENTS, "blend", augment.Method(mix=augment.Stage(augment.mixup))
    )

    def theirs(logits, labels):
        loss = torch.nn.CrossEntropyLoss(label_smoothing=smoothing, reduction="none")
        return loss(torch.tensor(logits), torch.tensor(labels)).numpy()

    logits = (3 * rng.normal(size=(6, 5))).astype(np.float32)
    y, other = rng.integers(0, 5, (2, 6))
    w = rng.random(6).astype(np.float32)
    smooth = {"label_smoothing": smoothing}
    got = loss_of(
        logits,
        views_of(y[None], other[None], w[None]),
        with_method(settings, "blend", **smooth),
    )
    want = np.mean(w * theirs(logits, y) + (1 - w) * theirs(logits, other))
    np.testing.assert_allclose(got, want, rtol=1e-5)
    halves = y[:3][None].repeat(2, 0)
    got = loss_of(
        logits,
        views_of(halves, halves, np.ones((2, 3))),
        with_method(settings, "apr_p", **smooth),
    )
    want = theirs(logits[:3], y[:3]).mean() + theirs(logits[3:], y[:3]).mean()
    np.testing.assert_allclose(got, want, rtol=1e-5)
    # Both linear layers of a contrastive method: of the classes, and with their turns.
    logits = rng.normal(size=(8, 15)).astype(np.float32)
    got = losses.linear_loss(logits, y[:2], 4, smoothing=smoothing)
    turned = (np.arange(4)[:, None] * 3 + y[:2] % 3).reshape(-1)
    want = theirs(logits[:2, :3], y[:2] % 3).mean()
    want += theirs(logits[:, 3:], turned).mean()
    got = losses.linear_loss(logits, y[:2] % 3, 4, smoothing=smoothing)
    np.testing.assert_allclose(got, want, rtol=1e-5)


@pytest.mark.parametrize("method", ["amplitude_mix", "afa"])
def test_views_are_averaged_where_their_authors_do(settings, rng, method):
    logits = rng.normal(size=(2 * 4, 3)).astype(np.float32)
    y = np.tile(rng.integers(0, 3, 4), (2, 1))
    seen = views_of(y, y, np.ones((2, 4)))
    got = loss_of(logits, seen, with_method(settings, method))
    np.testing.assert_allclose(got, ce(logits, y.reshape(-1)).mean(), rtol=1e-5)


def test_views_add_up(settings, rng):
    logits = rng.normal(size=(2 * 4, 3)).astype(np.float32)
    y = np.tile(rng.integers(0, 3, 4), (2, 1))
    got = loss_of(
        logits, views_of(y, y, np.ones((2, 4))), with_method(settings, "apr_sp")
    )
    want = ce(logits[:4], y[0]).mean() + ce(logits[4:], y[1]).mean()
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_blended_labels_count_by_weight(settings, rng, monkeypatch):
    monkeypatch.setitem(
        augment.AUGMENTS, "blend", augment.Method(mix=augment.Stage(augment.mixup))
    )
    logits = rng.normal(size=(6, 3)).astype(np.float32)
    y, other, w = rng.integers(0, 3, (1, 6)), rng.integers(0, 3, (1, 6)), rng.random(6)
    seen = views_of(y, other, w[None].astype(np.float32))
    got = loss_of(logits, seen, with_method(settings, "blend"))
    want = np.mean(w * ce(logits, y[0]) + (1 - w) * ce(logits, other[0]))
    np.testing.assert_allclose(got, want, rtol=1e-5)
    answer = logits.argmax(1)
    want = np.mean(w * (answer == y[0]) + (1 - w) * (answer == other[0]))
    got = accuracy_of(logits, seen, with_method(settings, "blend"))
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_jensen_shannon(settings, rng, monkeypatch):
    logits = rng.normal(size=(3, 4, 5)).astype(np.float32)
    p = special.softmax(logits, axis=-1)
    want = np.mean([stats.entropy(q, p.mean(0), axis=-1) for q in p])
    divergence = jax.jit(augment.jensen_shannon)
    np.testing.assert_allclose(divergence(*logits), want, rtol=1e-5)
    same = np.broadcast_to(logits[:1], logits.shape)
    np.testing.assert_allclose(divergence(*same), 0, atol=1e-6)
    # Only the clean view has a cross-entropy.
    method = augment.Method(loss=augment.AUGMENTS["augmix"].loss)
    monkeypatch.setitem(augment.AUGMENTS, "alike", method)
    y = np.tile(rng.integers(0, 5, 4), (3, 1))
    got = loss_of(
        logits.reshape(12, 5),
        views_of(y, y, np.ones((3, 4))),
        with_method(settings, "alike", jsd_weight=12.0),
    )
    want = ce(logits[0], y[0]).mean() + 12 * want
    np.testing.assert_allclose(got, want, rtol=1e-5)


@pytest.mark.parametrize("name", ["apr_p", "apr_p_heads"])
def test_like_answers_on_an_image_and_on_its_pair(settings, rng, name):
    heads = augment.AUGMENTS[name].heads
    logits = rng.normal(size=(8, 5 * heads)).astype(np.float32)
    y = np.tile(rng.integers(0, 5, 4), (2, 1))
    seen = views_of(y, y, np.ones((2, 4)))
    bare = loss_of(logits, seen, with_method(settings, name))
    given = with_method(settings, name, pair_consistency=3.0)
    got = loss_of(logits, seen, given) - bare
    p = special.softmax(logits.reshape(2, 4, heads * 5)[..., :5], axis=-1)
    want = np.mean([stats.entropy(q, p.mean(0), axis=-1) for q in p])
    assert want > 0.05
    np.testing.assert_allclose(got, 3 * want, rtol=1e-4)


@pytest.mark.parametrize("method", ["standard", "apr_s", "cutmix", "mixup+apr_p"])
def test_like_answers_need_a_pair(tmp_path, method):
    config = toy.config(tmp_path, augment__method=method, augment__pair_consistency=1.0)
    with pytest.raises(ConfigError, match="pair_consistency: 1 is for methods with"):
        plan.check_names(config)


@pytest.mark.parametrize(
    "per", [pytest.param("batch", marks=pytest.mark.slow), "image"]
)
def test_the_amplitudes_label_is_the_donors(tmp_path, per, rng):
    config = toy.config(tmp_path, augment__pair_per=per, augment__pair_prob=0.5)
    images = rng.integers(0, 256, (8, 6, 6, 3), np.uint8)
    pixels = np.float32(images) / 255
    joined = jax.jit(functools.partial(recombine, backend="fft"))

    @jax.jit
    def mix(seed, images, labels):
        share = views.Share(labels, labels, config, None)
        return views.mix_images(jax.random.key(seed), images, augment.APR_P, share)

    seen = set()
    for seed in range(8):
        mixed, donor = mix(seed, images, np.arange(8))
        # An image whose amplitude label is j is the recombination with image j.
        want = joined(pixels[np.asarray(donor)], pixels)
        np.testing.assert_allclose(mixed, want, atol=1e-4)
        seen.add(int(np.sum(np.asarray(donor) != np.arange(8))))
    assert 0 in seen or per == "image"
    assert max(seen) >= 4


def test_image_stages_draw_from_place_and_key_alone(tmp_path, key, rng, monkeypatch):
    shade = augment.Stage(
        jax.vmap(lambda k, x: to_pixels(x) + jax.random.uniform(k)),
    )
    single = augment.Stage(
        jax.vmap(lambda k, x: x // 2 + jax.random.randint(k, (), 0, 99, jnp.uint8)),
    )
    method = dataclasses.replace(
        augment.AUGMENTS["augmix"], single=single, after=(shade,)
    )
    monkeypatch.setitem(augment.AUGMENTS, "alike", method)
    config = toy.config(tmp_path, augment__method="alike", augment__flip=False)
    config = dataclasses.replace(
        config, augment=dataclasses.replace(config.augment, crop_pad=0)
    )
    images = rng.integers(0, 256, (6, 8, 8, 3), np.uint8)
    labels = np.arange(6)
    see = jax.jit(lambda *batch: views.make_views(key, key, *batch, config).pixels)
    whole = see(images, labels, labels)
    turned = np.roll(labels, 2)
    again = see(images[turned], turned, turned)
    pixels, again = (np.asarray(x).reshape(3, 6, 8, 8, 3) for x in (whole, again))
    np.testing.assert_array_equal(pixels[:, turned], again)
    drawn = np.rint(255 * pixels[0]) - images // 2
    assert len(np.unique(drawn[:, 0, 0, 0])) > 3
    assert np.ptp(drawn, (1, 2, 3)).max() == 0
    added = (pixels[1:] - pixels[:1])[:, :, 0, 0, 0]
    assert len(np.unique(added.round(4))) == 12


def test_one_step_of_the_adversary_by_hand(key, rng, tmp_path):
    settings = toy.config(tmp_path, adversary__attack="fgsm").adversary
    pixels = np.float32(rng.uniform(-0.1, 1.1, (4, 5, 5, 3)))
    way = np.float32(rng.normal(size=pixels.shape))
    keys = jax.random.split(key, 4)
    run = lambda keys, pixels, way: adversarial.perturb(
        keys, lambda x: jnp.sum(way * x), pixels, settings, unroll=True
    )
    moved = np.asarray(jax.jit(run)(keys, pixels, way))
    # A step of 10/255 from anywhere in a ball of 8/255 ends at least 2/255 further on.
    origin = np.clip(pixels, 0, 1)
    along = (moved - origin) * np.sign(way)
    room = np.where(way > 0, 1 - origin, origin)
    eps = settings.eps
    assert np.abs(moved - origin).max() <= eps + 1e-6
    assert moved.min() >= 0
    assert moved.max() <= 1
    low = np.minimum(settings.step_size - eps, room)
    assert (along >= low - 1e-6).all()
    spread = np.asarray(along)[room > eps]
    assert 0.4 * eps < spread.mean() < eps  # where it starts is random


@pytest.mark.parametrize("unroll", [True, False])
def test_more_steps_of_the_adversary_go_to_the_corner(key, rng, tmp_path, unroll):
    settings = toy.config(tmp_path, adversary__attack="pgd").adversary
    settings = dataclasses.replace(settings, step_size=0.01, steps=8)
    pixels = jnp.asarray(rng.uniform(0, 1, (2, 5, 5, 3)), jnp.float32)
    way = jnp.asarray(rng.normal(size=pixels.shape), jnp.float32)
    moved = jax.jit(
        lambda p: adversarial.perturb(
            jax.random.split(key, 2),
            lambda x: jnp.sum(way * x),
            p,
            settings,
            unroll=unroll,
        )
    )(pixels)
    want = np.clip(pixels + settings.eps * np.sign(way), 0, 1)
    np.testing.assert_allclose(moved, want, atol=1e-6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("toy")
    toy.write_arrays(path)
    return path


@pytest.mark.usefixtures("_tiny_model")
@pytest.mark.parametrize(
    ("method", "attack"),
    [
        pytest.param("apr_p_heads", "none", marks=pytest.mark.slow),
        ("apr_p", "fgsm"),
        pytest.param("apr_sp", "fgsm", marks=pytest.mark.slow),
        pytest.param("standard", "pgd", marks=pytest.mark.slow),
        pytest.param("cutout+cutmix+apr_p", "none", marks=pytest.mark.slow),
        pytest.param("augmix", "none", marks=pytest.mark.slow),
        ("afa", "none"),
    ],
)
def test_methods_train_to_the_end(folder, tmp_path, method, attack):
    config = toy.config(
        folder,
        augment__method=method,
        adversary__attack=attack,
        adversary__steps=2,
        augment__cutout_size=3,
        optim__epochs=3.0,
    )
    trained = loop.train(plan.plan(config, tmp_path), quiet=True)
    network = classifier.make(config, trained.state.variables, "abcd")
    with np.load(folder / "test.npz") as test:
        images, labels = test["images"], test["labels"]
    outputs = network.predict(network.variables, jnp.asarray(images))
    logits, features = (np.asarray(part) for part in outputs)
    assert logits.shape == (50, 4)
    assert toy.has_learnt(logits.argmax(1) == labels)
    if method == "apr_p_heads":
        kernel = network.variables["params"]["Dense_0"]["kernel"]
        assert kernel.shape == (8, 8)
        collected = ood_scores.Collected(
            logits, features, labels, odin=labels, csi=labels
        )
        weight, bias = ood_scores.last_layer(
            network.variables, collected, config.augment
        )
        np.testing.assert_allclose(features @ weight + bias, logits, atol=1e-4)


@pytest.mark.parametrize("method", sorted(augment.AUGMENTS))
def test_every_method_makes_views(folder, key, rng, method):
    config = toy.config(folder, augment__method=method, augment__pair_prob=1.0)
    images = jnp.asarray(rng.integers(0, 256, (6, 8, 8, 3)), jnp.uint8)
    labels = jnp.arange(6)
    # Abstractly: what is compiled is tested where the functions are.
    seen = jax.eval_shape(
        lambda key: views.make_views(key, key, images, labels, labels, config), key
    )
    chosen = augment.get_method(method)
    own = {"augmix": 3, "prime_jsd": 3, "noisymix": 3, "supclr": 2, "csi": 8}
    count = own.get(method, 1) + bool(chosen.pair)
    assert seen.pixels.shape == (count * 6, 8, 8, 3)
    assert seen.pixels.dtype == jnp.float32
    assert seen.labels.shape == seen.others.shape == seen.weight.shape == (count, 6)


def test_mixups_other_label_is_the_partners(folder, key, rng):
    config = toy.config(folder, augment__method="mixup", augment__flip=False)
    config = dataclasses.replace(
        config, augment=dataclasses.replace(config.augment, crop_pad=0)
    )
    images = rng.integers(0, 256, (8, 8, 8, 3), np.uint8)
    labels = np.arange(8)
    see = lambda *batch: views.make_views(key, key, *batch, config)
    seen = jax.jit(see)(images, labels, labels)
    pixels = np.float32(images) / 255
    weight = np.asarray(seen.weight[0])[:, None, None, None]
    want = weight * pixels + (1 - weight) * pixels[np.asarray(seen.others[0])]
    np.testing.assert_allclose(seen.pixels, want, atol=1e-5)
    assert 0 < weight[0] < 1


@pytest.mark.usefixtures("_tiny_model")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"adversary__attack": "cw"}, r"adversary.attack is 'cw'; choose from 'none'"),
        ({"adversary__steps": 0}, r"adversary.steps is 0; it must be at least 1"),
        ({"augment__heads_weight": 1.5}, r"augment.heads_weight is 1.5; .* 0 to 1"),
    ],
)
def test_bad_settings_are_one_clear_error(folder, changes, message):
    with pytest.raises(ConfigError, match=message):
        toy.config(folder, **changes)


def test_older_runs_keep_their_hash(folder):
    config = toy.config(folder)
    fields = config_lib.identity(config)
    assert not [k for k in fields if k.startswith("adversary.") or "heads" in k]
