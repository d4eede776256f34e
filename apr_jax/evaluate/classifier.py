"""The classifiers that are measured: runs, files of weights, functions of pixels."""

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from apr_jax import config as config_lib
from apr_jax import console, data, network, parallel
from apr_jax import settings as settings_lib
from apr_jax.data import imagenet
from apr_jax.errors import DataError
from apr_jax.evaluate import forecast, programs
from apr_jax.evaluate.context import Context
from apr_jax.evaluate.doors import Doors
from apr_jax.gates import answers, stores
from apr_jax.pixels import to_pixels
from apr_jax.runs import workdir


@dataclasses.dataclass(frozen=True)
class Classifier(Doors):
    """A trained classifier and all that is known of it.

    Attributes:
        name: as pages and records call it.
        predict: (variables, images uint8 or pixels in [0, 1] [B, H, W, C]) -> (logits
            [B, K], penultimate features [B, F]).
        variables: first argument of ``predict``.
        config: of the run; of the data, for weights from elsewhere.
        class_names: K names, in the order of the logits.
        step: training steps; 0 where it isn't known.
        file: of weights from elsewhere; or "".
        differentiable: whether ``predict`` has gradients.
        head: weight [F, K] and bias [K] of the last linear layer, where they were
            found; else None.
    """

    name: str
    predict: Callable[[Any, jax.Array], tuple[jax.Array, jax.Array]]
    variables: Any
    config: config_lib.Config
    class_names: tuple[str, ...]
    step: int
    file: str = ""
    differentiable: bool = True
    head: tuple[np.ndarray, np.ndarray] | None = None

    @property
    def asked(self) -> programs.Asked:
        """What ``predict`` gives, its logits checked; equal for networks of a kind."""
        return programs.ask(self.predict, len(self.class_names), self.name)


@dataclasses.dataclass(frozen=True)
class Outputs:
    """The outputs of a classifier for a whole split, in the split's order."""

    logits: np.ndarray  # float32 [N, K]
    features: np.ndarray  # float32 [N, F]; F is 0 where they were not asked for
    labels: np.ndarray  # int32 [N]

    @property
    def not_finite(self) -> int:
        """How many of the logits are NaN or infinite."""
        return answers.not_finite(self.logits)

    @property
    def said(self) -> np.ndarray:
        """The classes answered, int [N]; -1 where there is none, as of NaN."""
        said: np.ndarray = answers.answer(self.logits)
        return said

    @property
    def right(self) -> np.ndarray:
        """The examples that are classified correctly, bool [N]; NaN never is."""
        return self.said == self.labels


def make(
    config: config_lib.Config,
    variables: Any,
    class_names: Iterable[str],
    *,
    name: str = "",
    step: int = 0,
) -> Classifier:
    """The classifier of a configuration with the given variables."""
    names = tuple(class_names)
    model = network.make_model(config, num_classes=len(names))
    return Classifier(
        name=name or config.name,
        predict=network.make_predict(model, config),
        variables=variables,
        config=config,
        class_names=names,
        step=step,
    )


def in_float32(classifier: Classifier) -> tuple[Classifier, dict[str, str]]:
    """The same weights, computed in float32 whatever the network was trained in.

    With it a mark for the settings of records, empty where nothing changed: numbers
    that were measured in the network's own type aren't taken for these.

    For attacks: gradients of bfloat16 are too coarse for their small steps, and an
    attack that fails for it would look like robustness. For frequencies: a network
    that rounds its pixels doesn't see weak waves.
    """
    config = classifier.config
    if config.model.dtype == "float32" or not classifier.variables:
        return classifier, {}
    wide = dataclasses.replace(
        config, model=dataclasses.replace(config.model, dtype="float32")
    )
    predict = make(wide, {}, classifier.class_names).predict
    return dataclasses.replace(classifier, predict=predict), {"dtype": "float32"}


def at_places(
    config: config_lib.Config, places: Mapping[str, Any]
) -> config_lib.Config:
    """The same configuration with its data at other places: ``data``'s fields."""
    described = settings_lib.build(config.data, places, "data.")
    return dataclasses.replace(config, data=described)


def from_run(root: stores.Place, places: Mapping[str, Any] | None = None) -> Classifier:
    """The network of a run, in the last state that was saved.

    Args:
        root: the work directory, which is only read.
        places: where its data are now, if they moved: fields of ``config.data``.

    Raises:
        ConfigError: ``root`` is no run, or has no checkpoint yet.
        CheckpointError: none of its checkpoints can be read.
    """
    run, config = workdir.open_run(root)
    config = at_places(config, places or {})
    names = workdir.read_class_names(run)
    from apr_jax.train import init_from  # Orbax and optax, which take a while to load

    step, variables = init_from.read_run(root, config, names)
    return make(config, variables, names, step=step)


def from_function(
    function: Callable[[jax.Array], jax.Array],
    config: config_lib.Config,
    class_names: Iterable[str],
    *,
    name: str,
) -> Classifier:
    """A classifier of a plain function from pixels to logits.

    Args:
        function: float32 pixels in [0, 1], [B, H, W, C] -> logits [B, K]; JAX code,
            pure, normalising its input itself. Its logits stand in for penultimate
            features, so scores that need features are not those of the network.
        config: its ``data`` names the images; network and training aren't used.
        class_names: K names.
        name: of the classifier, for records and pages.

    Its ``predict`` raises ArgumentError where the function gives anything else.
    """

    names = tuple(class_names)

    def predict(_: Any, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        found = answers.logits(
            function(to_pixels(images)),
            name=f"the logits of {name!r}",
            count=len(images),
            classes=len(names),
        )
        logits = jnp.asarray(found).astype(jnp.float32)
        return logits, logits

    return Classifier(
        name=name,
        predict=predict,
        variables={},
        config=config,
        class_names=names,
        step=0,
    )


@programs.once
def _gather(
    asked: programs.Asked, layout: parallel.Layout, features: bool
) -> Callable[[Any, Any], Any]:
    def run(variables: Any, batch: data.Batch) -> Any:
        logits, penultimate = asked(variables, jnp.asarray(batch.image))
        # First, so that who asks needn't know how many arrays there are.
        return batch.mask, logits, batch.label, *([penultimate] if features else [])

    return parallel.make_gather(run, layout)


def make_collect(
    classifier: Classifier, context: Context, *, features: bool = True
) -> Callable[..., Outputs]:
    """Returns a function that runs a classifier over splits, by one program for all.

    On all devices; every example counts once.

    Args:
        classifier: the classifier.
        context: the devices, and whether there is a progress bar.
        features: whether the outputs have the penultimate features.

    Returns:
        A function of ``batches`` (this process's, equally many on each, padded and
        masked) and ``expected`` (examples of the split, over all processes), that
        raises DataError where the batches held more or fewer. Its options:
        ``max_broken``, so many may be missing as their files can't be read, and
        ``what``, the name of the split for messages and the progress bar.
    """

    layout = context.layout
    gather = _gather(classifier.asked, layout, features)
    variables = parallel.replicate(classifier.variables, layout)

    def collect(
        batches: Iterable[data.Batch],
        expected: int,
        *,
        max_broken: int = 0,
        what: str = "the split",
    ) -> Outputs:
        parts: list[tuple[np.ndarray, ...]] = []
        watch = forecast.Stopwatch(context.speed)
        with context.bar() as bar:
            task = bar.add_task(what, total=expected)
            for batch in batches:
                arrays = data.Batch(*map(np.asarray, batch))
                shares = parallel.split_batch(arrays, layout)
                mask, *found = gather(variables, shares)
                parts.append(tuple(array[mask] for array in found))
                watch.note(int(mask.sum()))
                bar.update(task, advance=int(mask.sum()))
            if watch.wanted and parts:  # once more, as the first batch was compiled
                gather(variables, shares)
                watch.note(int(mask.sum()))
        logits, labels, *rest = map(np.concatenate, zip(*parts, strict=True))
        missing = expected - len(labels)
        if not 0 <= missing <= max_broken or not len(labels):
            raise DataError(
                f"{what} has {expected} examples, but {len(labels)} were evaluated"
            )
        if missing:
            console.say(f"{missing} of {expected:,} images of {what} can't be read")
        classes = logits.shape[1]
        answers.labels(labels, name=f"labels of {what}", classes=classes)
        none = np.zeros((len(labels), 0), np.float32)
        outputs = Outputs(logits, rest[0] if features else none, labels)
        if outputs.not_finite:
            console.say(
                f"{outputs.not_finite:,} of {logits.size:,} logits of {what} are not "
                "finite; such answers count as wrong"
            )
        return outputs

    return collect


def collect_split(classifier: Classifier, split: str, context: Context) -> Outputs:
    """Runs a classifier over one split of its data; see ``make_collect``.

    Args:
        classifier: the classifier.
        split: of the data that its configuration names.
        context: its surroundings; images that aren't resident are streamed.
    """
    config, resident = classifier.config, context.resident
    batch_size = config.eval.batch_size
    if resident is not None:
        images = resident.splits[split]
        size = len(images.labels)
        batch_size = context.rows(batch_size, size)
        rows = parallel.local_rows(batch_size, context.layout)
        batches = share(data.eval_batches(images, batch_size), rows)
    else:
        size = imagenet.num_examples(config.data, split)
        batches = stream_share(config.data, split, batch_size)
    return make_collect(classifier, context)(
        batches,
        size,
        max_broken=config.data.max_broken if resident is None else 0,
        what=split,
    )


def share(batches: Iterable[data.Batch], rows: slice) -> Iterator[data.Batch]:
    """This process's rows of each batch."""
    return (data.Batch(*(part[rows] for part in batch)) for batch in batches)


def stream_share(
    settings: config_lib.Data, split: str, batch_size: int
) -> Iterator[data.Batch]:
    """This process's part of a streamed split."""
    return imagenet.eval_stream(
        settings,
        split,
        batch_size=batch_size,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )


# Pictures whose answers stand for a function, each of so many patches a side.
_PICTURES, _PATCHES, _AT_ONCE = 32, (1, 2, 4, 8), 4


def _pictures(size: int) -> np.ndarray:
    """Coloured patches, uint8 [_PICTURES, S, S, 3]; the same ones at any time."""
    bits = np.random.Philox(_PICTURES)
    found = []
    for number in range(_PICTURES):
        side = _PATCHES[number % len(_PATCHES)]
        colours = bits.random_raw(3 * side**2) >> np.uint64(56)
        places = np.arange(size) * side // size
        found.append(colours.reshape(side, side, 3)[places][:, places])
    return np.asarray(found, np.uint8)


def weights_digest(classifier: Classifier) -> str:
    """Twelve hexadecimal digits that change with the weights, or with the name.

    A plain function has no weights: its logits of some pictures stand for them, so
    many that answers as coarse as a class alone differ somewhere, too.
    """
    digest = hashlib.sha256(classifier.name.encode())
    leaves = jax.tree.leaves(classifier.variables)
    if not leaves:
        pictures = _pictures(classifier.config.data.image_size)
        for few in np.split(pictures, len(pictures) // _AT_ONCE):
            logits, _ = classifier.predict({}, jnp.asarray(few))
            leaves.append(np.asarray(logits, np.float32).round(3))
    for leaf in leaves:
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()[:12]
