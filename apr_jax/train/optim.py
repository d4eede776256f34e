"""Learning-rate schedules and optimisers.

Source: the training recipes of Chen et al., ICCV 2021 (section 5 and the released
settings), for "cyclic" those of Wong et al., ICLR 2020, and for its ends above zero,
decay by the step and a rate for BatchNorm's biases that of Jordan, arXiv:2404.00498.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import optax
from flax import traverse_util

from apr_jax import config as config_lib

Schedule: TypeAlias = Callable[[Any], Any]  # step -> learning rate


def _constant(optim: config_lib.Optim, epoch_steps: float) -> Schedule:
    return optax.constant_schedule(optim.learning_rate)


def _multistep(optim: config_lib.Optim, epoch_steps: float) -> Schedule:
    boundaries = {round(m * epoch_steps): optim.gamma for m in optim.milestones}
    return optax.piecewise_constant_schedule(optim.learning_rate, boundaries)


def _cosine(optim: config_lib.Optim, epoch_steps: float) -> Schedule:
    steps = max(1, round((optim.epochs - optim.warmup_epochs) * epoch_steps))
    return optax.cosine_decay_schedule(optim.learning_rate, steps)


def _cyclic(optim: config_lib.Optim, epoch_steps: float) -> Schedule:
    steps = max(1.0, optim.epochs * epoch_steps)
    knots = jnp.array([0.0, optim.peak * steps, steps])
    rates = jnp.array([optim.start, 1.0, optim.end]) * optim.learning_rate
    return lambda step: jnp.interp(step, knots, rates)


SCHEDULES: dict[str, Callable[[config_lib.Optim, float], Schedule]] = {
    "constant": _constant,
    "multistep": _multistep,
    "cosine": _cosine,
    "cyclic": _cyclic,
}


def schedule(optim: config_lib.Optim, epoch_steps: float) -> Schedule:
    """Returns the learning rate as a function of the step.

    Args:
        optim: which schedule and its numbers; ``milestones`` and
            ``warmup_epochs`` are in epochs.
        epoch_steps: steps an epoch takes, not necessarily a whole number.

    Raises:
        ValueError: the schedule's name is unknown.
    """
    if optim.schedule not in SCHEDULES:
        raise ValueError(
            f"optim.schedule is {optim.schedule!r}; choose from {', '.join(SCHEDULES)}"
        )
    main = SCHEDULES[optim.schedule](optim, epoch_steps)
    warmup = round(optim.warmup_epochs * epoch_steps)
    if warmup == 0 or optim.schedule == "cyclic":
        return main
    if optim.schedule == "cosine":
        rise = optax.linear_schedule(0.0, optim.learning_rate, warmup)
        return optax.join_schedules([rise, main], [warmup])
    # Milestones count from the start of the run, warm-up included.
    return lambda step: main(step) * jnp.minimum(1.0, step / warmup)


# The parameters that weight decay acts on; None: all of them.
MASKS: dict[str, Callable[[Any], Any] | None] = {
    "all": None,
    "weights": lambda params: jax.tree.map(lambda leaf: leaf.ndim > 1, params),
}


def _sgd(optim: config_lib.Optim, rate: Schedule) -> optax.GradientTransformation:
    """SGD with momentum and weight decay, step for step PyTorch's.

    The decay is added to the gradient before the momentum (the coupled form) and
    acts on every parameter, biases and BatchNorm's included, as in the paper's code,
    unless ``decay_on`` says otherwise.
    With ``decay_per`` "step" it is divided by the highest rate that the parameter has,
    so that at this rate a step takes off ``weight_decay``, whatever the rate is.

    The rate of BatchNorm's biases is multiplied by ``norm_bias_rate``. Where that isn't
    1, ``update`` must be given ``batch_stats`` of the network, whose paths tell them.
    """
    decay, factor = optim.weight_decay, optim.norm_bias_rate
    mask = MASKS[optim.decay_on]
    if optim.decay_per == "step":
        decay /= optim.learning_rate
    decayed: optax.GradientTransformation
    if factor == 1 or mask is not None:  # which leaves BatchNorm's biases alone
        decayed = optax.add_decayed_weights(decay, mask)
    else:
        own = factor if optim.decay_per == "step" else 1.0
        add = lambda f, update, param: update + decay / f * param
        decayed = _by_parameter(add, own)
    parts = [
        decayed,
        optax.trace(decay=optim.momentum, nesterov=optim.nesterov),
        optax.scale_by_learning_rate(rate),
    ]
    if factor != 1:
        parts.append(_by_parameter(lambda f, update, _: f * update, factor))
    return optax.chain(*parts)


def _adamw(optim: config_lib.Optim, rate: Schedule) -> optax.GradientTransformation:
    """Adam with decoupled weight decay, step for step PyTorch's.

    Loshchilov and Hutter, arXiv:1711.05101. A step takes off the rate times
    ``weight_decay``; ``momentum`` and ``beta2`` are the decays of the two moments.
    """
    mask = MASKS[optim.decay_on]
    return optax.adamw(
        rate, optim.momentum, optim.beta2, weight_decay=optim.weight_decay, mask=mask
    )


OPTIMIZERS: dict[
    str, Callable[[config_lib.Optim, Schedule], optax.GradientTransformation]
] = {"sgd": _sgd, "adamw": _adamw}


def make_optimizer(
    optim: config_lib.Optim, rate: Schedule
) -> optax.GradientTransformation:
    """Returns the optimiser of a configuration.

    Gradients are those of the whole batch. With ``clip`` their norm over all parameters
    is at most that. With ``accumulate`` they are averaged over so many steps, at the
    last of which alone the parameters move.

    Args:
        optim: which one and its numbers.
        rate: the learning rate as a function of the step of training.
    """
    every = optim.accumulate
    of_updates = rate if every == 1 else lambda count: rate(every * count)
    made = OPTIMIZERS[optim.name](optim, of_updates)
    if optim.clip:
        made = optax.chain(optax.clip_by_global_norm(optim.clip), made)
    if every > 1:
        steps = optax.MultiSteps(made, every)
        made = optax.GradientTransformationExtraArgs(steps.init, steps.update)
    return made


def _by_parameter(
    change: Callable[[float, Any, Any], Any], factor: float
) -> optax.GradientTransformationExtraArgs:
    """``change`` of (factor, update, parameter); 1 but for BatchNorm's biases."""

    def update(
        updates: Any, state: Any, params: Any = None, *, batch_stats: Any, **_: Any
    ) -> tuple[Any, Any]:
        layers = {path[:-1] for path in traverse_util.flatten_dict(dict(batch_stats))}

        def one(path: Any, update: Any, param: Any) -> Any:
            *layer, leaf = (part.key for part in path)
            own = leaf == "bias" and tuple(layer) in layers
            return change(factor if own else 1.0, update, param)

        return jax.tree_util.tree_map_with_path(one, updates, params), state

    return optax.GradientTransformationExtraArgs(lambda _: optax.EmptyState(), update)
