"""A network from elsewhere and the data it is measured on, made to fit."""

import dataclasses
import operator
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from apr_jax import config as config_lib
from apr_jax import console, data, settings
from apr_jax.data import described as described_lib
from apr_jax.data import images as images_lib
from apr_jax.data import samples
from apr_jax.errors import ArgumentError, ConfigError
from apr_jax.evaluate import elsewhere
from apr_jax.evaluate.classifier import Classifier
from apr_jax.gates import answers, stores
from apr_jax.runs import workdir

_LOOKED_AT = 32  # images of a first look
# Batches of so many pixels, and of no more than so many images, at least so many.
_PIXELS, _MOST, _LEAST = 1000 * 32 * 32, 1000, 32
# What networks want to be given, as functions of pixels in [0, 1].
_INPUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "range=(0, 1)": lambda pixels: pixels,
    "range=(0, 255)": lambda pixels: 255 * pixels,
    "range=(-1, 1)": lambda pixels: 2 * pixels - 1,
    "mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)": lambda pixels: (
        (pixels - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    ),
}

# Images and labels, the word for a set, or its fields.
Source = str | config_lib.Data | tuple[Any, Any]


class Brought(NamedTuple):
    """A network that fits its data.

    Attributes:
        classifier: whose configuration names the data.
        resident: the images, with its labels, unless they are streamed.
        root: where its records go.
    """

    classifier: Classifier
    resident: data.DataSet | None
    root: stores.Place

    def claim(self, place: workdir.RunDir, config: config_lib.Config) -> None:
        """Makes a directory that of these measurements.

        Raises:
            ConfigError: it has some of other images.
        """
        digest = data.eval_fingerprint(config.data, self.resident)
        names = self.classifier.class_names
        workdir.claim(place, config, names, images={"test": digest})


def bring(
    model: Any,
    source_of_data: Source,
    *,
    classes: int | Sequence[str] | None = None,
    image_size: int = 0,
    where: Mapping[str, Any] | None = None,
    root: stores.Place | None = None,
    weights: str | None = None,
    trust_remote_code: bool = False,
) -> Brought:
    """Opens a network and its data, with all checks that are possible before work.

    Args:
        model: a ``Classifier``, a function from images to logits, "FILE.py:create",
            whose function returns one of them, or a name that ``foreign.named`` loads,
            such as "timm:resnet18".
        source_of_data: what ``data.described`` reads, fields of ``config.Data``, or
            (images, labels).
        classes: of a function: names in the order of its logits, or how many; the
            data's if None. Of a ``Classifier`` that only knows how many, their names.
        image_size: of a function; the data's own if 0.
        where: the places of the data, ``data_dir`` and ``cache_dir``.
        root: where records go; ``runs/NAME_DATA`` if None.
        weights: a file of weights for a name; None: those of its library.
        trust_remote_code: whether code may be run that comes with ``hf:REPO``.

    Raises:
        UserError: something doesn't fit; the message says what to do.
    """
    told = _described(source_of_data, where or {})
    found = elsewhere.opened(
        model, weights=weights, trust_remote_code=trust_remote_code
    )
    if classes is None and not found.complete:
        _, classes = _loaded(source_of_data, told)
    _, model, known = found.as_classifier(classes, image_size or told.image_size)
    told = described_lib.fitted(told, model.config.data)
    resident, theirs = _loaded(source_of_data, told)
    fitting = (names for names in known if set(theirs) <= set(names))
    own = next(fitting, known[0] if known else model.class_names)
    resident, names = described_lib.matched(resident, theirs, own)
    config = model.config
    rows = max(_LEAST, min(_MOST, _PIXELS // told.image_size**2))
    config = dataclasses.replace(
        config, data=told, eval=dataclasses.replace(config.eval, batch_size=rows)
    )
    classifier = dataclasses.replace(model, config=config, class_names=names)
    if not classifier.step:
        _look(classifier, resident)
    root = root or pathlib.Path("runs") / f"{classifier.name}_{told.name}"
    return Brought(classifier, resident, root)


def _described(given: Source, where: Mapping[str, Any]) -> config_lib.Data:
    if isinstance(given, tuple):
        size = images_lib.checked_shape(np.asarray(given[0]), "data").shape[1]
        return config_lib.Data(source="arrays", name="arrays", image_size=size)
    found = given
    if isinstance(found, str):
        found = described_lib.parse(found)
    if "data_dir" in where and found.source != "tfds":
        raise ConfigError(
            f"--data_dir says where the sets of TFDS are, and data is {given!r}"
        )
    return settings.build(found, where, "data.")


def _loaded(
    given: Source, told: config_lib.Data
) -> tuple[data.DataSet | None, tuple[str, ...]]:
    if isinstance(given, tuple):
        return described_lib.of_arrays(told, *given)
    return described_lib.load(told)


def _look(classifier: Classifier, resident: data.DataSet | None) -> None:
    """Says how many of a few images are recognised.

    Raises:
        ArgumentError: far more would be, if the pixels were given in another range.
    """
    config, name = classifier.config.data, classifier.name
    some = samples.load(
        config, config.test_split, examples=_LOOKED_AT, seed=0, resident=resident
    )
    pixels, count = np.asarray(some.images, np.float32) / 255, len(some.labels)
    predict = jax.jit(lambda variables, x: classifier.predict(variables, x)[0])

    def right(given: np.ndarray) -> int:
        logits = predict(classifier.variables, jnp.asarray(given, jnp.float32))
        return int(np.sum(answers.answer(np.asarray(logits)) == some.labels))

    own = right(pixels)
    console.say(f"{name} recognises {own} of {count} images at first look")
    if own > count // 2 or count < _LOOKED_AT:
        return
    mean, std = np.array(config.mean), np.array(config.std)
    chance = 2 * count / len(classifier.class_names)
    others = {how: right(f(pixels) * std + mean) for how, f in _INPUTS.items()}
    how, best = max(others.items(), key=operator.itemgetter(1))
    if best > max(own + count // 4, chance):
        raise ArgumentError(
            f"of {count} images {name!r} recognises {own} as it is given them, and "
            f"{best} with {how}. That is said where it is opened: "
            "apr_jax.Classifier.from_function(f, classes=…, image_size=…, …), which a "
            "FILE.py may return, too"
        )
    if own <= chance:
        console.say(
            "that is no more than by chance: are its classes in the data's order, "
            f"{', '.join(classifier.class_names[:3])}, …?"
        )
