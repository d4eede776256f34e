"""The gates of public functions: what a caller may give, checked in one place.

``knobs`` lets numbers and names in that say how something is computed, ``images``
pixels and random keys, ``answers`` what networks answer: logits, labels, features. What
can't be used raises ``ArgumentError``, or ``TypeError`` for a type, with the argument's
name, its value and what it may be. Under ``jit`` shapes and types are checked, and
values where they are known. ``places``, ``stores`` and ``processes`` are those of
command lines, without JAX, and raise ``ConfigError``.
"""
