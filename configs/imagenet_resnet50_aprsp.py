"""ResNet-50 on ImageNet with APR-SP: the paper's mCE of 65.0 % on ImageNet-C."""

import ml_collections

from configs import base


def get_config(method: str = "apr_sp") -> ml_collections.ConfigDict:
    """Returns the ImageNet recipe; ``method`` may follow the file name and a colon."""
    config = base.get_config()
    config.name = f"imagenet_resnet50_{method}"
    config.data.name = "imagenet2012"
    config.data.test_split = "validation"
    config.data.image_size = 224
    config.data.eval_resize = 256
    config.data.streaming = True
    config.data.mean = (0.485, 0.456, 0.406)
    config.data.std = (0.229, 0.224, 0.225)
    config.augment.method = method
    config.augment.crop_pad = 0  # the input pipeline crops and resizes
    config.augment.pair_prob = 0.5
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
