"""Every method, network, corruption, attack and score as a whole program."""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from apr_jax import augment, config, corruptions, models, network, ood, presets
from apr_jax.attacks import core, norms, sequence
from apr_jax.errors import ArgumentError
from apr_jax.train import dispatch, optim, state, step

# Of a set like CIFAR's, and steps over it in one call.
_IMAGES, _CALL = 50_000, 25
# Small images and a small network show what a method is made of.
_NETWORK, _BATCH, _SIZE = "wrn_10_1", 128, 32
_STEPS = 390.0  # of an epoch; any number
_SEVERITY = 3
_ROUNDS = 3  # of an attack; a loop is the same program for any number
_TRAINING = 256  # examples that scores are fitted on
_POINTS = 64  # attacked at a time

# A function for one device, and the shapes of its arguments.
Made = tuple[Callable[..., Any], tuple[Any, ...]]


@dataclasses.dataclass(frozen=True)
class Program:
    """A program to compile.

    Attributes:
        name: group and name, such as "method apr_sp".
        make: axis (None: unmapped) -> function and shapes of its arguments.
        mapped: over all chips of a target, or on one of them.
        donate: arguments whose memory the results take.
        step: whether it is of training, so that gradients are averaged.
    """

    name: str
    make: Callable[[str | None], Made]
    mapped: bool = False
    donate: tuple[int, ...] = ()

    @property
    def step(self) -> bool:
        """Whether it is a training step."""
        return bool(self.donate)


def shape(sides: tuple[int, ...], kind: Any) -> jax.ShapeDtypeStruct:
    """The shape of an argument."""
    return jax.ShapeDtypeStruct(sides, jnp.dtype(kind))


def run_key() -> Any:
    """The shape of a run's key."""
    return jax.eval_shape(lambda: dispatch.run_key(0))


def every() -> dict[str, Program]:
    """All programs by name, the large ones last."""
    found = [*_methods(), *_networks(), *_corruptions(), *_attacks(), *_scores()]
    found += _residents()
    return {program.name: program for program in [*found, *_large()]}


# --- Training ------------------------------------------------------------------------


def _training(settings: Any, batch: int, classes: int, axis: str | None) -> Made:
    """A training step of a configuration, with ``batch`` images on a device."""
    given = config.parse(settings.to_dict())
    model = network.make_model(given, num_classes=classes)
    rate = optim.schedule(given.optim, _STEPS)
    optimizer = optim.make_optimizer(given.optim, rate)
    run = step.make_train_step(model, optimizer, given, axis_name=axis)
    side = given.data.image_size
    begin = jax.eval_shape(lambda: state.state_of(given, model))
    images = shape((batch, side, side, 3), "uint8")
    numbers = shape((batch,), "int32")
    return step.make_streamed_step(run), (begin, images, numbers, numbers, run_key())


def _small(method: str, name: str = _NETWORK, size: int = _SIZE) -> Any:
    settings = presets.cifar(f"{name},{method},cifar10")
    settings.data.image_size = size
    return settings


def _step(name: str, settings: Any, batch: int, classes: int) -> Program:
    make = functools.partial(_training, settings, batch, classes)
    return Program(name, make, mapped=True, donate=(0,))


def _methods() -> Iterator[Program]:
    for name in augment.AUGMENTS:
        yield _step(f"method {name}", _small(name), _BATCH, 10)


def _networks() -> Iterator[Program]:
    for name in models.MODELS:
        size = max(_SIZE, models.minimum_size(name))
        settings = _small("standard", name, size)
        yield _step(f"network {name}", settings, _BATCH, 10)


def _residents() -> Iterator[Program]:
    yield Program("resident standard x25", _resident, mapped=True, donate=(0,))


def _resident(axis: str | None) -> Made:
    """Steps over images that lie on the device."""
    sides = (_SIZE, _SIZE, 3)
    run, args = _training(_small("standard"), _BATCH, 10, axis)
    begin, _, _, positions, key = args
    images = shape((_IMAGES, math.prod(sides)), "uint8")
    labels = shape((_IMAGES,), "int32")
    indices = shape((_CALL, _BATCH), "int32")
    steps = step.make_resident_steps(run, _CALL, shape=sides)
    return steps, (begin, images, labels, indices, positions, key)


def _large() -> Iterator[Program]:
    for method in ("standard", "apr_sp"):
        wide = presets.cifar(f"wrn_40_2,{method},cifar10")
        yield _step(f"large wrn_40_2 {method} x1024", wide, 1024, 10)
    for method in ("standard", "apr_sp"):
        deep = presets.imagenet_resnet50(method)
        yield _step(f"large resnet50 {method} x128", deep, 128, 1000)


# --- Corruptions ---------------------------------------------------------------------


def _corruptions() -> Iterator[Program]:
    own = (*corruptions.CORRUPTIONS, *corruptions.EXTRA_CORRUPTIONS)
    bars = {_SIZE: corruptions.C_BAR_CIFAR, 224: corruptions.C_BAR_IMAGENET}
    for size, bar in bars.items():
        for name in (*own, *bar):
            make = functools.partial(_corrupting, name, size)
            yield Program(f"corruption {name} {size}px", make)


def _corrupting(name: str, size: int, _: str | None) -> Made:
    # So many that no platform fills them up.
    count = max(min(corruptions.default_chunk(size), 1024), 16)
    side = np.arange(3 * 256, dtype=np.uint8).reshape(1, 256, 3)
    sheets = [np.broadcast_to(side, (256, 256, 3))] * 6 if name == "frost" else None

    def run(key: jax.Array, images: jax.Array) -> jax.Array:
        return corruptions.corrupt(
            key, images, name, _SEVERITY, chunk=count, frost=sheets, jpeg="device"
        )

    return run, (run_key(), shape((count, size, size, 3), "uint8"))


# --- Measurements --------------------------------------------------------------------


def _predicting(method: str = "standard") -> tuple[Any, Any, Any]:
    """A network's configuration, its module, and the shapes of its variables."""
    given = config.parse(_small(method).to_dict())
    model = network.make_model(given, num_classes=10)
    begin = jax.eval_shape(lambda: state.state_of(given, model))
    return given, model, dict(begin.variables)


def _attacks() -> Iterator[Program]:
    for norm in norms.NORMS:
        for name in sequence.ATTACKS:
            try:
                stage = sequence.make_stages(name, norm)[0]
            except ArgumentError:  # there is none of that norm
                continue
            make = functools.partial(_attacking, stage.attack)
            yield Program(f"attack {name} {norm}", make)


def _attacking(attack: core.Attack, _: str | None) -> Made:
    given, model, variables = _predicting()
    predict = network.make_predict(model, given)
    floats, labels = shape((_POINTS,), "float32"), shape((_POINTS,), "int32")
    keys = jax.eval_shape(lambda key: jax.random.split(key, _POINTS), run_key())
    images = shape((_POINTS, _SIZE, _SIZE, 3), "float32")
    points = core.Points(keys, images, labels, labels, floats, floats)

    def run(variables: Any, points: core.Points) -> Any:
        logits = lambda pixels: predict(variables, pixels)[0]
        begun = attack.init(points)
        return attack.result(core.advance(attack, logits, begun, _ROUNDS))

    return run, (variables, points)


def _scores() -> Iterator[Program]:
    for name in ood.SCORES:
        images = name in ood.OF_IMAGES
        make = functools.partial(_looking if images else _scoring, name)
        yield Program(f"score {name}", make)


def _looking(name: str, _: str | None) -> Made:
    given, model, variables = _predicting("csi" if name == "csi" else "standard")
    predict = network.make_predict(model, given)

    def run(variables: Any, pixels: jax.Array) -> jax.Array:
        if name == "csi":
            turned = network.make_shift_logits(model, given)
            return ood.csi(functools.partial(turned, variables), pixels)
        return ood.odin(lambda pixels: predict(variables, pixels)[0], pixels)

    return run, (variables, shape((_BATCH, _SIZE, _SIZE, 3), "float32"))


def _scoring(name: str, _: str | None) -> Made:
    rng = np.random.default_rng(0)
    features = rng.random((_TRAINING, 64))
    weight, bias = rng.normal(size=(64, 10)), np.zeros(10)
    labels = np.arange(_TRAINING) % 10
    logits = features @ weight + bias
    fitted = ood.fit(features, logits, labels, weight=weight, bias=bias)
    shapes = (shape((_BATCH, 10), "float32"), shape((_BATCH, 64), "float32"))
    return ood.get_score(name), (*shapes, jax.eval_shape(lambda: fitted))
