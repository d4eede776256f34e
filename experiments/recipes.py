"""Configurations of short trainings, and changed ones."""

from typing import Any

import ml_collections


def changed(
    settings: ml_collections.ConfigDict, **changes: Any
) -> ml_collections.ConfigDict:
    """A copy of a configuration with fields changed: ``optim__epochs=3.0``."""
    copy = ml_collections.ConfigDict(settings.to_dict())
    copy.update_from_flattened_dict(
        {field.replace("__", "."): value for field, value in changes.items()}
    )
    return copy


def short(
    settings: ml_collections.ConfigDict, *, model: str, epochs: float, method: str
) -> ml_collections.ConfigDict:
    """A configuration for a short training: one cycle of the learning rate."""
    return changed(
        settings,
        model__name=model,
        augment__method=method,
        optim__epochs=float(epochs),
        optim__schedule="cyclic",
        optim__peak=0.3,
        optim__learning_rate=0.2,
        checkpoint__every_steps=500,
    )
