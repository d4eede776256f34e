"""Any network, method and data set: ``--config configs/cifar.py:MODEL,METHOD,SET``.

For example ``--config configs/cifar.py:resnext29_32x4,apr_sp,cifar100``. What is left
out is wrn_40_2, apr_sp, cifar10.
"""

from apr_jax import presets

get_config = presets.cifar
