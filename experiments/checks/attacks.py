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
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from apr_jax import attacks, data, presets
from apr_jax import config as config_lib
from apr_jax.attacks import norms, rounds
from apr_jax.evaluate import classifier
from apr_jax.gates import places
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


def contestants(
    args: argparse.Namespace, logits_fn: Callable[..., Any], torch_net: Any
) -> dict[str, tuple]:
    """Name -> (norm, our attack, theirs), both ready for images and labels."""
    import torchattacks

    found: dict[str, tuple] = {}
    steps = {"steps": args.steps}
    for norm in args.norms:
        eps, linf = EPS[norm], norm == "linf"
        knobs = {"norm": norm, "eps": eps, "chunk": args.chunk}
        step_size = 2.5 * eps / args.steps
        ours: dict[str, tuple[Callable, dict[str, Any]]] = {
            "fgsm": (attacks.fgsm, {}),
            "pgd": (attacks.pgd, steps | {"step_size": step_size}),
            "apgd-ce": (attacks.apgd, steps | {"loss": "ce"}),
            "apgd-dlr": (attacks.apgd, steps | {"loss": "dlr"}),
            "apgd-t": (attacks.apgd, steps | {"loss": "dlr-targeted", "targets": 9}),
            "fab": (attacks.fab, steps | {"targeted": False}),
            "fab-t": (attacks.fab, steps | {"targeted": True}),
            "square": (attacks.square, {"queries": args.queries}),
        }
        same = {"eps": eps, "norm": "Linf" if linf else "L2"}
        many = same | steps | {"n_classes": 10}
        pgd = torchattacks.PGD if linf else torchattacks.PGDL2
        theirs: dict[str, tuple[Callable, dict[str, Any]]] = {
            "fgsm": (torchattacks.FGSM, {"eps": eps}),
            "pgd": (pgd, steps | {"eps": eps, "alpha": step_size}),
            "apgd-ce": (torchattacks.APGD, same | steps | {"loss": "ce"}),
            "apgd-dlr": (torchattacks.APGD, same | steps | {"loss": "dlr"}),
            "apgd-t": (torchattacks.APGDT, many),
            "fab": (torchattacks.FAB, many | {"multi_targeted": False}),
            "fab-t": (torchattacks.FAB, many | {"multi_targeted": True}),
            "square": (torchattacks.Square, same | {"n_queries": args.queries}),
        }
        for name, (attack, own) in ours.items():
            if name in args.attacks and (linf or name != "fgsm"):
                make, options = theirs[name]
                bound = functools.partial(
                    attack, jax.random.key(0), logits_fn, **knobs, **own
                )
                found[f"{name} {norm}"] = (norm, bound, make(torch_net, **options))
    return found


def compare(args: argparse.Namespace) -> None:
    """Attacks with both, and writes a record for each attack."""
    import torch

    torch.set_num_threads(args.cores)
    places = {"data_dir": args.data_dir, "cache_dir": args.cache_dir}
    found = classifier.from_run(args.run, places)
    split = data.load(found.config.data, splits=("test",)).splits["test"]
    images = split.images[: args.images].astype(np.float32) / 255
    labels = np.asarray(split.labels[: args.images])
    settings = found.config.data
    logits_fn = functools.partial(lambda v, x: found.predict(v, x)[0], found.variables)
    network = torch_network.normalised(
        found.config.model.name,
        torch_network.state_of(found.variables),
        settings.mean,
        settings.std,
    )
    there = network(pixels_of(images)).numpy()
    difference = np.abs(np.asarray(logits_fn(images)) - there).max()
    print(f"logits of both networks differ by {difference:.1e} at most")

    records = []
    for name, (norm, ours, theirs) in contestants(args, logits_fn, network).items():
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
            **duel(norm, ours, theirs, network, images, labels),
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
    )


def pixels_of(images: np.ndarray) -> Any:
    """The images as PyTorch takes them."""
    import torch

    return torch.tensor(images.transpose(0, 3, 1, 2).copy())


def duel(
    norm: str,
    ours: functools.partial,
    theirs: Callable,
    network: Any,
    images: np.ndarray,
    labels: np.ndarray,
) -> dict[str, Any]:
    """Runs both attacks on the points that are right, and measures."""
    import torch

    # One chunk compiles what all of them run.
    chunk = min(ours.keywords["chunk"], len(labels))
    first = common.timed(lambda: ours(images[:chunk], labels[:chunk])).clock
    result, seconds, _ = common.timed(lambda: ours(images, labels))
    right = result.survived["clean"]
    pixels, target = pixels_of(images[right]), torch.tensor(labels[right].astype(int))
    found, their_seconds, _ = common.timed(lambda: theirs(pixels, target).detach())
    still = (network(found).argmax(1) == target).numpy()
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
        "--run", type=places.argument, required=True, help="work directory"
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
    parser.add_argument("--out", type=places.argument, default=OUT)
    args = parser.parse_args()
    for norm in args.norms:
        norms.check_norm(norm)
    {"train": train, "compare": compare}[args.job](args)


if __name__ == "__main__":
    main()
