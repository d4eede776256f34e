"""Which networks of RobustBench's corruption boards can be measured here, and how.

    pip install --no-deps robustbench gdown
    python -m experiments.checks.robustbench_board

in an environment of ``requirements-torchax.txt`` goes over the package's own list and
makes each entry's module with random weights, BatchNorm statistics included. Its state
dictionary is given to every network here whose tensors it could be, and its module to
torchax; logits of two images tell whether they are the same function. One JSON line an
entry goes to ``results/check_robustbench.jsonl``, a table to ``docs/robustbench.md``.
Entries that have a line already are not made again.
"""

import argparse
import json
import pathlib
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
import torch

from apr_jax import models
from apr_jax.foreign import pytorch
from apr_jax.gates import places
from apr_jax.models import state_dicts, torch_weights

ROOT = pathlib.Path(__file__).parents[2]
OUT = ROOT / "experiments" / "results" / "check_robustbench.jsonl"
PAGE = ROOT / "docs" / "robustbench.md"
# Of the spread of logits; torchax sums in another order than the networks here.
SAME, NEAR = 1e-5, 1e-4
TITLES = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "imagenet": "ImageNet"}
HEAD = """# RobustBench's networks

[RobustBench](https://robustbench.github.io) (package 1.1.1) lists networks that resist
common corruptions. Each entry's module was made with random weights and statistics of
BatchNorm, and its logits compared with those here (`python -m
experiments.checks.robustbench_board`, to 1e-5 of their spread, by torchax to 1e-4):

- "ours": the file's tensors load into the network of that name,
  `torch_weights.load_file(NAME, path)`, or at every measurement with a `--config` whose
  `model.name` it is; a normalisation among the tensors is used;
- "torchax": the package's module runs on JAX, with gradients:
  `Classifier.from_torch(module, …)`. "probabilities" are to be said as `outputs`.

A file doesn't tell whether the shortcuts of `preact_resnet18` take raw or activated
inputs: name the network as the table has it.

None of these entries is a ResNet-50 for 32 pixels. Such networks of the boards of
attacks (Engstrom2019Robustness, Augustin2020Adversarial) load into `resnet50_cifar`;
the package's pre-activation bottlenecks are those of `preact_resnet50_bare`.
"""


def modules() -> Iterator[tuple[str, str, Callable[[], Any]]]:
    """(board, entry, function that makes its module) in the package's own order."""
    import torchvision

    plain = torchvision.models.resnet50
    # One entry would download torchvision's weights; its module is what counts here.
    torchvision.models.resnet50 = lambda pretrained=False: plain(weights=None)
    from robustbench.model_zoo import model_dicts
    from robustbench.model_zoo.enums import BenchmarkDataset, ThreatModel

    for board in TITLES:
        listed = model_dicts[BenchmarkDataset(board)][ThreatModel.corruptions]
        for entry, about in listed.items():
            yield board, entry, about["model"]


def shaken(module: Any) -> Any:
    """The module in evaluation mode, no statistic or scale of BatchNorm as at first."""
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.2)
            part.running_var.uniform_(0.5, 2)
            if part.affine:
                torch.nn.init.uniform_(part.weight, 0.5, 1.5)
                torch.nn.init.normal_(part.bias, 0, 0.2)
    return module.eval()


def candidates(tensors: Mapping[str, Any]) -> Iterator[str]:
    """Networks here that tensors might be of: all by name, wide ones by shapes."""
    yield from (name for name in models.MODELS if not name.startswith("wrn"))
    blocks = {m[1] for k in tensors if (m := re.match(r"block1\.layer\.(\d+)\.", k))}
    first = tensors.get("block1.layer.0.conv1.weight")
    if blocks and first is not None:
        yield f"wrn_{6 * len(blocks) + 4}_{len(first) // 16}"


def apart(found: Any, wanted: np.ndarray) -> float:
    """The largest difference of logits, of their spread."""
    return float(np.abs(np.asarray(found) - wanted).max() / wanted.std())


def of_ours(module: Any, pixels: np.ndarray, wanted: np.ndarray) -> dict[str, Any]:
    """The network here that is the same function, and by how much it is apart."""
    state = module.state_dict()
    found: dict[str, Any] = {}
    for name in candidates(state_dicts.without_common(state_dicts.flat(state))):
        try:
            loaded = torch_weights.load(name, state)
        except ValueError:
            continue
        inputs = pixels
        if loaded.mean is not None:
            inputs = (pixels - np.float32(loaded.mean)) / np.float32(loaded.std)
        model = models.build(name, num_classes=loaded.outputs)
        run = jax.jit(lambda v, x, model=model: model.apply(v, x, train=False))
        by = apart(run(loaded.variables, inputs), wanted)
        if by <= SAME:
            return {"ours": name, "ours_apart": by}
        found.setdefault("same tensors, another function", []).append(name)
    return found


def of_torchax(module: Any, pixels: np.ndarray, wanted: np.ndarray) -> dict[str, Any]:
    """Whether torchax gives the same logits, and gradients at all."""
    try:
        network = pytorch.of_torch(module)
        run = lambda v, x: network.apply(v, x.transpose(0, 3, 1, 2))
        with jax.numpy_rank_promotion("allow"):
            by = apart(jax.jit(run)(network.variables, pixels), wanted)
            total = lambda x: run(network.variables, x).sum()
            jax.eval_shape(jax.grad(total), pixels)
    except Exception as error:
        return {"torchax": False, "why": " ".join(str(error).split())[:200]}
    return {"torchax": by <= NEAR, "torchax_apart": by}


def check(board: str, entry: str, make: Callable[[], Any]) -> dict[str, Any]:
    """The record of an entry."""
    torch.manual_seed(0)
    size = 224 if board == "imagenet" else 32
    pixels = np.random.default_rng(0).random((2, size, size, 3), np.float32)
    found: dict[str, Any] = {"board": board, "entry": entry}
    module = shaken(make())
    with torch.no_grad():
        wanted = module(torch.tensor(pixels.transpose(0, 3, 1, 2))).numpy()
    found["parameters"] = sum(p.numel() for p in module.parameters())
    found["probabilities"] = bool(np.allclose(wanted.sum(1), 1, atol=1e-4))
    found |= of_ours(module, pixels, wanted)
    return found | of_torchax(module, pixels, wanted)


def page(records: list[dict[str, Any]]) -> str:
    """The page of the documentation."""
    lines = [HEAD]
    for board, title in TITLES.items():
        lines += [f"## {title}\n", "| entry | parameters | ours | torchax |"]
        lines.append("|---|---|---|---|")
        for record in (r for r in records if r["board"] == board):
            ours = f"`{record['ours']}`" if "ours" in record else "—"
            by = "yes" if record["torchax"] else f"no: {record.get('why', 'differs')}"
            by += ", probabilities" * (record["torchax"] and record["probabilities"])
            millions = f"{record['parameters'] / 1e6:,.1f} M"
            lines.append(f"| {record['entry']} | {millions} | {ours} | {by} |")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    """Goes over the list, and writes records and page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=places.argument, default=OUT)
    parser.add_argument("--page", type=places.argument, default=PAGE)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    known = {}
    if args.out.exists():
        for line in args.out.read_text().splitlines():
            record = json.loads(line)
            known[record["board"], record["entry"]] = record
    records = []
    for board, entry, make in modules():
        if (board, entry) not in known:
            known[board, entry] = record = check(board, entry, make)
            with args.out.open("a") as file:
                file.write(json.dumps(record) + "\n")
            print(json.dumps(record), flush=True)
            jax.clear_caches()
        records.append(known[board, entry])
    args.page.write_text(page(records))


if __name__ == "__main__":
    main()
