"""ResNet-50 on ImageNet with APR-SP: the paper's mCE of 65.0 % on ImageNet-C.

Another method follows the file name and a colon, perhaps joined by "+" to images that
others made of ImageNet, whose folders of CLASS/IMAGE.jpg the command line names:

    --config configs/imagenet_resnet50_aprsp.py:deepaugment+apr_sp
    --config.data.extra_dirs="('DEEPAUGMENT/EDSR', 'DEEPAUGMENT/CAE')"
"""

from apr_jax import presets

get_config = presets.imagenet_resnet50
