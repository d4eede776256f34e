"""Networks in repositories of Hugging Face's hub, of transformers or of timm."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from apr_jax.errors import ConfigError, DataError, words
from apr_jax.foreign import of_timm
from apr_jax.foreign.fill import Filled, classes_of, complain
from apr_jax.foreign.preprocessing import Given, interpolated, square, synsets
from apr_jax.gates import places
from apr_jax.models import state_dicts

_FILES = ("model.safetensors", "pytorch_model.bin")
# Words for Pillow's numbers of interpolations.
_RESAMPLE = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")


def load(
    repo: str, weights: pathlib.Path | None, *, trust_remote_code: bool = False
) -> Given:
    """A classifier of images in a repository, of transformers or timm.

    Args:
        repo: "OWNER/NAME", downloaded unless it is in the hub's cache, or a folder.
        weights: a file of them; None: the repository's.
        trust_remote_code: whether code that the repository brings may be run.

    Raises:
        ConfigError: it isn't there, brings code that isn't trusted, or no classifier.
    """
    folder = _folder(repo, code=trust_remote_code)
    config = _json(folder / "config.json", f"hf:{repo}")
    content, path = _content(folder, repo, weights)
    if "architecture" in config and "model_type" not in config:
        given = of_timm.from_config(config, content, path)
    else:
        given = _of_transformers(folder, repo, content, path, trust_remote_code)
    return given._replace(name=repo.rstrip("/").rpartition("/")[2])


def _folder(repo: str, *, code: bool) -> pathlib.Path:
    """A repository's files on this machine."""
    path = places.local(repo, "hf:REPO")
    if path.is_dir():
        return path
    import huggingface_hub

    wanted = ["*.json", "*.safetensors", "pytorch_model*.bin"]
    try:
        found = huggingface_hub.snapshot_download(
            repo, allow_patterns=[*wanted, "*.py"] if code else wanted
        )
    except Exception as error:  # of names, of connections, of rights
        raise ConfigError(
            f"hf:{repo} is no folder, and can't be had from the hub: {_line(error)}"
        ) from error
    return pathlib.Path(found)


def _json(path: pathlib.Path, of: str) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{of} has no {path.name} that can be read") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{of} has a {path.name} that holds no object")
    return found


def _content(
    folder: pathlib.Path, repo: str, weights: pathlib.Path | None
) -> tuple[Mapping[str, Any], pathlib.Path]:
    """The tensors of a repository, in one file or in several, and their path."""
    if weights is not None:
        return state_dicts.read(weights), weights
    for name in _FILES:
        if (folder / name).is_file():
            return state_dicts.read(folder / name), folder / name
        index = folder / f"{name}.index.json"
        if index.is_file():
            parts = sorted(set(_json(index, f"hf:{repo}")["weight_map"].values()))
            tensors: dict[str, Any] = {}
            for part in parts:
                tensors |= state_dicts.read(folder / pathlib.Path(part).name)
            return tensors, index
    raise DataError(f"hf:{repo} has none of {', '.join(_FILES)}")


def _of_transformers(
    folder: pathlib.Path,
    repo: str,
    content: Mapping[str, Any],
    path: pathlib.Path,
    trusted: bool,
) -> Given:
    import transformers

    try:
        config = transformers.AutoConfig.from_pretrained(
            folder, trust_remote_code=trusted
        )
        processor = transformers.AutoImageProcessor.from_pretrained(
            folder, trust_remote_code=trusted
        )
        plain = transformers.AutoModelForImageClassification.from_config(
            config, trust_remote_code=trusted
        )
        filled = _filled(type(plain), config, content, path)
    except ConfigError:
        raise
    except Exception as error:  # of other people's code, which may be anything
        if "trust_remote_code" in str(error):
            raise ConfigError(
                f"hf:{repo} brings code of its own, which is run only where "
                "--trust_remote_code says so"
            ) from error
        raise ConfigError(
            f"hf:{repo} is no classifier of images that transformers can make: "
            f"{_line(error)}"
        ) from error
    size, resize, apart = _sizes(repo, processor)
    mean, std = _normalisation(repo, processor, size)
    return Given(
        module=filled.module,
        name=repo,
        image_size=size,
        resize=resize,
        mean=filled.mean or mean,
        std=filled.std or std,
        classes=_classes(filled.class_names, filled.module.config),
        apart=apart,
    )


def _filled(
    kind: Any, config: Any, content: Mapping[str, Any], path: pathlib.Path
) -> Filled:
    """A module with weights by the names of today or of older files."""
    import torch
    from transformers.utils import logging

    logging.set_verbosity_error()  # it warns of what is an error here
    logging.disable_progress_bar()
    tensors, mean, std = state_dicts.split_normalisation(state_dicts.plain(content))

    def load(own: Any) -> tuple[Any, Any]:
        found: tuple[Any, Any] = kind.from_pretrained(
            None,
            config=own,
            state_dict={k: torch.from_numpy(np.array(v)) for k, v in tensors.items()},
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
        return found

    module, info = load(config)
    differ = {(tuple(own), tuple(file)) for _, file, own in info["mismatched_keys"]}
    if (count := classes_of(differ)) is not None:
        other = {**config.to_dict(), "num_labels": count, "id2label": None}
        module, info = load(type(config).from_dict({**other, "label2id": None}))
    problems = {
        "missing": sorted(info["missing_keys"]),
        "unexpected": sorted(info["unexpected_keys"]),
        "wrong shape": sorted(
            f"{name} {list(file)} instead of {list(own)}"
            for name, file, own in info["mismatched_keys"]
        ),
        "NaN or infinite": [k for k, v in tensors.items() if not np.isfinite(v).all()],
    }
    complain(problems, f"{path} has no weights of {kind.__name__}")
    return Filled(module.eval(), mean, std, state_dicts.class_names(content))


def _sizes(repo: str, processor: Any) -> tuple[int, int, tuple[str, ...]]:
    """The side of the images, the shorter side before, and what is otherwise here."""
    sizes = dict(getattr(processor, "size", None) or {})
    crop = dict(getattr(processor, "crop_size", None) or {})
    apart = interpolated(_RESAMPLE[int(getattr(processor, "resample", None) or 2)])
    shorter = sizes.get("shortest_edge")
    part = getattr(processor, "crop_pct", None)
    if shorter and part and not crop:  # ConvNeXt's: the whole image from 384 on
        resize = int(shorter / part) if shorter < 384 else shorter
        squashed = shorter >= 384
        size = shorter
    elif getattr(processor, "do_center_crop", False) and crop:
        size = square(f"hf:{repo}", 3, crop["height"], crop["width"])
        resize = shorter or min(sizes.get("height", size), sizes.get("width", size))
        squashed = not shorter
    else:
        height, width = sizes.get("height"), sizes.get("width")
        if not height or not width:
            raise ConfigError(f"hf:{repo} doesn't say the size of its images: {sizes}")
        resize = size = square(f"hf:{repo}", 3, height, width)
        squashed = True
    if squashed:
        apart = (*apart, "the shorter side where theirs are both, out of proportion")
    return size, max(size, resize), apart


def _normalisation(
    repo: str, processor: Any, size: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of each channel, as a processor's own answers have them.

    Raises:
        ConfigError: it does something else to the colours of images.
    """
    rng = np.random.Generator(np.random.Philox(size))
    levels = rng.integers(0, 256, (3, size, size, 3), np.uint8)
    levels[0], levels[1] = 0, 255
    found = processor(
        images=list(levels), do_resize=False, do_center_crop=False, return_tensors="np"
    )["pixel_values"].astype(np.float64)
    low, high = found[0].mean((1, 2)), found[1].mean((1, 2))
    mean, std = -low / (high - low), 1 / (high - low)
    wanted = (levels.transpose(0, 3, 1, 2) / 255 - mean[:, None, None]) / (
        std[:, None, None]
    )
    if found.shape != wanted.shape or np.abs(found - wanted).max() > 1e-3:
        raise ConfigError(
            f"hf:{repo} has a preprocessing that is no mean and standard deviation of "
            "each channel, such as one of colours in another order"
        )
    plain = lambda numbers: tuple(float(f"{x:.5g}") for x in numbers)
    return plain(mean), plain(std)


def _classes(said: tuple[str, ...], config: Any) -> tuple[tuple[str, ...], ...]:
    """Names of the classes: the file's, the repository's, or ImageNet's synsets."""
    if said:
        return (said,)
    names = tuple(str(config.id2label[i]) for i in range(len(config.id2label)))
    if names[0] == "LABEL_0" or len(set(names)) < len(names):
        return ()
    imagenet = len(names) == 1000 and names[0].startswith("tench")
    return (names, *(synsets(1000) if imagenet else ()))


def _line(error: Exception) -> str:
    return " ".join(words(error).split())[:200]
