"""FGSM adversarial training on CIFAR-10: the networks of the paper's Table 3.

``--config configs/cifar10_fgsm.py:METHOD`` with standard, cutout, apr_p, apr_s or
apr_sp (the default).
"""

from apr_jax import presets

get_config = presets.cifar10_fgsm
