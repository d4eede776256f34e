"""The settings of what is measured, a part each."""

import dataclasses

from apr_jax.settings import choice, place, setting, share

PARTS = ("clean", "corruption", "shift", "ood", "adversarial", "fourier")
EXTRA_CORRUPTIONS = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
CORRUPTIONS = (
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
)
# The ten of CIFAR-10-C-bar and the ten of ImageNet-C-bar; five are in both.
C_BAR_CIFAR = (
    "blue_noise_sample",
    "brownish_noise",
    "checkerboard_cutout",
    "inverse_sparkles",
    "pinch_and_twirl",
    "ripple",
    "circular_motion_blur",
    "lines",
    "sparkles",
    "transverse_chromatic_abberation",
)
C_BAR_IMAGENET = (
    "blue_noise_sample",
    "plasma_noise",
    "checkerboard_cutout",
    "cocentric_sine_waves",
    "single_frequency_greyscale",
    "brownish_noise",
    "caustic_refraction",
    "inverse_sparkles",
    "sparkles",
    "perlin_noise",
)
C_BAR = tuple(dict.fromkeys((*C_BAR_CIFAR, *C_BAR_IMAGENET)))
CORRUPTION_SETS = ("c", "extra", "c_bar")
PROTOCOLS = ("own", "openood")
# In the order of their table, ``apr_jax.ood.TABLE``.
SCORES = (
    *("msp", "max_logit", "energy", "entropy", "gen", "odin"),
    *("react", "dice", "ash", "ash_p", "ash_b", "scale"),
    *("mahalanobis", "relative_mahalanobis", "knn", "vim", "fdbd", "she", "nnguide"),
    *("authors", "csi"),
)
_PROBES = ("heatmap", "bands", "phase")
_STEPS = (1, 2, 3, 4, 5)
_FIRST = "the first so many test images, of classes in order a share of each"


@dataclasses.dataclass(frozen=True)
class Corruption:
    """Corrupted images; see ``apr_jax.evaluate.corruption``."""

    corruptions: tuple[str, ...] = setting(
        (),
        "none: those of sets",
        choices=(*CORRUPTIONS, *EXTRA_CORRUPTIONS, *C_BAR),
    )
    sets: tuple[str, ...] = setting(
        ("c",), "the fifteen, the four extra, C-bar's ten", choices=CORRUPTION_SETS
    )
    severities: tuple[int, ...] = setting(_STEPS, "how strong", choices=_STEPS)
    source: str = choice("made on the fly, or read", "generated", "folder", "tfds")
    dir: str = place("", '"folder": NAME.npy, or NAME/SEVERITY/CLASS/IMAGE.JPEG')
    examples: int = setting(0, f"{_FIRST}; 0: all", low=0)
    frost_dir: str = place("", "photographs of frost; none: of imagecorruptions")
    seed: int = setting(0, "of generated corruptions", low=0, high=2**31 - 1)
    stored_as: str = choice(
        "generated; auto: as the published files of that size", "auto", "jpeg", "array"
    )
    jpeg: str = choice("generated: who compresses", "pillow", "device")


@dataclasses.dataclass(frozen=True)
class Shift:
    """The same classes on images from elsewhere; see ``apr_jax.evaluate.shift``."""

    shift: tuple[str, ...] = place(
        (), "sets with labels, name=source:where", repeated=True
    )
    cue_conflict: str = place("", "folder SHAPE/SHAPE1-TEXTURE2.png; none: no such")
    perturbations: str = place("", "folder NAME.npy or NAME/CLIP/FRAME; none: no such")
    examples: int = setting(0, "images, or sequences, of each set; 0: all", low=0)
    fit: str = choice("images of another size", "resize", "pad", "refuse")
    tfds_dir: str = place("", "TFDS sets; none: where the data are", remote=True)


@dataclasses.dataclass(frozen=True)
class Ood:
    """Images that a network never saw; see ``apr_jax.evaluate.ood``."""

    out: tuple[str, ...] = place(
        (),
        "sets, name=source:where; none: the usual ones that are there",
        repeated=True,
    )
    protocol: str = choice("sets and conventions: as set, or OpenOOD's", *PROTOCOLS)
    openood_dir: str = place("", "OpenOOD's folder of benchmark_imglist and images")
    near: tuple[str, ...] = setting((), "names of those sets that are near")
    scores: tuple[str, ...] = setting((), "which; none: all", choices=SCORES)
    examples: int = setting(0, "images of each set; 0: all", low=0)
    fit_examples: int = setting(10_000, "training images to fit scores; 0: all", low=0)
    fit: str = choice("images of another size", "resize", "pad", "refuse")
    tfds_dir: str = place(
        "", "TFDS sets to detect; none: where the data are", remote=True
    )
    scores_file: str = place("", "an .npz of scores from elsewhere")
    odin_temperature: float = setting(1000.0, "of ODIN's softmax", low=1e-6)
    odin_epsilon: float = share(0.0014, "ODIN's step, of pixels in [0, 1]")
    react_quantile: float = setting(0.9, "where ReAct clips", low=0.001, high=1)
    dice_sparsity: float = setting(0.9, "weights that DICE drops", low=0, high=0.999)
    ash_prune: float = setting(0.9, "features that ASH drops", low=0, high=0.999)
    scale_prune: float = setting(0.85, "features not in SCALE's sum", low=0, high=0.999)
    gen_gamma: float = setting(0.1, "power of GEN", above=0)
    gen_top: int = setting(100, "most likely classes that GEN takes", low=1)
    vim_dims: int = setting(0, "ViM's principal subspace; 0: by the features", low=0)
    fdbd_over: str = choice("what fDBD divides by", "deviation", "norm")
    knn_k: int = setting(50, "neighbours of KNN", low=1)
    nnguide_k: int = setting(100, "neighbours of NNGuide", low=1)


@dataclasses.dataclass(frozen=True)
class Adversarial:
    """Attacked images; see ``apr_jax.evaluate.adversarial``."""

    attack: str = setting(
        "standard",
        "standard, plus, rand, standard+pma, pma+, fgsm, pgd, apgd-ce, apgd-dlr, "
        "apgd-t, fab, fab-t, square or pma",
    )
    linf: tuple[float, ...] = setting((8 / 255,), "radii, such as 8/255", above=0)
    l2: tuple[float, ...] = setting((), "radii, such as 0.25,0.5", above=0)
    l1: tuple[float, ...] = setting((), "radii, such as 12", above=0)
    examples: int = setting(1000, f"{_FIRST}; 0: all", low=0)
    steps: int = setting(100, "of each gradient attack", low=1)
    queries: int = setting(5000, "of Square, an image", low=1)
    batch: int = setting(128, "images at a time, on all devices", low=1)
    seed: int = setting(0, "of the attacks", low=0, high=2**31 - 1)
    masking: bool = setting(False, "the signs of gradient masking, too")
    surrogate: tuple[str, ...] = place(
        (),
        "run, FILE.py:create or timm:NAME to make images on, too; none: no such",
        repeated=True,
    )


@dataclasses.dataclass(frozen=True)
class Fourier:
    """Errors by frequency; see ``apr_jax.evaluate.fourier``."""

    parts: tuple[str, ...] = setting(_PROBES, "what to measure", choices=_PROBES)
    examples: int = setting(1000, "test images; 0: all", low=0)
    norm: float = setting(0.0, "L2, of a wave; 0: 4 up to 64 pixels, else 15.7", low=0)
    extent: int = setting(0, "side of the map; 0: all up to 64 pixels, else 63", low=0)
    radii: tuple[float, ...] = setting((), "cut-offs; none: eighths of a side", above=0)


@dataclasses.dataclass(frozen=True)
class Eval:
    """The measurements of a finished network; see ``apr_jax.evaluate.card``."""

    batch_size: int = setting(1000, "images, over all devices", low=1)
    parts: tuple[str, ...] = setting(("clean",), "what is measured", choices=PARTS)
    save_predictions: bool = setting(False, "keep the answer to each image, too")
    corruption: Corruption = Corruption()
    shift: Shift = Shift()
    ood: Ood = Ood()
    adversarial: Adversarial = Adversarial()
    fourier: Fourier = Fourier()
