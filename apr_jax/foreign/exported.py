"""Networks as files that other programs run: StableHLO by ``jax.export``, and ONNX.

Beside FILE lies FILE.json, which says what the network takes and answers. Loaded again,
the file gives the same logits; that is checked before it takes its place.
"""

import contextlib
import dataclasses
import importlib.metadata
import json
import logging
import pathlib
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

import apr_jax
from apr_jax.errors import ArgumentError, ConfigError, UserError, words
from apr_jax.foreign import batch_free, checks, formats, lax_only
from apr_jax.gates import answers, knobs
from apr_jax.runs import files

PLATFORMS = ("cpu", "cuda", "tpu")
OPSET = 18  # of ONNX; since 2022, so that what runs networks knows it
_INPUT, _OUTPUT, _BATCH = "images", "logits", "batch"
# So far, of the spread of all logits, may they be from the network's own.
_ROUNDING = 1e-3
_LONGEST = 300  # characters of somebody else's message


@dataclasses.dataclass(frozen=True)
class Plan:
    """How a network is written.

    Attributes:
        to: one of ``formats.FORMATS``.
        pixels: what it takes: "float32" in [0, 1], or "uint8" grey levels.
        batch: images of a call; 0: any number.
        gradients: whether StableHLO has the gradients of the pixels, too.
    """

    to: str
    pixels: str = "float32"
    batch: int = 0
    gradients: bool = False

    def __post_init__(self) -> None:
        knobs.one_of("to", self.to, formats.FORMATS)
        knobs.one_of("pixels", self.pixels, formats.PIXELS)
        if self.batch < 0:
            raise ArgumentError(f"batch is {self.batch}; give how many, or 0 for any")
        if self.gradients and self.to == "onnx":
            raise ArgumentError("gradients are for to='stablehlo'; ONNX has none")
        if self.gradients and self.pixels == "uint8":
            raise ArgumentError("gradients are for pixels='float32', not grey levels")


class Compared(NamedTuple):
    """What a file answers, beside the network itself.

    Attributes:
        images: how many were compared.
        difference: the largest one of two logits.
        largest: the largest logit, without its sign.
    """

    images: int
    difference: float
    largest: float


class Loaded(NamedTuple):
    """A network that was read from a file.

    Attributes:
        logits: images [B, H, W, C] as ``about["pixels"]`` says -> logits [B, K].
        about: what lies beside it.
    """

    logits: Callable[[Any], Any]
    about: Mapping[str, Any]


def write(
    path: pathlib.Path,
    logits: Callable[[jax.Array], jax.Array],
    *,
    image_size: int,
    plan: Plan,
    about: Mapping[str, Any],
) -> Compared:
    """Writes a network and what is known of it; loads it again before it counts.

    Args:
        path: of the file; ``path`` with ".json" after it is written, too.
        logits: images uint8, or float32 in [0, 1], [B, H, W, 3] -> logits [B, K].
        image_size: pixels, square.
        plan: how.
        about: of the network, as JSON values.

    Raises:
        ArgumentError: the format can't have such a network, or it answers otherwise
            when it is loaded again.
        ConfigError: what writes or reads ONNX isn't installed.
    """
    shape = jax.ShapeDtypeStruct(
        (_rows(plan), image_size, image_size, 3), jnp.dtype(plan.pixels)
    )
    with _saying(plan), files.replacing(path) as file:
        written = batch_free.of_any_number(logits, shape)
        contents, extra = _WRITERS[plan.to](written, shape, plan, about)
        file.write(contents)
        file.flush()
        found = _compared(_read(pathlib.Path(file.name), plan.to), logits, shape)
    described = {**about, **_described(plan, image_size), **extra}
    described["checked"] = {
        "images": found.images,
        "largest_difference": found.difference,
        "largest_logit": found.largest,
    }
    files.write_text(_beside(path), json.dumps(described, indent=1) + "\n")
    return found


def load(path: pathlib.Path) -> Loaded:
    """Reads what ``write`` has written.

    Raises:
        DataError: the file, or what lies beside it, isn't there or is damaged.
        ConfigError: onnxruntime isn't installed.
    """
    about = files.read_json(_beside(path))
    with files.reading(path):
        return Loaded(_read(path, about["format"]), about)


def _beside(path: pathlib.Path) -> pathlib.Path:
    return path.with_name(path.name + ".json")


def _rows(plan: Plan) -> Any:
    return plan.batch or export.symbolic_shape(_BATCH)[0]


def _described(plan: Plan, image_size: int) -> dict[str, Any]:
    levels = "[0, 1]" if plan.pixels == "float32" else "grey levels"
    return {
        "format": plan.to,
        "image_size": image_size,
        "layout": "NHWC",
        "pixels": plan.pixels,
        "batch": plan.batch or "any",
        "input": f"{plan.pixels} [B, {image_size}, {image_size}, 3], RGB, {levels}",
        "output": "float32 [B, K], logits in the order of classes",
        "apr_jax": apr_jax.__version__,
        "jax": jax.__version__,
    }


# --- Formats -------------------------------------------------------------------------

_Written = tuple[bytes, dict[str, Any]]


def _stablehlo(
    logits: Callable[..., Any], shape: Any, plan: Plan, about: Mapping[str, Any]
) -> _Written:
    del about
    # A function of its own, as a trace of the same one may be for this host alone.
    found = export.export(jax.jit(lambda images: logits(images)), platforms=PLATFORMS)(
        shape
    )
    contents = bytes(found.serialize(vjp_order=int(plan.gradients)))
    return contents, {
        "platforms": list(PLATFORMS),
        "gradients": plan.gradients,
        "calling_convention": found.calling_convention_version,
    }


def _onnx(
    logits: Callable[..., Any], shape: Any, plan: Plan, about: Mapping[str, Any]
) -> _Written:
    del plan
    try:
        import jax2onnx
        import onnxruntime  # noqa: F401  what the file is checked by
    except ImportError as error:
        raise ConfigError(
            f"to='onnx' needs {error.name}, which is not installed here: pip install "
            "'apr_jax[onnx]'"
        ) from error
    logging.getLogger("onnx_ir").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of jax2onnx, for those who write it
        model = jax2onnx.to_onnx(
            lax_only.rewritten(logits, shape),
            [shape],
            model_name="network",
            opset=OPSET,
            input_names=[_INPUT],
            output_names=[_OUTPUT],
        )
    model = _folded(model)
    for key, value in about.items():
        text = value if isinstance(value, str) else json.dumps(value)
        model.metadata_props.add(key=key, value=text)
    version = importlib.metadata.version("jax2onnx")
    return model.SerializeToString(), {"opset": OPSET, "jax2onnx": version}


def _folded(model: Any) -> Any:
    """The same network with all that is constant computed: kernels as ONNX has them.

    Programs that read ONNX look for a convolution's kernel among the constants, where
    what transposes one would hide it.
    """
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    basic = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.graph_optimization_level = basic
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "folded.onnx"
        options.optimized_model_filepath = str(path)
        onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        found = onnx.load(path)
    used = {node.domain for node in found.graph.node}  # it names all that it knows
    named = [own for own in found.opset_import if own.domain in used]
    del found.opset_import[:]
    found.opset_import.extend(named)
    return found


_WRITERS = {"stablehlo": _stablehlo, "onnx": _onnx}


def _read(path: pathlib.Path, form: str) -> Callable[[Any], Any]:
    if form == "stablehlo":
        found: Callable[[Any], Any] = export.deserialize(
            bytearray(path.read_bytes())
        ).call
        return found
    try:
        import onnxruntime
    except ImportError as error:
        raise ConfigError(
            "to read ONNX onnxruntime is needed: pip install onnxruntime"
        ) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what is wrong it raises, too
    session = onnxruntime.InferenceSession(
        path.read_bytes(), options, providers=["CPUExecutionProvider"]
    )
    return lambda images: session.run(None, {_INPUT: np.asarray(images)})[0]


@contextlib.contextmanager
def _saying(plan: Plan) -> Iterator[None]:
    """Says in a line what a format can't have.

    Raises:
        ArgumentError: it can't.
    """
    try:
        yield
    except (UserError, OSError):
        raise
    except Exception as error:  # of all that tracing and writing may raise
        text = " ".join(words(error).split())[:_LONGEST]
        free = "" if plan.batch else "; with a fixed number of images (batch) it may"
        raise ArgumentError(
            f"this network can't be written as {plan.to}{free}: "
            f"{type(error).__name__}: {text}"
        ) from error


# --- The check -----------------------------------------------------------------------


def _compared(
    read: Callable[[Any], Any], logits: Callable[..., Any], shape: Any
) -> Compared:
    """Compares a few images, together and, where the number is free, alone.

    Raises:
        ArgumentError: the logits differ by more than rounding, or aren't finite.
    """
    rows = shape.shape[0]
    images = checks.probes(shape.shape[1])
    if isinstance(rows, int):
        images = np.resize(images, (rows, *images.shape[1:]))
    if shape.dtype != np.uint8:
        images = images.astype(np.float32) / 255
    wanted = np.asarray(jax.jit(logits)(jnp.asarray(images)), np.float64)
    if bad := answers.not_finite(wanted):
        raise ArgumentError(
            f"{bad} of {wanted.size} logits of the network itself are not finite, for "
            "patterns in [0, 1]"
        )
    batches = [images] if isinstance(rows, int) else [images, images[:1]]
    worst = 0.0
    for some in batches:
        found = np.asarray(read(some), np.float64)
        if found.shape != wanted[: len(some)].shape:
            raise ArgumentError(
                f"loaded again the network answers {list(found.shape)}, not "
                f"{list(wanted[: len(some)].shape)}"
            )
        worst = max(worst, float(np.abs(found - wanted[: len(some)]).max()))
    if not worst <= _ROUNDING * float(np.std(wanted)) + 1e-6:
        raise ArgumentError(
            f"loaded again the network gives other logits, by up to {worst:.3g} of "
            f"{np.abs(wanted).max():.3g}"
        )
    return Compared(len(images), worst, float(np.abs(wanted).max()))
