"""Networks of PyTorch and ONNX as functions of arrays, by torchax.

torchax runs a PyTorch module on JAX arrays: the same logits and gradients, compiled.
It wants certain versions of PyTorch, so it has an environment of its own
(``requirements-torchax.txt``), and is imported where it is wanted.
"""

import os
import pathlib
from typing import Any

import jax
import numpy as np

from apr_jax.errors import ArgumentError, DataError, words
from apr_jax.foreign.network import Network
from apr_jax.gates import places

_NEEDS = (
    "{what} needs {missing}, which is not installed here: pip install "
    '"apr_jax[train,torch]" in an environment of its own. With on_host=True PyTorch '
    "itself computes, without gradients"
)


def of_torch(module: Any, *, on_host: bool = False, layout: str = "NCHW") -> Network:
    """A PyTorch module that answers images with logits, or with their ``logits``.

    Args:
        module: a ``torch.nn.Module`` in evaluation mode.
        on_host: whether PyTorch itself computes; then there is no gradient.
        layout: of its images, "NCHW" or "NHWC".

    Raises:
        ArgumentError: it is no module or in training mode, or there is no torchax.
    """
    import torch

    if not isinstance(module, torch.nn.Module):
        raise ArgumentError(f"module is a {type(module).__name__}, no torch.nn.Module")
    learning = [name for name, part in module.named_modules() if part.training]
    if learning:
        first = f"its part {learning[0]!r}" if learning[0] else "it"
        raise ArgumentError(f"{first} is in training mode: call module.eval() first")
    whole = _wrapped(torch, module)
    if on_host:

        def ask(_: Any, images: np.ndarray) -> np.ndarray:
            with torch.no_grad():
                found = whole(torch.from_numpy(np.array(images)))
            answers: np.ndarray = found.float().cpu().numpy()
            return answers

        return Network(ask, {}, layout)
    try:
        import torchax
    except ImportError as error:
        text = _NEEDS.format(what="from_torch", missing="torchax")
        raise ArgumentError(text) from error
    variables, function = torchax.extract_jax(whole)

    def apply(variables: Any, images: jax.Array) -> Any:
        return function(variables, (images,))

    return Network(apply, variables, layout)


def of_onnx(
    model: str | os.PathLike[str] | Any, *, on_host: bool = False, layout: str = "NCHW"
) -> Network:
    """A network in a file of ONNX, or an ``onnx.ModelProto``, by onnx2torch.

    Args:
        model: its one input is images, its first output logits.
        on_host: whether ``onnxruntime`` computes; then there is no gradient.
        layout: of its images, "NCHW" or "NHWC".

    Raises:
        ArgumentError: a package is missing, or onnx2torch lacks an operator.
        DataError: the file can't be read.
    """
    path = None
    if isinstance(model, str | os.PathLike):
        path = places.local(os.fspath(model), "model")
        if not path.is_file():
            raise DataError(f"model is {os.fspath(model)!r}, which isn't there")
    if on_host:
        return _by_onnxruntime(path, model, layout)
    try:
        import onnx
        import onnx2torch
    except ImportError as error:
        text = _NEEDS.format(what="from_onnx", missing=error.name)
        raise ArgumentError(text.replace("PyTorch itself", "onnxruntime")) from error
    try:
        module = onnx2torch.convert(onnx.load(path) if path else model)
    except Exception as error:  # of an operator, or of what it expects beside one
        raise ArgumentError(
            f"onnx2torch can't take this network: {type(error).__name__}: "
            f"{words(error)}. With on_host=True onnxruntime computes, without gradients"
        ) from error
    network = of_torch(module.eval(), layout=layout)

    def first(variables: Any, inputs: Any) -> Any:
        """Probabilities beside logits aren't features."""
        found = network.apply(variables, inputs)
        return found[0] if isinstance(found, tuple | list) else found

    return network._replace(apply=first)


def _by_onnxruntime(path: pathlib.Path | None, model: Any, layout: str) -> Network:
    try:
        import onnxruntime
    except ImportError as error:
        raise ArgumentError("on_host=True needs onnxruntime: pip install it") from error
    session = onnxruntime.InferenceSession(
        os.fspath(path) if path else model.SerializeToString(),
        providers=["CPUExecutionProvider"],
    )
    (given,) = session.get_inputs()
    ask = lambda _, images: session.run(None, {given.name: np.array(images)})[0]
    return Network(ask, {}, layout)


def _wrapped(torch: Any, module: Any) -> Any:
    """The same module; of an output with ``logits``, as transformers' have, those."""

    class Logits(torch.nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.inner = module

        def forward(self, images: Any) -> Any:
            found = self.inner(images)
            return getattr(found, "logits", found)

    return Logits().eval()
