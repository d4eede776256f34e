"""EfficientNet-Lite0 under our corruptions and under those of ``imagecorruptions``.

    pip install --no-deps imagecorruptions
    python -m experiments.checks.lite0_corruptions --images IMAGES.npz \\
        --script make_imagenet_c.py

``IMAGES.npz`` has ``images``, uint8 [N, 224, 224, 3], and their ``labels`` of ImageNet.
The package is the original benchmark's code for images of any size, all but its elastic
transform, which moves pixels another way; that comes from ``--script``, the benchmark's
own for ImageNet (``ImageNet-C/create_c`` of hendrycks/robustness). Both get the same
images; PyTorch answers. One JSON line for each corruption and strength goes to
``results/check_lite0_corruptions.jsonl``; those that are there are not made again. At
the end a table with each corruption's mean over its strengths is printed.
"""

import argparse
import ast
import json
import pathlib
import time
import warnings
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import torch

from apr_jax import corruptions
from apr_jax.gates import answers, places
from experiments.checks import lite0

OUT = pathlib.Path(__file__).parents[1] / "results" / "check_lite0_corruptions.jsonl"
NAMES = (*corruptions.CORRUPTIONS, *corruptions.EXTRA_CORRUPTIONS)
ROWS = 50


def theirs() -> Callable[[np.ndarray, str, int], np.ndarray]:
    """The package's function of one image, name and strength.

    It is of 2020: so it says the channels to scikit-image's Gaussian, and calls float64
    by the name that NumPy had for it then.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import imagecorruptions
        from imagecorruptions import corruptions as code

    if not hasattr(np, "float_"):
        np.float_ = np.float64  # noqa: NPY201 - the name itself is wanted
    plain = code.gaussian

    def gaussian(image: np.ndarray, *args: Any, **options: Any) -> np.ndarray:
        if options.pop("multichannel", False):
            options["channel_axis"] = -1
        return plain(image, *args, **options)

    code.gaussian = gaussian
    return lambda image, name, severity: imagecorruptions.corrupt(
        image, severity=severity, corruption_name=name
    )


def elastic(script: pathlib.Path) -> Callable[[np.ndarray, str, int], np.ndarray]:
    """The elastic transform of the benchmark's script, and nothing else of it."""
    import cv2
    from scipy.ndimage import map_coordinates
    from skimage.filters import gaussian

    (own,) = (
        part
        for part in ast.parse(script.read_text()).body
        if isinstance(part, ast.FunctionDef) and part.name == "elastic_transform"
    )
    names = {"np": np, "cv2": cv2, "gaussian": gaussian}
    names["map_coordinates"] = map_coordinates
    exec(compile(ast.Module([own], []), script.name, "exec"), names)
    transform: Any = names["elastic_transform"]
    return lambda image, name, severity: np.uint8(transform(image, severity))


def wrong(network: Any, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Which images, uint8 [N, 224, 224, 3], are not recognised: bool [N]."""
    inputs = torch.tensor((images.astype(np.float32) - 127) / 128).permute(0, 3, 1, 2)
    with torch.no_grad():
        logits = torch.cat([network(part) for part in inputs.split(ROWS)]).numpy()
    found: np.ndarray = answers.answer(logits) != labels
    return found


def measure(
    network: Any,
    corrupt: Callable[[np.ndarray, str, int], np.ndarray],
    images: np.ndarray,
    labels: np.ndarray,
    name: str,
    severity: int,
) -> dict[str, Any]:
    """The record of a corruption and strength."""
    np.random.seed(severity)  # noqa: NPY002 - the generator that the package has
    start = time.perf_counter()
    other = np.stack([corrupt(image, name, severity) for image in images])
    seconds = {"theirs_seconds": round(time.perf_counter() - start, 1)}
    start = time.perf_counter()
    key = jax.random.key(severity)
    own = np.asarray(corruptions.corrupt(key, images, name, severity))
    seconds["ours_seconds"] = round(time.perf_counter() - start, 1)
    mine, their = wrong(network, own, labels), wrong(network, other, labels)
    return {
        "corruption": name,
        "severity": severity,
        "images": len(images),
        "ours": float(mine.mean()),
        "theirs": float(their.mean()),
        "one_alone": int((mine != their).sum()),
        **seconds,
    }


def summary(records: list[dict[str, Any]]) -> str:
    """A Markdown table of means over the strengths, in per cent."""
    lines = [
        "| corruption | ours | theirs | apart | strengths |",
        "|---|---|---|---|---|",
    ]
    for name in NAMES:
        own = [r for r in records if r["corruption"] == name]
        if own:
            mine, their = (
                100 * np.mean([r[k] for r in own]) for k in ("ours", "theirs")
            )
            by = f"{mine:.1f} | {their:.1f} | {mine - their:+.1f}"
            lines.append(f"| {name} | {by} | {len(own)} |")
    return "\n".join(lines)


def main() -> None:
    """Measures what has no record yet."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=places.argument, required=True)
    parser.add_argument("--script", type=places.argument, help="make_imagenet_c.py")
    parser.add_argument("--out", type=places.argument, default=OUT)
    parser.add_argument("--names", nargs="*", default=NAMES)
    args = parser.parse_args()
    with np.load(args.images) as stored:
        images, labels = stored["images"], stored["labels"]
    lines = args.out.read_text().splitlines() if args.out.exists() else []
    records = [json.loads(line) for line in lines]
    done = {(r["corruption"], r["severity"]) for r in records}
    network, package = lite0.module(), theirs()
    for name in args.names:
        corrupt = package
        if name == "elastic_transform":
            if not args.script:
                print("elastic_transform is left out: it takes --script")
                continue
            corrupt = elastic(args.script)
        for severity in corruptions.SEVERITIES:
            if (name, severity) in done:
                continue
            found = measure(network, corrupt, images, labels, name, severity)
            records.append(found)
            with args.out.open("a") as file:
                file.write(json.dumps(found) + "\n")
            print(json.dumps(found), flush=True)
    print(summary(records))


if __name__ == "__main__":
    main()
