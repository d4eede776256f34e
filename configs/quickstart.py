"""Handwritten digits over photographs, offline, in minutes on two cores.

In training the background tells the class most of the time; in the split
"test_shifted" it doesn't. ``--config configs/quickstart.py:standard`` learns the
background, ``:apr_sp`` (the default) rather the digit. Both are then measured under
corruptions.
"""

import ml_collections

from configs import base

# All but frost, which needs photographs from elsewhere.
_CORRUPTIONS = (
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
)


def get_config(method: str = "apr_sp") -> ml_collections.ConfigDict:
    """Returns the quick start; ``method`` follows the file name and a colon."""
    config = base.get_config()
    config.name = f"quickstart_{method}"
    config.data.update(
        source="bundled",
        name="bundled",
        shifted_splits=("test_shifted",),
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
    )
    config.augment.method = method
    config.augment.flip = False  # a mirrored digit is another sign
    config.model.name = "wrn_10_1"
    config.optim.update(epochs=4.0, schedule="cyclic", peak=0.3)
    config.train.log_every = 20
    config.checkpoint.every_steps = 100
    config.eval.update(
        parts=("clean", "corruption"),
        corruptions=_CORRUPTIONS,
        corruption_examples=200,
    )
    return config
