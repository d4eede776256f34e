"""Our attacks beside those of ``torchattacks``, on the same weights and images.

    python -m experiments.checks.attacks train --data_dir TFDS --run runs/robust
    python -m experiments.checks.attacks compare --data_dir TFDS --run runs/robust

``train`` makes a small network adversarially robust: one signed gradient step from a
random start for each batch (Wong et al. 2020). ``compare`` attacks it, or the network
of any other run, with both implementations, one after the other in one process, and
appends a record for each attack: robust accuracy of both, and how long each took. It
needs PyTorch and torchattacks. Compiling is not part of our time; it is given apart.
"""

import argparse
import functools
import json
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from apr_jax import attacks, data, presets
from apr_jax import config as config_lib
from apr_jax.attacks import norms, rounds
from apr_jax.evaluate import classifier
from apr_jax.train import loop, plan
from experiments.benchmarks import common, torch_network

OUT = pathlib.Path(__file__).parents[1] / "results" / "check_attacks.jsonl"
# Radii to attack with; the first is trained against. Small networks resist no more.
EPS = {"linf": 4 / 255, "l2": 0.25, "l1": 5.0}


def configuration(args: argparse.Namespace) -> config_lib.Config:
    """The configuration that training and comparison share."""
    settings = presets.cifar(f"{args.model},standard,cifar10")
    settings.name = "check_attacks"
    settings.data.update(data_dir=args.data_dir, cache_dir=args.cache_dir)
    settings.optim.update(
        learning_rate=args.rate, epochs=args.epochs, schedule="cyclic", nesterov=False
    )
    settings.adversary.update(
        attack="fgsm", eps=EPS["linf"], step_size=1.25 * EPS["linf"]
    )
    return config_lib.parse(settings.to_dict())


def train(args: argparse.Namespace) -> None:
    """Trains the network, or goes on with a training that was stopped."""
    loop.train(plan.plan(configuration(args), args.run))


def torch_model(network: classifier.Classifier) -> Any:
    """The same network in PyTorch, normalisation included."""
    import torch
    from torch import nn

    settings = network.config.data
    same = torch_network.build(network.config.model.name)
    torch_network.load(same, network.variables)

    class Normalised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = same
            shape = (1, 3, 1, 1)
            self.mean = nn.Parameter(torch.tensor(settings.mean).reshape(shape))
            self.std = nn.Parameter(torch.tensor(settings.std).reshape(shape))

        def forward(self, pixels: Any) -> Any:
            return self.network((pixels - self.mean) / self.std)

    return Normalised().eval().requires_grad_(False)


def contestants(args: argparse.Namespace, torch_net: Any) -> dict[str, tuple]:
    """Name -> (norm, our attack, theirs), both ready to be called."""
    import torchattacks

    steps, queries = args.steps, args.queries
    found: dict[str, tuple] = {}
    for norm in args.norms:
        eps = EPS[norm]
        ours: dict[str, Any] = {"norm": norm, "eps": eps, "chunk": args.chunk}
        theirs: dict[str, Any] = {"eps": eps, "norm": {"linf": "Linf"}.get(norm, "L2")}
        stage = lambda f, ours=ours, **more: functools.partial(f, **ours, **more)
        if norm == "linf":
            found["fgsm linf"] = (
                norm,
                stage(attacks.fgsm),
                torchattacks.FGSM(torch_net, eps=eps),
            )
        size = 2.5 * eps / steps
        pgd = torchattacks.PGD if norm == "linf" else torchattacks.PGDL2
        more: dict[str, tuple] = {
            "pgd": (
                stage(attacks.pgd, steps=steps, step_size=size),
                pgd(torch_net, eps=eps, alpha=size, steps=steps),
            )
        }
        for loss in ("ce", "dlr"):
            more[f"apgd-{loss}"] = (
                stage(attacks.apgd, loss=loss, steps=steps),
                torchattacks.APGD(torch_net, loss=loss, steps=steps, **theirs),
            )
        more["apgd-t"] = (
            stage(attacks.apgd, loss="dlr-targeted", steps=steps, targets=9),
            torchattacks.APGDT(torch_net, steps=steps, n_classes=10, **theirs),
        )
        for name, targeted in (("fab", False), ("fab-t", True)):
            options = {"steps": steps, "n_classes": 10, "multi_targeted": targeted}
            more[name] = (
                stage(attacks.fab, targeted=targeted, steps=steps),
                torchattacks.FAB(torch_net, **options, **theirs),
            )
        more["square"] = (
            stage(attacks.square, queries=queries),
            torchattacks.Square(torch_net, n_queries=queries, **theirs),
        )
        found |= {f"{name} {norm}": (norm, *pair) for name, pair in more.items()}
    return {k: v for k, v in found.items() if k.split()[0] in args.attacks}


def compare(args: argparse.Namespace) -> None:
    """Attacks with both, and writes a record for each attack."""
    import torch

    torch.set_num_threads(args.cores)
    found = classifier.from_run(args.run)
    split = data.load(found.config.data, splits=("test",)).splits["test"]
    images = split.images[: args.images].astype(np.float32) / 255
    labels = np.asarray(split.labels[: args.images])
    predict, variables = found.predict, found.variables
    logits_fn = functools.partial(lambda v, pixels: predict(v, pixels)[0], variables)
    network = torch_model(found)
    pixels = torch.tensor(images.transpose(0, 3, 1, 2).copy())
    target = torch.tensor(labels, dtype=torch.int64)
    with torch.no_grad():
        difference = np.abs(np.asarray(logits_fn(images)) - network(pixels).numpy())
    print(f"logits of both networks differ by {difference.max():.1e} at most")

    records = []
    for name, (norm, ours, theirs) in contestants(args, network).items():
        record = common.stamped(
            experiment="check_attacks",
            attack=name,
            eps=EPS[norm],
            steps=args.steps,
            queries=args.queries,
            images=args.images,
            model=found.config.model.name,
            jax=jax.__version__,
            torch=torch.__version__,
            device=jax.devices()[0].device_kind,
            cores=args.cores,
            **duel(
                norm, ours, theirs, logits_fn, network, images, labels, pixels, target
            ),
        )
        common.append(args.out, [record])
        print(json.dumps(record), flush=True)
        records.append(record)
    common.show(
        f"Robust accuracy, {args.images} images",
        {
            "": "{attack}",
            "ours": "{ours:.1%}",
            "torchattacks": "{torchattacks:.1%}",
            "s": "{ours_seconds:.1f}",
            "plus compiling": "{compile_seconds:.1f}",
            "theirs, s": "{torchattacks_seconds:.1f}",
        },
        records,
        justify="right",
    )


def duel(
    norm: str,
    ours: functools.partial,
    theirs: Callable,
    logits_fn: Callable,
    network: Any,
    images: np.ndarray,
    labels: np.ndarray,
    pixels: Any,
    target: Any,
) -> dict[str, Any]:
    """Runs both attacks on the points that are right, and measures."""
    import torch

    key = jax.random.key(0)
    # One chunk compiles what all of them run.
    chunk = min(ours.keywords["chunk"], len(labels))
    started = time.perf_counter()
    ours(key, logits_fn, images[:chunk], labels[:chunk])
    first = time.perf_counter() - started
    started = time.perf_counter()
    result = ours(key, logits_fn, images, labels)
    seconds = time.perf_counter() - started
    right = result.survived["clean"]
    started = time.perf_counter()
    found = theirs(pixels[right], target[right]).detach()
    their_seconds = time.perf_counter() - started
    with torch.no_grad():
        still = (network(found).argmax(1) == target[right]).numpy()
    there = found.numpy().transpose(0, 2, 3, 1)
    # Some of theirs return images beyond the radius where they found none within.
    far = rounds.distances(there, images[right], norm) > EPS[norm] + 1e-4
    sizes = rounds.distances(result.images, images, norm)
    return {
        "norm": norm,
        "clean": float(right.mean()),
        "ours": float(result.robust.mean()),
        "torchattacks": float((still | far).sum() / len(labels)),
        "ours_seconds": seconds,
        "compile_seconds": max(first - seconds * chunk / len(labels), 0.0),
        "torchattacks_seconds": their_seconds,
        "largest_perturbation": float(sizes.max()),
        "nan": int(np.isnan(result.images).sum()),
        "lowest": float(result.images.min()),
        "highest": float(result.images.max()),
    }


def main() -> None:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("job", choices=("train", "compare"))
    parser.add_argument("--data_dir", required=True, help="of TFDS, with cifar10")
    parser.add_argument("--cache_dir", default="")
    parser.add_argument(
        "--run", type=pathlib.Path, required=True, help="work directory"
    )
    parser.add_argument("--model", default="wrn_10_1", help="wrn_D_K")
    parser.add_argument("--epochs", type=float, default=1.5)
    parser.add_argument("--rate", type=float, default=0.2, help="highest of the cycle")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--chunk", type=int, default=64)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--norms", nargs="+", default=["linf", "l2"])
    names = ["fgsm", "pgd", "apgd-ce", "apgd-dlr", "apgd-t", "fab", "fab-t", "square"]
    parser.add_argument("--attacks", nargs="+", default=names)
    parser.add_argument("--out", type=pathlib.Path, default=OUT)
    args = parser.parse_args()
    for norm in args.norms:
        norms.check_norm(norm)
    {"train": train, "compare": compare}[args.job](args)


if __name__ == "__main__":
    main()
