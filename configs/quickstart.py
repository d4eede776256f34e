"""Handwritten digits over photographs, offline, in minutes on two cores.

In training the background tells the class most of the time; in the split
"test_shifted" it doesn't. ``--config configs/quickstart.py:standard`` learns the
background, ``:apr_sp`` (the default) rather the digit. Both are then measured under
corruptions.
"""

from apr_jax import presets

get_config = presets.quickstart
