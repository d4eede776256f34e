"""The training methods by name: which augmentations, and which loss goes with them."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax

from apr_jax.augment.afa import fourier_basis_noise
from apr_jax.augment.apr_noise import apr_noise, apr_waves
from apr_jax.augment.apr_pair import apr_pair
from apr_jax.augment.apr_single import apr_single
from apr_jax.augment.augmix import augmix
from apr_jax.augment.autoaugment import autoaugment, random_autoaugment
from apr_jax.augment.cutout_patch import cutout, patch_gaussian, patch_uniform
from apr_jax.augment.fact_fda import amplitude_mix, low_amplitude_swap
from apr_jax.augment.hybrid_augment import (
    hybrid_augment,
    hybrid_augment_pp,
    hybrid_augment_single,
)
from apr_jax.augment.method import (
    CONTRASTIVE,
    HEADS,
    JENSEN_SHANNON,
    Method,
    Stage,
)
from apr_jax.augment.mixup_cutmix import cutmix, mixup
from apr_jax.augment.mollification import mollify
from apr_jax.augment.noisy_mix import noisy_mixup
from apr_jax.augment.prime import prime
from apr_jax.augment.simclr import simclr
from apr_jax.augment.trivialaugment import trivialaugment
from apr_jax.augment.vipaug import vital_phase_single

# Up to this size AutoAugment's policy is CIFAR's.
_LARGEST_SMALL = 64


def _autoaugment(key: jax.Array, images: jax.Array) -> jax.Array:
    small = max(images.shape[1:3]) <= _LARGEST_SMALL
    return autoaugment(key, images, policy="cifar10" if small else "imagenet")


_AXES = {"axes": "augment.axes"}
_OPS = {
    "prob": "augment.single_prob",
    "level": "augment.single_level",
    "ops": "augment.single_ops",
}
_CLIP = {"clip": "augment.pair_clip"}
_PROB = {"prob": "augment.pair_prob"}
_COIN = _CLIP | _PROB | {"per": "augment.pair_per"}
_MIX = {"alpha": "augment.mix_alpha"}
# The original fills with zeros after normalisation, which is the mean.
_HOLE = {"size": "augment.cutout_size", "fill": "data.mean"}

_SOFT = {"imagenet": {"sigma": 1.0}}
_VITAL = {
    "cifar100": {"vital": 0.005, "nonvital": 0.012},
    "imagenet": {"vital": 0.001, "nonvital": 0.005},
}
_FINE = {"deform_cut": 500, "colour_cut": 500, "colour_scale": 0.05, "colour_band": 20}

# Stages of several methods.
APR_S = Stage(apr_single, _OPS | _AXES | {"overflow": "augment.single_overflow"})
APR_P = Stage(apr_pair, _COIN | _AXES, whole=True)
_AUGMIX = Stage(augmix, strengths={"imagenet": {"severity": 1.0}})
_PRIME = Stage(prime, strengths={"imagenet": _FINE}, pixels=True)
_MOLLIFY = Stage(
    mollify,
    {
        "beta": "augment.mollify_beta",
        "noise_power": "augment.mollify_noise_power",
        "blur_power": "augment.mollify_blur_power",
        "mean": "data.mean",
        "std": "data.std",
    },
    pixels=True,
)
_NOISY = Stage(
    noisy_mixup,
    _MIX
    | {
        "add": "augment.noise_add",
        "multiply": "augment.noise_multiply",
        "sparse": "augment.noise_sparse",
    },
)
_SIMCLR = Stage(simclr, {"area": "contrast.crop_area"}, pixels=True)
_STRONG_WAVES = {"imagenet": {"mean_strength": 10.0}}
_WAVES = Stage(fourier_basis_noise, strengths=_STRONG_WAVES, per="image", takes=())

_HYBRID_PP = Stage(
    hybrid_augment_pp,
    _COIN | _AXES | {"pair_prob": "augment.pair_prob"},
    _SOFT,
    takes=("donors", "donor_index", "amplitude_index"),
)
_hybrid_pp_single = functools.partial(hybrid_augment_single, plus=True)
# Coins for each image: its noise follows its place in the batch.
_noised_pair = functools.partial(apr_pair, per="image", noise=0.2)
# Clipped, as FACT stores the mixed image as grey levels.
_amplitude_mix = functools.partial(amplitude_mix, clip=True)

AUGMENTS = {
    "standard": Method("crop and flip, as all methods have"),
    # The paper's, its section 5.3 last.
    "apr_p": Method(
        "the phase of one image, the amplitude of another", "Chen 2021", pair=APR_P
    ),
    "apr_s": Method(
        "phase and amplitude of two versions of one image", "Chen 2021", single=APR_S
    ),
    "apr_sp": Method("APR-S, then APR-P", "Chen 2021", single=APR_S, pair=APR_P),
    "apr_p_heads": Method(
        "APR-P, a head for each label",
        "Chen 2021, 5.3",
        pair=APR_P,
        loss=HEADS,
    ),
    "apr_sp_heads": Method(
        "APR-SP with the two heads",
        "Chen 2021, 5.3",
        single=APR_S,
        pair=APR_P,
        loss=HEADS,
    ),
    # Those of its tables.
    "cutout": Method(
        "a square blanked", "DeVries 2017", after=(Stage(cutout, _HOLE, pixels=True),)
    ),
    "mixup": Method(
        "two images and their labels blended", "Zhang 2018", mix=Stage(mixup, _MIX)
    ),
    "cutmix": Method(
        "a box of another image pasted, labels by area",
        "Yun 2019",
        mix=Stage(cutmix, _MIX),
    ),
    "autoaugment": Method(
        "learned sub-policies of operations", "Cubuk 2019", after=(Stage(_autoaugment),)
    ),
    "random_autoaugment": Method(
        "random sub-policies of operations",
        "Cubuk 2019",
        after=(Stage(random_autoaugment),),
    ),
    "augmix": Method(
        "chains of operations mixed, Jensen-Shannon loss",
        "Hendrycks 2020",
        after=(_AUGMIX,),
        loss=JENSEN_SHANNON,
    ),
    "augmix_no_jsd": Method(
        "chains of operations mixed", "Hendrycks 2020", after=(_AUGMIX,)
    ),
    "patch_gaussian": Method(
        "normal noise in a square",
        "Lopes 2019",
        after=(Stage(patch_gaussian, pixels=True),),
    ),
    "patch_uniform": Method(
        "uniform noise in a square",
        "Hendrycks 2020",
        after=(Stage(patch_uniform, pixels=True),),
    ),
    "supclr": Method(
        "SimCLR views, features of one class drawn together",
        "Khosla 2020",
        after=(_SIMCLR,),
        loss=CONTRASTIVE,
    ),
    "csi": Method(
        "SupCLR with each quarter turn a class of its own",
        "Tack 2020",
        after=(_SIMCLR,),
        loss=CONTRASTIVE,
        shifts=4,
    ),
    # Later ones.
    "hybrid_augment": Method(
        "own low, another image's high frequencies",
        "Yucel 2023",
        pair=Stage(hybrid_augment, _COIN, _SOFT),
    ),
    "hybrid_augment_pp": Method(
        "the same, APR-P inside the low ones", "Yucel 2023", pair=_HYBRID_PP
    ),
    "hybrid_augment_s": Method(
        "low and high frequencies of two versions of one image",
        "Yucel 2023",
        single=Stage(hybrid_augment_single, _OPS, _SOFT),
    ),
    "hybrid_augment_pp_s": Method(
        "HybridAugment++ of two versions of one image",
        "Yucel 2023",
        single=Stage(_hybrid_pp_single, _OPS, _SOFT),
    ),
    "amplitude_mix": Method(
        "amplitudes of two images interpolated (FACT)",
        "Xu 2021",
        pair=Stage(_amplitude_mix, {"alpha": "augment.fact_alpha"}, per="image"),
        mean=True,
    ),
    "apr_p_noised": Method(
        "APR-P, the other image under noise of any strength",
        pair=Stage(_noised_pair, _CLIP | _PROB | _AXES, per="image"),
    ),
    "apr_noise": Method(
        "own phase, the amplitude of coloured noise",
        pair=Stage(apr_noise, _CLIP | _PROB | _AXES, per="image", takes=()),
    ),
    "apr_waves": Method(
        "own phase, plane waves in the amplitude",
        pair=Stage(
            apr_waves, _CLIP | _PROB | _AXES, _STRONG_WAVES, per="image", takes=()
        ),
    ),
    "low_amplitude_swap": Method(
        "low amplitudes of another image (FDA)",
        "Yang 2020",
        pair=Stage(low_amplitude_swap, _CLIP, per="batch"),
    ),
    "fourier_basis_noise": Method(
        "random plane waves added", "Vaish 2024", pair=_WAVES, mean=True
    ),
    "afa": Method(
        "random plane waves, with BatchNorm layers of their own",
        "Vaish 2024",
        pair=_WAVES,
        mean=True,
        auxiliary=True,
    ),
    "vital_phase": Method(
        "phases varied, the vital ones less, then APR-P (VIPAug)",
        "Lee 2024",
        single=Stage(vital_phase_single, _OPS, _VITAL),
        pair=APR_P,
    ),
    "trivialaugment": Method(
        "one operation an image, of any strength",
        "Müller 2021",
        after=(Stage(trivialaugment),),
    ),
    "prime": Method(
        "random filters, deformations and colour curves mixed",
        "Modas 2022",
        after=(_PRIME,),
    ),
    "prime_jsd": Method(
        "the same with the Jensen-Shannon loss",
        "Modas 2022",
        after=(_PRIME,),
        loss=JENSEN_SHANNON,
    ),
    "noisymix": Method(
        "AugMix, features blended and noised at random depth",
        "Erichson 2022",
        after=(_AUGMIX,),
        features=_NOISY,
        loss=JENSEN_SHANNON,
    ),
    "mollify": Method(
        "noise or blur at random, labels softened as much",
        "Heinonen 2025",
        last=_MOLLIFY,
    ),
}


# What may be joined, too: the pair takes the place of the first view.
ONE_VIEW = "one_view"


def get_method(name: str) -> Method:
    """The entry of ``AUGMENTS``, or several joined by "+", as in "cutout+apr_p".

    With "one_view" among them what would be a second view takes the place of the
    first, so that a step costs one pass: "apr_sp+one_view".

    Raises:
        ValueError: an unknown name, or names that don't go together.
    """
    parts = name.split("+")
    if ONE_VIEW in parts and len(parts) > 1:
        parts.remove(ONE_VIEW)
        return _in_one_view(name, get_method("+".join(parts)))
    for part in parts:
        if part not in AUGMENTS:
            raise ValueError(
                f"unknown method {part!r}, choose from {tuple(AUGMENTS)}, or join "
                f'several by "+", also with {ONE_VIEW!r}'
            )
    if len(parts) == 1:
        return AUGMENTS[name]
    joined = _joined(name, [(part, AUGMENTS[part]) for part in parts])
    mix, pair, loss = joined.mix, joined.pair, joined.loss
    if loss.heads > 1 and (mix or not (pair and pair.whole)):
        raise ValueError(
            f"method {name!r} has two heads, which need APR-P and labels of their own"
        )
    if loss.alike and mix:
        raise ValueError(
            f"method {name!r} blends labels, but asks for like answers on one image"
        )
    if joined.features and (mix or loss.heads > 1 or joined.auxiliary):
        raise ValueError(
            f"method {name!r} blends features and labels at one depth of one pass, "
            "which leaves no place for blended images, two heads or a second BatchNorm"
        )
    if joined.last and (loss.alike or loss.projects):
        raise ValueError(
            f"method {name!r} softens labels by how an image is changed, but compares "
            "images as if they were alike"
        )
    if loss.projects and (mix or pair or joined.features):
        raise ValueError(
            f"method {name!r} compares single images of one class, which leaves no "
            "place for blended labels or for a second view of the batch"
        )
    return joined


def _in_one_view(name: str, method: Method) -> Method:
    if method.pair is None:
        raise ValueError(
            f"method {name!r} has no second view that could take the first one's "
            "place, as apr_p and apr_sp have"
        )
    if method.instead:
        raise ValueError(f"method {name!r} says {ONE_VIEW!r} twice")
    if method.mix or method.loss.alike or method.auxiliary:
        raise ValueError(
            f"method {name!r} needs its first view, for blended labels, like answers "
            "or a BatchNorm of its own"
        )
    return dataclasses.replace(method, instead=True, pair=_per_image(method.pair))


@functools.cache
def _per_image(pair: Stage) -> Stage:
    """The stage with a coin for each image: one for all would change all or none."""
    if "per" not in pair.knobs:
        return pair
    return dataclasses.replace(
        pair,
        function=functools.partial(pair.function, per="image"),
        knobs={k: v for k, v in pair.knobs.items() if k != "per"},
        per="image",
    )


# What a method has once, or not at all.
_ONCE = ("single", "mix", "pair", "features", "last", "loss")


def _joined(name: str, parts: Sequence[tuple[str, Method]]) -> Method:
    """All at once; what each has only once must be the same in all that have it."""

    def either(field: str) -> Any:
        usual = getattr(Method(), field)
        found = {getattr(method, field): part for part, method in parts}
        found.pop(usual, None)
        if len(found) > 1:
            listed = " and ".join(sorted(found.values()))
            raise ValueError(
                f"method {name!r} joins {listed}, which exclude each other"
            )
        return next(iter(found), usual)

    after = [stage for _, method in parts for stage in method.after]
    if len(set(after)) < len(after):
        twice = {p for p, m in parts if any(after.count(s) > 1 for s in m.after)}
        raise ValueError(f"method {name!r} has {', '.join(sorted(twice))} twice")
    return Method(
        **{field: either(field) for field in _ONCE},
        after=tuple(after),
        shifts=max(method.shifts for _, method in parts),
        mean=any(method.mean for _, method in parts),
        auxiliary=any(method.auxiliary for _, method in parts),
    )
