"""A network from elsewhere and the data it is measured on, made to fit."""

import dataclasses
import operator
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from apr_jax import config as config_lib
from apr_jax import console, data, settings
from apr_jax.data import classes as classes_lib
from apr_jax.data import described as described_lib
from apr_jax.data import samples
from apr_jax.errors import ArgumentError, ConfigError
from apr_jax.evaluate.classifier import Classifier
from apr_jax.foreign import named, source
from apr_jax.gates import answers, places
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
    root: pathlib.Path

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
    root: pathlib.Path | None = None,
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
    name = getattr(model, "__name__", type(model).__name__)
    told = _described(source_of_data, where or {})
    known: tuple[tuple[str, ...], ...] = ()
    if isinstance(model, str) and named.is_named(model):
        model, known = _by_name(model, weights, trust_remote_code)
    elif weights is not None or trust_remote_code:
        flag = "weights" if weights is not None else "trust_remote_code"
        raise ConfigError(f"{flag} is for timm:NAME, torchvision:NAME or hf:REPO")
    elif isinstance(model, str):
        name, model = source.load(model)
    if not isinstance(model, Classifier):
        if classes is None:
            _, classes = _loaded(source_of_data, told)
        model = Classifier.from_function(
            model,
            classes=classes,
            image_size=image_size or told.image_size,
            name=re.sub(r"\W+", "", name) or "model",
        )
    elif classes is not None and not isinstance(classes, int):
        model, known = _named(model, classes), ()
    told = described_lib.fitted(told, model.config.data)
    resident, found = _loaded(source_of_data, told)
    fitting = (names for names in known if set(found) <= set(names))
    own = next(fitting, known[0] if known else model.class_names)
    resident, names = described_lib.matched(resident, found, own)
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


def _by_name(
    spec: str, weights: str | None, trust_remote_code: bool
) -> tuple[Classifier, tuple[tuple[str, ...], ...]]:
    """A network of a library, and all names that are known of its classes."""
    path = places.local(weights, "weights") if weights else None
    given = named.load(spec, path, trust_remote_code=trust_remote_code)
    console.say(f"{spec}: {given.said()}")
    stem = f"_{path.stem}" if path else ""
    classifier = Classifier.from_torch(
        given.module,
        classes=given.outputs(),
        image_size=given.image_size,
        resize=given.resize,
        mean=given.mean,
        std=given.std,
        name=re.sub(r"[^\w.-]+", "_", given.name + stem),
    )
    count = len(classifier.class_names)
    return classifier, tuple(names for names in given.classes if len(names) == count)


def _described(given: Source, where: Mapping[str, Any]) -> config_lib.Data:
    if isinstance(given, tuple):
        size = np.shape(given[0])[1]
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


def _named(classifier: Classifier, names: Sequence[str]) -> Classifier:
    """The same classifier, its classes by other names."""
    if len(names) != len(classifier.class_names):
        raise ConfigError(
            f"classes names {len(names)}; {classifier.name} tells "
            f"{len(classifier.class_names)} apart"
        )
    return dataclasses.replace(classifier, class_names=tuple(names))


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
            f"{best} with {how}: say that of it"
        )
    if own <= chance:
        console.say(
            "that is no more than by chance: are its classes in the data's order, "
            f"{', '.join(classifier.class_names[:3])}, …?"
        )


# --- Flags ---------------------------------------------------------------------------


def define_flags() -> Callable[[], dict[str, Any] | None]:
    """Flags for a network from elsewhere: ``bring``'s arguments, None without one."""
    model = flags.DEFINE_string(
        "model",
        None,
        "FILE.py[:create], which returns a function or an apr_jax.Classifier; "
        "timm:NAME, torchvision:NAME or hf:REPO.",
    )
    measured = flags.DEFINE_string(
        "data", None, "For --model: cifar10, bundled, folder:PATH, arrays:FILE.npz, …"
    )
    classes = flags.DEFINE_string(
        "classes", None, "For --model: how many, or a file of names, one a line."
    )
    weights = flags.DEFINE_string(
        "weights", None, "For --model LIBRARY:NAME: a file; its library's if unset."
    )
    trusted = flags.DEFINE_bool(
        "trust_remote_code", False, "For --model hf:REPO: its own code may be run."
    )
    settings.list_in_help("model", "data", "classes", "weights", "trust_remote_code")

    def given() -> dict[str, Any] | None:
        if model.value is None:
            for flag in (measured, classes, weights, trusted):
                if flag.value:
                    raise ConfigError(f"--{flag.name} is for --model")
            return None
        if measured.value is None:
            raise ConfigError("--model needs --data, what it is measured on")
        found = {
            "model": model.value,
            "source_of_data": measured.value,
            "classes": _classes(classes.value),
        }
        if weights.value:
            found["weights"] = weights.value
        if trusted.value:
            found["trust_remote_code"] = True
        return found

    return given


def _classes(text: str | None) -> int | tuple[str, ...] | None:
    if text is None or text.isdecimal():
        return None if text is None else int(text)
    return classes_lib.read_text(places.local(text, "--classes"))
