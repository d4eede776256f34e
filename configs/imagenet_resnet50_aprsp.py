"""ResNet-50 on ImageNet with APR-SP: the paper's mCE of 65.0 % on ImageNet-C.

Another method follows the file name and a colon, perhaps joined by "+" to images that
others made of ImageNet, whose folders of CLASS/IMAGE.jpg the command line names:

    --config configs/imagenet_resnet50_aprsp.py:deepaugment+apr_sp
    --config.data.extra_dirs="('DEEPAUGMENT/EDSR', 'DEEPAUGMENT/CAE')"
"""

import ml_collections

from configs import base

# Images made of ImageNet's -> how many of each: in one other style, and by the two
# networks of DeepAugment.
EXTRA = {"stylized": 1, "deepaugment": 2}


def extra_ratio(*names: str) -> float:
    """Returns the share of sets of ``EXTRA`` in their union with ImageNet."""
    extra = sum(EXTRA[name] for name in names)
    return extra / (1 + extra)


def get_config(method: str = "apr_sp") -> ml_collections.ConfigDict:
    """Returns the ImageNet recipe.

    Args:
        method: of ``apr_jax.augment.AUGMENTS``, of ``EXTRA``, or several joined by "+".
            What is mixed in of ``EXTRA`` alone is trained on without augmentation.
    """
    parts = method.split("+")
    mixed = [part for part in parts if part in EXTRA]
    config = base.get_config()
    config.name = f"imagenet_resnet50_{method}"
    config.data.name = "imagenet2012"
    config.data.test_split = "validation"
    config.data.image_size = 224
    config.data.eval_resize = 256
    config.data.streaming = True
    config.data.extra_ratio = extra_ratio(*mixed)
    config.data.mean = (0.485, 0.456, 0.406)
    config.data.std = (0.229, 0.224, 0.225)
    config.augment.method = "+".join(p for p in parts if p not in EXTRA) or "standard"
    config.augment.crop_pad = 0  # the input pipeline crops and resizes
    config.augment.pair_prob = 0.5
    config.augment.strengths = "imagenet"
    if any(part.startswith("hybrid_augment") for part in parts):
        config.augment.pair_prob = 0.6
    if "mixup" in parts:
        config.augment.mix_alpha = 0.2
    config.model.name = "resnet50"
    config.model.dtype = "bfloat16"
    config.optim.nesterov = False
    config.optim.weight_decay = 1e-4
    config.optim.epochs = 100.0
    config.optim.milestones = (30.0, 60.0, 90.0)
    config.optim.gamma = 0.1
    config.train.batch_size = 256
    config.checkpoint.every_steps = 5000
    config.eval.batch_size = 512
    return config
