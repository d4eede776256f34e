"""From images to detection scores: logits and features once, then every score."""

import dataclasses
import functools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from apr_jax import augment, console, data, network, ood, parallel
from apr_jax import config as config_lib
from apr_jax.data import imagenet, samples
from apr_jax.errors import DataError
from apr_jax.evaluate import classifier as classifier_lib
from apr_jax.evaluate import ood_sets
from apr_jax.evaluate.classifier import weights_digest
from apr_jax.evaluate.context import Context
from apr_jax.gates import stores
from apr_jax.models.projected import HEADS
from apr_jax.pixels import to_pixels
from apr_jax.runs import files

# Examples that the scores are computed for at a time.
_CHUNK = 500


KNOBS = (
    "odin_temperature",
    "odin_epsilon",
    "react_quantile",
    "dice_sparsity",
    "ash_prune",
    "scale_prune",
    "knn_k",
    "nnguide_k",
)
# The same; records don't say what is as it has always been.
LATER_KNOBS = ("gen_gamma", "gen_top", "vim_dims", "fdbd_over")


@dataclasses.dataclass(frozen=True)
class Collected(classifier_lib.Outputs):
    """The outputs of a classifier for a set, and the scores that need its images."""

    odin: np.ndarray  # float32 [N]; zeros where it was not asked for
    csi: np.ndarray  # likewise

    def answered(self) -> "Collected":
        """The examples whose logits and features are all finite."""
        kept = np.isfinite(self.logits).all(1) & np.isfinite(self.features).all(1)
        if kept.all():
            return self
        return Collected(**{name: array[kept] for name, array in vars(self).items()})


class Collector:
    """Runs a classifier over sets, each once, and keeps its outputs.

    Those for its own data lie under ``scratch`` and are read from there by a later
    call with the same weights and settings.
    """

    def __init__(
        self,
        classifier: classifier_lib.Classifier,
        context: Context,
        settings: config_lib.Ood,
        asked: Collection[str],
    ) -> None:
        """Takes the settings of ``ood.measure``, and the names of the scores wanted."""
        self._original, self._context = classifier, context
        self._wrapped = _with_scores(classifier, settings, asked)
        of_images: list[Any] = [name for name in ood.OF_IMAGES if name in asked]
        if "odin" in asked:
            of_images += [settings.odin_temperature, settings.odin_epsilon]
        config = classifier.config
        self._identity = [
            config_lib.config_hash(config),
            config.data.data_dir,
            classifier.step,
            weights_digest(classifier),
            of_images,
        ]

    def split(
        self, split: str, *, resident: data.DataSet | None, examples: int
    ) -> Collected:
        """A split of the classifier's own data, or a part that its seed draws."""
        seed = self._original.config.seed
        key = ["split", split, examples, seed]
        if resident is not None:
            key.append(resident.fingerprint)

        def collect() -> classifier_lib.Outputs:
            if resident is None:
                return self._streamed(split, examples, seed)
            part = samples.load(
                self._original.config.data,
                split,
                examples=examples,
                seed=seed,
                resident=resident,
            )
            batches = data.eval_batches(part, self._rows(len(part.labels)))
            return self._run(batches, len(part.labels), split)

        path = self._context.kept(
            f"ood/{split}-{{}}.npz", lambda: [*self._identity, *key]
        )
        found = _read(path) if path else None
        if found is None:
            found = _parted(collect())
            if path:
                files.write_arrays(path, vars(found))
        return found

    def out(self, out_set: ood_sets.OutSet) -> Collected:
        """A set that isn't the classifier's own; labels are zeros."""
        # Not kept: it is read once, and its records are the trace of it.
        batches = out_set.batches(self._rows(out_set.size))
        return _parted(self._run(batches, out_set.size, out_set.name))

    def _rows(self, count: int) -> int:
        return self._context.rows(self._original.config.eval.batch_size, count)

    def _streamed(self, split: str, examples: int, seed: int) -> classifier_lib.Outputs:
        settings = self._original.config.data
        size = imagenet.num_examples(settings, split)
        if not examples or examples >= size:
            streamed = dataclasses.replace(self._context, resident=None)
            return classifier_lib.collect_split(self._wrapped, split, streamed)
        part = samples.stream(
            settings, split, examples=examples, seed=seed, rows=self._rows(examples)
        )
        return self._run(part, examples, split, max_broken=settings.max_broken)

    def _run(
        self,
        batches: Iterable[data.Batch],
        size: int,
        what: str,
        **options: Any,
    ) -> classifier_lib.Outputs:
        rows = parallel.local_rows(self._rows(size), self._context.layout)
        run = classifier_lib.make_collect(self._wrapped, self._context)
        return run(classifier_lib.share(batches, rows), size, what=what, **options)


def scores_of(
    names: Sequence[str],
    collected: Collected,
    fitted: ood.Fitted | None,
    settings: config_lib.Ood,
) -> dict[str, np.ndarray]:
    """Scores of every example: name -> float64 [N], higher = more in-distribution."""
    found = {
        name: getattr(collected, name).astype(np.float64)
        for name in ood.OF_IMAGES
        if name in names
    }
    rest = [name for name in names if name not in ood.OF_IMAGES]
    knobs = _options(settings)
    asked = tuple((name, tuple(knobs.get(name, {}).items())) for name in rest)
    parts = []
    for start in range(0, len(collected.labels), _CHUNK):
        rows = slice(start, start + _CHUNK)
        logits, features = collected.logits[rows], collected.features[rows]
        short = _CHUNK - len(logits)
        # One shape for all chunks, so one program.
        padded = (np.pad(x, ((0, short), (0, 0))) for x in (logits, features))
        out = _compute(asked, *padded, fitted)
        parts.append({k: np.asarray(v)[: len(logits)] for k, v in out.items()})
    for name in rest:
        found[name] = np.concatenate([p[name] for p in parts]).astype(np.float64)
    return {name: found[name] for name in names}


def _options(settings: config_lib.Ood) -> dict[str, dict[str, Any]]:
    """The knobs of each score that has some, as it takes them."""
    return {
        **{key: {"prune": settings.ash_prune} for key in ("ash", "ash_p", "ash_b")},
        "scale": {"prune": settings.scale_prune},
        "gen": {"gamma": settings.gen_gamma, "top": settings.gen_top},
        "fdbd": {"over": settings.fdbd_over},
        "knn": {"k": settings.knn_k},
        "nnguide": {"k": settings.nnguide_k},
    }


# One program for all sets and calls with the same scores and knobs.
@functools.partial(jax.jit, static_argnums=0)
def _compute(
    asked: tuple[tuple[str, tuple[tuple[str, Any], ...]], ...],
    logits: jax.Array,
    features: jax.Array,
    fitted: ood.Fitted | None,
) -> dict[str, jax.Array]:
    """Scores [B] by name, of outputs of a chunk."""
    return {
        name: ood.SCORES[name](logits, features, fitted, **dict(options))
        for name, options in asked
    }


def knobs_of(settings: config_lib.Ood) -> dict[str, Any]:
    """The knobs that records are told by."""
    usual = config_lib.Ood()
    later = {n: getattr(settings, n) for n in LATER_KNOBS}
    changed = {n: v for n, v in later.items() if v != getattr(usual, n)}
    return {**{name: getattr(settings, name) for name in KNOBS}, **changed}


def last_layer(
    variables: Any, collected: Collected, settings: config_lib.Augment
) -> tuple[np.ndarray, np.ndarray] | None:
    """Weight [F, K] and bias [K] that turn the features into the logits, if any do.

    Found by its effect rather than by its name, so for any network. Several heads
    are one linear layer of 2 K outputs or more; ``network.class_logits`` of a method's
    ``settings`` takes its logits from them.
    """
    known = collected.answered()
    features, logits = known.features[:64], known.logits[:64]
    if not len(logits):
        return None
    scale = float(np.std(logits)) or 1.0
    heads = augment.get_method(settings.method).heads
    for layer in _layers(variables):
        weight = np.asarray(layer["kernel"])
        bias = np.asarray(layer.get("bias", np.zeros(weight.shape[1], np.float32)))
        if weight.shape == (features.shape[1], heads * logits.shape[1]):
            weight, bias = (
                np.asarray(network.class_logits(jnp.asarray(x), settings))
                for x in (weight, bias)
            )
        if weight.shape != (features.shape[1], logits.shape[1]):
            continue
        if np.abs(features @ weight + bias - logits).max() < 1e-2 * scale:
            return weight, bias
    return None


def has_turns(classifier: classifier_lib.Classifier) -> bool:
    """Whether it has logits of the classes in each turn of an image."""
    method = augment.get_method(classifier.config.augment.method)
    return method.shifts > 1 and HEADS in classifier.variables.get("params", {})


# --- Inner workings ------------------------------------------------------------------


def _with_scores(
    classifier: classifier_lib.Classifier,
    settings: config_lib.Ood,
    asked: Collection[str],
) -> classifier_lib.Classifier:
    """The same classifier, ``ood.OF_IMAGES`` the last columns of its features."""
    predict = classifier.predict
    scores: dict[str, Callable[..., jax.Array]] = {}
    if "odin" in asked:
        scores["odin"] = lambda variables, pixels: ood.odin(
            lambda pixels: predict(variables, pixels)[0],
            pixels,
            temperature=settings.odin_temperature,
            epsilon=settings.odin_epsilon,
        )
    if "csi" in asked:
        config = classifier.config
        model = network.make_model(config, num_classes=len(classifier.class_names))
        turned = network.make_shift_logits(model, config)
        scores["csi"] = lambda variables, pixels: ood.csi(
            functools.partial(turned, variables), pixels
        )

    def all_of_it(variables: Any, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits, features = predict(variables, images)
        pixels, none = to_pixels(images), jnp.zeros(len(images))
        columns = [
            scores[name](variables, pixels) if name in scores else none
            for name in ood.OF_IMAGES
        ]
        return logits, jnp.concatenate([features, jnp.stack(columns, 1)], axis=1)

    return dataclasses.replace(classifier, predict=all_of_it)


def _parted(outputs: classifier_lib.Outputs) -> Collected:
    count = len(ood.OF_IMAGES)
    scores = dict(zip(ood.OF_IMAGES, outputs.features[:, -count:].T, strict=True))
    return Collected(
        logits=outputs.logits,
        features=outputs.features[:, :-count],
        labels=outputs.labels,
        **scores,
    )


def _layers(tree: Any) -> Iterator[Mapping[str, Any]]:
    """Every linear layer in nested parameters."""
    if isinstance(tree, Mapping):
        if "kernel" in tree and np.ndim(tree["kernel"]) == 2:
            yield tree
        for child in tree.values():
            yield from _layers(child)


def _read(path: stores.Place) -> Collected | None:
    if not path.exists():
        return None
    try:
        with files.archive(path) as stored:
            return Collected(**stored)
    except DataError as error:
        console.say(f"{error}; it is made again")
        return None
