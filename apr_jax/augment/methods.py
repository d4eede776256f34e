"""The training methods by name: which augmentations, and which loss goes with them."""

import dataclasses
import functools

# Where the label of a second view of the batch comes from.
LOSSES = ("cross_entropy", "jensen_shannon", "heads", "contrastive")


@dataclasses.dataclass(frozen=True)
class Method:
    """What a training method does beside crop and flip.

    Attributes:
        single: what happens to each image before the crop, "" for nothing; a name of
            ``apr_jax.train.single_image.SINGLES``.
        after: what happens to each image after crop and flip, in this order; names of
            ``apr_jax.train.single_image.IMAGE_STAGES``.
        mix: how images and labels of the batch are blended, "" for not at all; a name
            of ``apr_jax.train.image_pairs.MIXES``.
        pair: a second view of the batch, with a loss of its own, "" for none; a name
            of ``apr_jax.train.image_pairs.PAIRS``. Its labels are the images' own.
        loss: one of ``LOSSES``. "heads" tells phase labels and amplitude labels apart
            by two linear layers (equation 7); "jensen_shannon" asks for like answers
            on three views of an image, the last two through ``after``; "contrastive"
            makes like features of images of one class (``apr_jax.train.contrastive``).
        shifts: "contrastive" only: quarter turns of each image, from none on, each of
            which counts as another class.
        mean: whether the losses of views are averaged; they are added otherwise.
        auxiliary: the pair goes through BatchNorm layers of its own, which are for
            training only.
    """

    single: str = ""
    after: tuple[str, ...] = ()
    mix: str = ""
    pair: str = ""
    loss: str = "cross_entropy"
    shifts: int = 1
    mean: bool = False
    auxiliary: bool = False

    @property
    def heads(self) -> int:
        """Linear layers of the network, each with an output for each class."""
        if self.loss == "heads":
            return 2
        # One for the classes, and one for the classes in each turn.
        return 1 + self.shifts if self.shifts > 1 else 1


AUGMENTS = {
    "standard": Method(),
    # The paper's, its section 5.3 last.
    "apr_p": Method(pair="apr_p"),
    "apr_s": Method(single="apr_s"),
    "apr_sp": Method(single="apr_s", pair="apr_p"),
    "apr_p_heads": Method(pair="apr_p", loss="heads"),
    "apr_sp_heads": Method(single="apr_s", pair="apr_p", loss="heads"),
    # Those of its tables.
    "cutout": Method(after=("cutout",)),
    "mixup": Method(mix="mixup"),
    "cutmix": Method(mix="cutmix"),
    "autoaugment": Method(after=("autoaugment",)),
    "random_autoaugment": Method(after=("random_autoaugment",)),
    "augmix": Method(after=("augmix",), loss="jensen_shannon"),
    "augmix_no_jsd": Method(after=("augmix",)),
    "patch_gaussian": Method(after=("patch_gaussian",)),
    "patch_uniform": Method(after=("patch_uniform",)),
    "supclr": Method(after=("simclr",), loss="contrastive"),
    "csi": Method(after=("simclr",), loss="contrastive", shifts=4),
    # Later ones.
    "hybrid_augment": Method(pair="hybrid_augment"),
    "hybrid_augment_pp": Method(pair="hybrid_augment_pp"),
    "hybrid_augment_s": Method(single="hybrid_augment_s"),
    "hybrid_augment_pp_s": Method(single="hybrid_augment_pp_s"),
    "amplitude_mix": Method(pair="amplitude_mix", mean=True),
    "low_amplitude_swap": Method(pair="low_amplitude_swap"),
    "fourier_basis_noise": Method(pair="fourier_basis_noise", mean=True),
    "afa": Method(pair="fourier_basis_noise", mean=True, auxiliary=True),
    "vital_phase": Method(single="vital_phase", pair="apr_p"),
    "prime": Method(after=("prime",)),
    "prime_jsd": Method(after=("prime",), loss="jensen_shannon"),
}


def get_method(name: str) -> Method:
    """The entry of ``AUGMENTS``, or several joined by "+", as in "cutout+apr_p".

    Raises:
        ValueError: an unknown name, or names that don't go together.
    """
    parts = name.split("+")
    for part in parts:
        if part not in AUGMENTS:
            raise ValueError(
                f"unknown method {part!r}, choose from {tuple(AUGMENTS)}, or join "
                'several by "+"'
            )
    return functools.reduce(
        functools.partial(_join, name), [AUGMENTS[part] for part in parts]
    )


def _join(name: str, one: Method, other: Method) -> Method:
    """Both at once; what each has only once must be the same in both or in one."""
    default = Method()

    def either(field: str) -> str:
        found = {getattr(m, field) for m in (one, other)} - {getattr(default, field)}
        if len(found) > 1:
            listed = " and ".join(sorted(found))
            raise ValueError(
                f"method {name!r} joins {listed}, which exclude each other"
            )
        return str(found.pop()) if found else str(getattr(default, field))

    if twice := set(one.after) & set(other.after):
        raise ValueError(f"method {name!r} has {', '.join(sorted(twice))} twice")
    joined = Method(
        single=either("single"),
        after=one.after + other.after,
        mix=either("mix"),
        pair=either("pair"),
        loss=either("loss"),
        shifts=max(one.shifts, other.shifts),
        mean=one.mean or other.mean,
        auxiliary=one.auxiliary or other.auxiliary,
    )
    if joined.loss == "heads" and (joined.mix or joined.pair != "apr_p"):
        raise ValueError(
            f"method {name!r} has two heads, which need APR-P and labels of their own"
        )
    if joined.loss == "jensen_shannon" and joined.mix:
        raise ValueError(
            f"method {name!r} blends labels, but asks for like answers on one image"
        )
    if joined.loss == "contrastive" and (joined.mix or joined.pair):
        raise ValueError(
            f"method {name!r} compares single images of one class, which leaves no "
            "place for blended labels or for a second view of the batch"
        )
    return joined
