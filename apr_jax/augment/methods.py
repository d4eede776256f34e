"""The training methods by name: which augmentations, and which loss goes with them."""

import dataclasses
import functools

# Where the label of a second view of the batch comes from.
LOSSES = ("cross_entropy", "jensen_shannon", "heads")


@dataclasses.dataclass(frozen=True)
class Method:
    """What a training method does beside crop and flip.

    Attributes:
        single: APR-S on each image, before the crop.
        after: what happens to each image after crop and flip, in this order; names of
            ``apr_jax.views.IMAGE_STAGES``.
        mix: how images and labels of the batch are blended, "" for not at all; a name
            of ``apr_jax.views.MIXES``.
        pair: a second view of the batch by APR-P, with a loss of its own.
        loss: one of ``LOSSES``. "heads" tells phase labels and amplitude labels apart
            by two linear layers (equation 7); "jensen_shannon" asks for like answers
            on three views of an image, the last two through ``after``.
    """

    single: bool = False
    after: tuple[str, ...] = ()
    mix: str = ""
    pair: bool = False
    loss: str = "cross_entropy"

    @property
    def heads(self) -> int:
        """Linear layers of the network, each with an output for each class."""
        return 2 if self.loss == "heads" else 1


AUGMENTS = {
    "standard": Method(),
    "apr_p": Method(pair=True),
    "apr_s": Method(single=True),
    "apr_sp": Method(single=True, pair=True),
    "apr_p_heads": Method(pair=True, loss="heads"),
    "apr_sp_heads": Method(single=True, pair=True, loss="heads"),
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

    joined = Method(
        single=one.single or other.single,
        after=one.after + other.after,
        mix=either("mix"),
        pair=one.pair or other.pair,
        loss=either("loss"),
    )
    if joined.mix and joined.loss == "heads":
        raise ValueError(
            f"method {name!r} blends labels, which two heads have no place for"
        )
    return joined
