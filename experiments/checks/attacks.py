"""Our attacks beside those of ``torchattacks``, on the same weights and images.

    python -m experiments.checks.attacks train --data_dir TFDS --weights robust.npz
    python -m experiments.checks.attacks compare --data_dir TFDS --weights robust.npz

``train`` makes a small network adversarially robust: one signed gradient step from a
random start for each batch (Wong et al. 2020). ``compare`` attacks it with both
implementations, one after the other in one process, and appends a record for each
attack: robust accuracy of both, and how long each took. It needs PyTorch and
torchattacks. Compiling is not part of our time; it is given apart.
"""

import argparse
import datetime
import functools
import json
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import rich.console
import rich.table

from apr_jax import attacks, data, presets
from apr_jax import config as config_lib
from apr_jax import network as network_lib
from apr_jax.attacks import norms, rounds
from apr_jax.attacks.core import Points
from apr_jax.attacks.pgd import PGD
from apr_jax.pixels import normalise, to_pixels
from apr_jax.runs import files
from apr_jax.train import losses, optim, views
from apr_jax.train.state import init_state

OUT = pathlib.Path(__file__).parents[1] / "results" / "check_attacks.jsonl"
# Radii to attack with; the first is trained against. Small networks resist no more.
EPS = {"linf": 4 / 255, "l2": 0.25, "l1": 5.0}


def configuration(args: argparse.Namespace) -> config_lib.Config:
    """Returns the configuration that training and comparison share."""
    settings = presets.cifar(f"{args.model},standard,cifar10")
    settings.name = "check_attacks"
    settings.data.update(data_dir=args.data_dir, cache_dir=args.cache_dir)
    settings.optim.update(
        learning_rate=args.rate, epochs=args.epochs, schedule="cyclic", nesterov=False
    )
    return config_lib.parse(settings.to_dict())


def make_step(model: Any, optimizer: Any, config: config_lib.Config) -> Callable:
    """Returns a training step on images after one gradient step, from noise."""
    attack = PGD("linf", "ce", 1, 1.25)

    def train_step(
        state: Any, images: jax.Array, labels: jax.Array, key: jax.Array
    ) -> tuple[Any, jax.Array]:
        key = jax.random.fold_in(key, state.step)
        rows = jnp.arange(len(labels))
        clean = to_pixels(views.augment_images(key, images, rows, config.augment))

        def apply(params: Any, pixels: jax.Array) -> tuple[jax.Array, Any]:
            return model.apply(
                {"params": params, "batch_stats": state.batch_stats},
                normalise(pixels, config.data),
                train=True,
                mutable=["batch_stats"],
            )

        ones = jnp.ones(len(labels))
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, rows)
        points = Points(keys, clean, labels, labels, ones * EPS["linf"], ones)
        logits_fn = lambda pixels: apply(state.params, pixels)[0]
        moved = attack.step(logits_fn, attack.init(logits_fn, points)).images

        def loss_fn(params: Any) -> tuple[jax.Array, Any]:
            logits, updates = apply(params, moved)
            accuracy = (logits.argmax(1) == labels).mean()
            loss = losses.cross_entropy(logits, labels)
            return loss, (updates["batch_stats"], loss, accuracy)

        grads, (stats, loss, accuracy) = jax.grad(loss_fn, has_aux=True)(state.params)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        state = state.replace(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            batch_stats=stats,
            opt_state=opt_state,
        )
        return state, jnp.stack([loss, accuracy])

    return train_step


def train(args: argparse.Namespace) -> None:
    """Trains the network and writes its weights, leaves named by their paths."""
    config = configuration(args)
    images, labels = data.load(config.data, splits=("train",)).splits["train"]
    size, batch = len(labels), config.train.batch_size
    model = network_lib.make_model(config, num_classes=10)
    optimizer = optim.sgd(config.optim, optim.schedule(config.optim, size / batch))
    key = jax.random.key(config.seed)
    state = init_state(key, model, optimizer, (32, 32, 3))
    run = jax.jit(make_step(model, optimizer, config), donate_argnums=0)
    steps = int(args.epochs * size / batch)
    started, recent = time.monotonic(), []
    for i in range(steps):
        index = data.global_indices(config.seed, i, 1, batch, size)[0]
        state, metrics = run(state, images[index], labels[index], key)
        recent.append(metrics)
        if (i + 1) % 50 == 0:
            loss, accuracy = np.mean(jax.device_get(recent), axis=0)
            seconds, recent = time.monotonic() - started, []
            print(
                f"step {i + 1} of {steps}: loss {loss:.3f}, accuracy under attack "
                f"{accuracy:.3f}, {seconds:.0f} s",
                flush=True,
            )
            save(args.weights, state.variables)
    save(args.weights, state.variables)


def save(path: pathlib.Path, variables: Any) -> None:
    """Writes variables as an ``.npz`` file."""
    leaves = jax.tree_util.tree_leaves_with_path(variables)
    files.write_arrays(
        path, {jax.tree_util.keystr(p): np.asarray(x) for p, x in leaves}
    )


def read(path: pathlib.Path, like: Any) -> Any:
    """Reads the variables of a network whose variables are shaped like ``like``."""
    with files.archive(path) as stored:
        return jax.tree_util.tree_map_with_path(
            lambda p, _: jnp.asarray(stored[jax.tree_util.keystr(p)]), like
        )


def torch_model(variables: Any, model: str, settings: config_lib.Data) -> Any:
    """Returns the same network in PyTorch, normalisation included."""
    import torch
    from torch import nn

    from experiments.benchmarks.train_step import torch_network

    network = torch_network(model)
    tensor = lambda leaf: torch.tensor(np.asarray(leaf))

    def fill(layer: Any, *names: str) -> None:
        params: Any = variables["params"]
        stats: Any = variables["batch_stats"]
        for name in names:
            params, stats = params[name], stats.get(name, {})
        if "kernel" in params:
            kernel = np.asarray(params["kernel"])
            axes = (3, 2, 0, 1) if kernel.ndim == 4 else (1, 0)
            layer.weight.data = tensor(kernel.transpose(axes))
        else:
            layer.weight.data = tensor(params["scale"])
            layer.running_mean.data = tensor(stats["mean"])
            layer.running_var.data = tensor(stats["var"])
        if "bias" in params:
            layer.bias.data = tensor(params["bias"])

    each = (int(model.split("_")[1]) - 4) // 6
    fill(network[0], "conv1")
    for i in range(3 * each):
        block = network[1 + i]
        where = (f"block{i // each + 1}", f"layer_{i % each}")
        fill(block.before[0], *where, "bn1")
        fill(block.body[0], *where, "conv1")
        fill(block.body[1], *where, "bn2")
        fill(block.body[3], *where, "conv2")
        if block.shortcut is not None:
            fill(block.shortcut, *where, "conv_shortcut")
    fill(network[1 + 3 * each], "bn1")
    fill(network[-1], "fc")

    class Normalised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network
            shape = (1, 3, 1, 1)
            self.mean = nn.Parameter(torch.tensor(settings.mean).reshape(shape))
            self.std = nn.Parameter(torch.tensor(settings.std).reshape(shape))

        def forward(self, pixels: Any) -> Any:
            return self.network((pixels - self.mean) / self.std)

    return Normalised().eval().requires_grad_(False)


def contestants(args: argparse.Namespace, torch_net: Any) -> dict[str, tuple]:
    """Returns name -> (norm, our attack, theirs), both ready to be called."""
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
    config = configuration(args)
    split = data.load(config.data, splits=("test",)).splits["test"]
    images = split.images[: args.images].astype(np.float32) / 255
    labels = np.asarray(split.labels[: args.images])
    model = network_lib.make_model(config, num_classes=10)
    like = jax.eval_shape(
        lambda key: model.init(key, jnp.zeros((1, 32, 32, 3)), train=False),
        jax.random.key(0),
    )
    variables = read(args.weights, like)
    predict = network_lib.make_predict(model, config)
    logits_fn = functools.partial(lambda v, pixels: predict(v, pixels)[0], variables)
    network = torch_model(variables, args.model, config.data)
    pixels = torch.tensor(images.transpose(0, 3, 1, 2).copy())
    target = torch.tensor(labels, dtype=torch.int64)
    with torch.no_grad():
        difference = np.abs(np.asarray(logits_fn(images)) - network(pixels).numpy())
    print(f"logits of both networks differ by {difference.max():.1e} at most")

    table = rich.table.Table(title=f"Robust accuracy, {args.images} images")
    for heading in ("", "ours", "torchattacks", "s", "plus compiling", "theirs, s"):
        table.add_column(heading, justify="right")
    for name, (norm, ours, theirs) in contestants(args, network).items():
        record = duel(
            norm, ours, theirs, logits_fn, network, images, labels, pixels, target
        )
        record = {
            "experiment": "check_attacks",
            "attack": name,
            "eps": EPS[norm],
            "steps": args.steps,
            "queries": args.queries,
            "images": args.images,
            "model": args.model,
            "jax": jax.__version__,
            "torch": torch.__version__,
            "device": jax.devices()[0].device_kind,
            "cores": args.cores,
            **record,
            "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }
        with args.out.open("a") as file:
            file.write(json.dumps(record) + "\n")
        print(json.dumps(record), flush=True)
        table.add_row(
            name,
            f"{100 * record['ours']:.1f} %",
            f"{100 * record['torchattacks']:.1f} %",
            f"{record['ours_seconds']:.1f}",
            f"{record['compile_seconds']:.1f}",
            f"{record['torchattacks_seconds']:.1f}",
        )
    rich.console.Console().print(table)


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
    parser.add_argument("--weights", type=pathlib.Path, required=True)
    parser.add_argument("--model", default="wrn_10_1", help="wrn_D_K")
    parser.add_argument("--epochs", type=float, default=1.5)
    parser.add_argument("--rate", type=float, default=0.2, help="highest of the cycle")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--chunk", type=int, default=64)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--norms", nargs="+", default=["linf", "l2"])
    parser.add_argument(
        "--attacks",
        nargs="+",
        default=[
            "fgsm",
            "pgd",
            "apgd-ce",
            "apgd-dlr",
            "apgd-t",
            "fab",
            "fab-t",
            "square",
        ],
    )
    parser.add_argument("--out", type=pathlib.Path, default=OUT)
    args = parser.parse_args()
    for norm in args.norms:
        norms.check_norm(norm)
    {"train": train, "compare": compare}[args.job](args)


if __name__ == "__main__":
    main()
