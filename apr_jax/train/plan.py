"""The plan of a run, resolved and checked before any long work starts."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from apr_jax import augment, data, models, network, parallel
from apr_jax import config as config_lib
from apr_jax.console import say
from apr_jax.data import imagenet, samples
from apr_jax.errors import ConfigError
from apr_jax.gates import stores
from apr_jax.pixels import normalise, to_pixels
from apr_jax.runs import checkpoint, wandb_run
from apr_jax.runs import workdir as workdir_lib
from apr_jax.train import (
    contrastive,
    feature_mixing,
    init_from,
    optim,
    overfitting,
    watch,
)
from apr_jax.train.state import TrainState, state_of

# On an accelerator so many steps go into one call, and the last call has what is left:
# enough to hide the host's work, few enough to answer a signal within a second or two.
_STEPS_PER_CALL = 25
# Training images that a network takes its constants from; the number is Jordan's.
_SAMPLE = 5000


@dataclasses.dataclass(frozen=True)
class Plan:
    """The plan of a run, resolved before any long work starts."""

    config: config_lib.Config
    run: workdir_lib.RunDir
    layout: parallel.Layout
    class_names: tuple[str, ...]
    mix: data.Mix  # of the training images
    resident: data.DataSet | None  # None: the images are streamed
    rows: np.ndarray | None  # of ``training_images``; None: all of them
    model: nn.Module

    @property
    def train_size(self) -> int:
        """Images of the training split; an epoch has so many."""
        return self.mix.main

    @property
    def epoch_steps(self) -> float:
        """Steps an epoch takes; not necessarily a whole number."""
        return self.train_size / self.config.train.batch_size

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return max(1, round(self.config.optim.epochs * self.epoch_steps))

    @property
    def rate(self) -> optim.Schedule:
        """The learning rate as a function of the step."""
        return contrastive.schedule(self.config, self.epoch_steps, self.total_steps)

    def stage_end(self, step: int) -> int:
        """The last step of the stage of training that goes on from ``step``."""
        first = contrastive.linear_start(self.config, self.total_steps)
        return first if step < first else self.total_steps

    @property
    def steps_per_call(self) -> int:
        """Steps between two looks of the host."""
        asked = self.config.train.steps_per_call
        if self.resident is None:
            return 1
        if asked:
            return asked
        return _STEPS_PER_CALL if self.layout.accelerated else 1


def plan(config: config_lib.Config, workdir: stores.Place) -> Plan:
    """Checks everything that can be checked and loads the data.

    Raises:
        ConfigError: a field can't be used; the message names it, its value and the
            choices. Names, sizes and the work directory are checked before data are
            read.
        DataError: the data aren't there or can't be used.
    """
    config_lib.check(config)
    check_names(config)
    watch.check(config)
    wandb_run.check(config)
    overfitting.check(config)
    layout = parallel.make_layout(config.train.devices, config.train.mapping)
    parallel.check_batch("train.batch_size", config.train.batch_size, layout)
    parallel.check_batch("eval.batch_size", config.eval.batch_size, layout)
    _check_pixels(config, layout)
    run = workdir_lib.prepare(workdir, config, write=parallel.is_primary())
    if config.train.init_from and not run.checkpoints.exists():
        init_from.check(config)
    rows = None
    if config.data.streaming:
        resident, names = None, imagenet.class_names(config.data)
        mix = imagenet.mix(config.data)
    else:
        resident = data.load(config.data)
        names = tuple(resident.class_names)
        size = len(resident.splits[config.data.train_split].labels)
        further = 0 if resident.extra is None else len(resident.extra.labels)
        if config.adversary.held_out:
            kept = samples.hold_out(size, config.adversary.held_out)[0]
            rows = np.r_[kept, size + np.arange(further, dtype=np.int32)]
            size = len(kept)
        mix = data.Mix(size, further, config.data.extra_ratio)
    if config.train.batch_size > mix.main:
        raise ConfigError(
            f"train.batch_size is {config.train.batch_size}; there are only {mix.main} "
            f"images in data.train_split {config.data.train_split!r}"
        )
    found = Plan(
        config=config,
        run=run,
        layout=layout,
        class_names=names,
        mix=mix,
        resident=resident,
        rows=rows,
        model=network.make_model(
            config,
            num_classes=len(names),
            sync_axis=parallel.AXIS if config.train.sync_batch_norm else None,
        ),
    )
    if len(names) < 2:
        raise ConfigError(
            f"{config.data.name or config.data.source!r} has {len(names)} class, "
            f"{', '.join(names)}; there is nothing to tell apart"
        )
    if config.optim.accumulate > found.total_steps:
        raise ConfigError(
            f"optim.accumulate is {config.optim.accumulate}; there are only "
            f"{found.total_steps} steps, so that nothing would be learned"
        )
    _check_memory(found)
    feature_mixing.check(found.model, config, layout.count)
    images = {
        "data": data.fingerprint(config.data, resident),
        "test": data.eval_fingerprint(config.data, resident),
    }
    if parallel.is_primary():
        before = workdir_lib.claim(
            run, config, names, images=images, devices=layout.count
        )
        if before not in (0, layout.count):
            say(
                f"this run was on {before} devices before, and goes on with "
                f"{layout.count}: its numbers are another run's in their last digits"
            )
    else:
        workdir_lib.check_images(run, config, images)
    return found


def check_names(config: config_lib.Config) -> None:
    """Raises ConfigError unless method and model exist and fit the images."""
    size = config.data.image_size
    try:
        field = "augment.method"
        method = augment.get_method(config.augment.method)
        if method.auxiliary and config.model.norm == "none":
            raise ValueError(
                f"{config.augment.method!r} needs a second BatchNorm, and with "
                "model.norm 'none' there is no first"
            )
        contrastive.check(config)
        field = "augment.pair_consistency"
        weight = config.augment.pair_consistency
        if weight and not method.compares:
            raise ValueError(
                f"{weight:g} is for methods with a pair of each image, such as apr_p "
                "and apr_sp, beside it and without blended labels, not "
                f"{config.augment.method!r}"
            )
        field = "model.name"
        models.minimum_size(config.model.name)
        models.build(
            config.model.name,
            num_classes=1,
            dropout=config.model.dropout,
            norm=config.model.norm,
        )
        field = "data.image_size"
        models.check_image_size(config.model.name, size, size)
    except ValueError as error:
        raise ConfigError(f"{field}: {error}") from error


def initial_state(plan: Plan) -> TrainState:
    """Returns the state before the first step, as NumPy arrays."""
    state = state_of(plan.config, plan.model)
    if state.fixed:
        images = normalise(to_pixels(jnp.asarray(sample(plan))), plan.config.data)
        constants = plan.model.constants_of(np.asarray(images))
        state = state.replace(constants=constants)
    return jax.tree.map(np.asarray, state)


def sample(plan: Plan) -> np.ndarray:
    """Returns training images of a run that a network takes its constants from.

    uint8 [N, H, W, C], not augmented: a draw of the main set without what is held out,
    the same one for every seed and on every process.
    """
    data_of, split = plan.config.data, plan.config.data.train_split
    if plan.resident is None:
        return samples.load(data_of, split, examples=_SAMPLE, seed=0).images
    places = samples.subset(plan.mix.main, _SAMPLE, 0)
    if plan.rows is not None:
        places = plan.rows[places]
    return np.asarray(plan.resident.splits[split].images[places])


def parameter_count(plan: Plan) -> int:
    """Returns how many numbers the network learns."""
    state = jax.eval_shape(lambda: state_of(plan.config, plan.model))
    return sum(leaf.size for leaf in jax.tree.leaves(state.params))


# The copies of a network's numbers that training holds at least: the weights, their
# gradients, and the optimizer's momentum, or both moments.
_COPIES = {"sgd": 3, "adamw": 4}


def _check_pixels(config: config_lib.Config, layout: parallel.Layout) -> None:
    """Raises ConfigError where a device can't hold the images of a step alone."""
    side, size = config.data.image_size, config.train.batch_size
    device = layout.local[0]
    there = parallel.memory(device)
    needed = 4 * 3 * side**2 * size // layout.count
    if there is not None and needed > there:
        raise ConfigError(
            f"data.image_size is {side}, train.batch_size {size}: the pixels of a step "
            f"alone take {needed / 1e9:,.0f} GB of a device, and {device.device_kind} "
            f"has {there / 1e9:,.0f} GB"
        )


def _check_memory(plan: Plan) -> None:
    """Raises ConfigError where a device can't hold the network, whatever the batch."""
    count, device = parameter_count(plan), plan.layout.local[0]
    there = parallel.memory(device)
    own = plan.config.optim
    needed = 4 * (_COPIES[own.name] + (own.accumulate > 1)) * count
    if there is not None and needed > there:
        raise ConfigError(
            f"model.name is {plan.config.model.name!r}, a network of {count:,} "
            f"parameters: to train it takes {needed / 1e9:,.0f} GB and more, and "
            f"{device.device_kind} has {there / 1e9:,.0f} GB"
        )


def open_checkpoints(plan: Plan) -> checkpoint.Checkpoints:
    """Returns the checkpoints of a run, which are to be closed."""
    return checkpoint.Checkpoints(
        plan.run.checkpoints,
        keep=plan.config.checkpoint.keep,
        owner=config_lib.config_hash(plan.config),
    )


def saved_step(plan: Plan) -> int:
    """Returns the step of the newest checkpoint, 0 if there is none."""
    saved = checkpoint.Reader(
        plan.run.checkpoints, owner=config_lib.config_hash(plan.config)
    )
    steps = saved.steps
    saved.close()
    return steps[-1] if steps else 0
