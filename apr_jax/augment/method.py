"""What a training method is made of: stages, and the kind of loss."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any


@dataclasses.dataclass(frozen=True, eq=False)
class Stage:
    """A function of this package as a training method takes it.

    Attributes:
        function: (keys, images [B, H, W, C], **knobs) -> images, or ``Mixed``.
        knobs: knob -> field of the run's configuration, such as "augment.axes".
        strengths: name of ``augment.strengths`` -> knobs -> the values that the
            authors chose for that data set; where there is none, the function's own
            defaults, for CIFAR-10.
        pixels: ``Method.after`` only: images come as pixels in [0, 1]; otherwise as
            they are, uint8 unless a stage before made pixels of them.
        per: ``Method.pair`` only: "image" for one key each, "batch" for one of all, ""
            for what ``augment.pair_per`` says.
        takes: ``Method.pair`` and ``mix`` only: the fields of
            ``apr_jax.train.image_pairs.Donors`` that are further arguments.
        whole: ``Method.pair`` only: with the probability ``augment.pair_prob`` the
            whole amplitude is the donor's, and so is its label then.
    """

    function: Callable[..., Any]
    knobs: Mapping[str, str] = dataclasses.field(default_factory=dict)
    strengths: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    pixels: bool = False
    per: str = ""
    takes: tuple[str, ...] = ("donors", "donor_index")
    whole: bool = False


@dataclasses.dataclass(frozen=True)
class Loss:
    """The kind of loss of a method; formulas are in ``apr_jax.train.losses``.

    Attributes:
        views: views of each image through ``Method.after``.
        alike: whether it asks for like answers on them and on the image before
            ``Method.after``, which is then the first view.
        heads: linear layers of the network for each class.
        projects: whether it compares projections of the features, which the network
            then has, and a linear layer learns from features that it does not change
            (``apr_jax.train.contrastive``).
    """

    views: int = 1
    alike: bool = False
    heads: int = 1
    projects: bool = False


CROSS_ENTROPY = Loss()
# Phase labels and amplitude labels apart, by two linear layers (equation 7).
HEADS = Loss(heads=2)
# Like answers on three views of an image.
JENSEN_SHANNON = Loss(views=2, alike=True)
# Like features of images of one class.
CONTRASTIVE = Loss(views=2, projects=True)


# Of every method.
_ALWAYS = frozenset(
    f"augment.{field}"
    for field in (
        *("method", "label_smoothing", "flip", "flip_by"),
        *("crop_pad", "crop_fill", "crop_edge"),
    )
)


@dataclasses.dataclass(frozen=True)
class Method:
    """A training method: all that it does beside crop and flip.

    Attributes:
        about: what the network sees, in a line.
        source: whose it is.
        single: the stage of each image before the crop, on grey levels.
        after: the stages of each image after crop and flip, in this order.
        mix: the stage that blends images and labels of the batch.
        pair: a second view of the batch, with a loss of its own. Its labels are the
            images' own.
        features: the stage that blends features of the batch, and labels, at a random
            depth of the network; ``apr_jax.train.feature_mixing``.
        last: the stage of every view behind all others, which also says what share of
            its label is to be spread over all classes.
        loss: the kind of loss that is minimised.
        shifts: quarter turns of each image, from none on, each of which counts as
            another class; for a loss that projects.
        mean: whether the losses of views are averaged; they are added otherwise.
        instead: the pair takes the place of the first view, so that the network sees
            each image once.
        auxiliary: the pair goes through BatchNorm layers of its own, which are for
            training only.
    """

    about: str = dataclasses.field(default="", compare=False)
    source: str = dataclasses.field(default="", compare=False)
    single: Stage | None = None
    after: tuple[Stage, ...] = ()
    mix: Stage | None = None
    pair: Stage | None = None
    features: Stage | None = None
    last: Stage | None = None
    loss: Loss = CROSS_ENTROPY
    shifts: int = 1
    mean: bool = False
    instead: bool = False
    auxiliary: bool = False

    @property
    def heads(self) -> int:
        """Linear layers of the network, each with an output for each class."""
        # With turns one for the classes, and one for the classes in each turn.
        return 1 + self.shifts if self.shifts > 1 else self.loss.heads

    @property
    def stages(self) -> tuple[Stage, ...]:
        """All of its stages."""
        found = self.single, *self.after, self.mix, self.pair, self.features, self.last
        return tuple(stage for stage in found if stage)

    @property
    def compares(self) -> bool:
        """Whether the network sees an image of one label and its pair."""
        return self.pair is not None and not (self.mix or self.instead)

    @property
    def fields(self) -> frozenset[str]:
        """The fields of ``config.Augment`` that change something, by dotted names."""
        used = {field for stage in self.stages for field in stage.knobs.values()}
        partnered = [stage for stage in (self.mix, self.pair, self.features) if stage]
        for field, uses in (
            ("strengths", any(stage.strengths for stage in self.stages)),
            ("pair_donors", any(stage.takes for stage in partnered)),
            ("pair_consistency", self.compares),
            ("pair_prob", self.pair and self.pair.whole),
            ("pair_per", self.pair and self.pair.whole and not self.pair.per),
            ("heads_weight", self.loss.heads > 1),
            ("jsd_weight", self.loss.alike),
            ("mix_prob", self.mix),
            ("mix_depth", self.features),
            ("mix_alpha", self.features),
        ):
            if uses:
                used.add(f"augment.{field}")
        return _ALWAYS | {field for field in used if field.startswith("augment.")}

    @property
    def views(self) -> int:
        """Images that the network sees of each one in a step."""
        if self.loss.projects:
            return self.loss.views * self.shifts
        beside = self.pair is not None and not self.instead
        return self.loss.views + self.loss.alike + beside
