"""Speed of a training step: JAX on one device, on all, and PyTorch, in one run.

    python -m experiments.benchmarks.train_step
    python3.13 -m experiments.benchmarks.train_step --torch_python python3.11
    python -m experiments.benchmarks.train_step --profile --dtype bfloat16

WRN-40-2, a batch of 128 clean and 128 recombined images, SGD with Nesterov momentum
and weight decay. Every contestant is a process of its own that compiles first; then
they take turns, so that what else the machine does hits all of them. Images per
second count the clean ones. PyTorch may live in another Python than JAX.
"""

import argparse
import collections
import re
import statistics
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from experiments.benchmarks import common, contest, torch_network


def batch(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Random uint8 images [size, 32, 32, 3] and labels [size]."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (size, 32, 32, 3), dtype=np.uint8)
    return images, rng.integers(0, 10, size).astype(np.int32)


def jax_step(
    args: argparse.Namespace, devices: int, *, plain: bool
) -> Callable[[], Any]:
    """A function that does one step of ``apr_jax`` and waits for it.

    ``plain`` takes XLA's own convolution gradients instead of the project's.
    """
    import jax

    from apr_jax import config as config_lib
    from apr_jax import network as network_lib
    from apr_jax import parallel, tuning
    from apr_jax.models import convolution
    from apr_jax.train import optim, step
    from apr_jax.train.state import init_state

    if plain:
        convolution.conv_general_dilated = jax.lax.conv_general_dilated
    if not plain:
        tuning.use_onednn()
    parallel.declare_cpu_devices(devices)
    settings = {
        "model": {"name": args.model, "dtype": args.dtype},
        "augment": {"method": args.method, "pair_prob": 1.0},
    }
    config = config_lib.parse(settings)
    layout = parallel.make_layout(devices)
    model = network_lib.make_model(config, num_classes=10)
    optimizer = optim.make_optimizer(config.optim, optim.schedule(config.optim, 390.0))
    state = init_state(jax.random.key(0), model, optimizer, (32, 32, 3))
    options = {"axis_name": parallel.AXIS, "fuse": not layout.accelerated}
    run = step.make_train_step(model, optimizer, config, **options)
    mapped = parallel.map_devices(run, layout, donate=(0,))
    images, labels = parallel.split_batch(batch(args.batch), layout)
    positions = parallel.split_batch(np.arange(args.batch, dtype=np.int32), layout)
    key = parallel.replicate(jax.random.key(1), layout)
    states = [parallel.replicate(state, layout)]

    def once() -> None:
        states[0], metrics = mapped(states[0], images, labels, positions, key)
        jax.block_until_ready(metrics)

    return once


def torch_step(args: argparse.Namespace) -> Callable[[], Any]:
    """A function that does the same step in PyTorch."""
    import torch

    network = torch_network.build(args.model)
    network, device = torch_network.placed(network, args.cores)
    optimizer = torch.optim.SGD(
        [p for p in network.parameters() if p.requires_grad],
        0.1,
        momentum=0.9,
        nesterov=True,
        weight_decay=5e-4,
    )
    images, labels = batch(args.batch)
    pixels = torch.tensor(images.transpose(0, 3, 1, 2)).to(device)
    target = torch.tensor(labels, dtype=torch.int64).to(device)
    narrow = args.dtype == "bfloat16"

    def once() -> None:
        x = pixels.float() / 255
        if args.method in ("apr_p", "apr_sp"):  # APR-S has no PyTorch form here
            donor = torch.fft.fftn(x[torch.randperm(len(x))], dim=(1, 2, 3)).abs()
            phase = torch.fft.fftn(x, dim=(1, 2, 3)).angle()
            mixed = torch.fft.ifftn(donor * torch.exp(1j * phase), dim=(1, 2, 3)).real
            x = torch.cat([x, mixed])
        x = ((x - 0.47) / 0.25).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device, dtype=torch.bfloat16, enabled=narrow):
            logits = network(x)
        halves = logits.float().split(len(target))
        loss = sum(torch.nn.functional.cross_entropy(h, target) for h in halves)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        loss.item()  # waits

    return once


def child(args: argparse.Namespace) -> None:
    """Compiles, then answers each line on standard input with seconds a step."""
    kind, _, count = args.child.partition(":")
    if kind == "torch":
        once = torch_step(args)
    else:
        once = jax_step(args, int(count), plain=kind == "plain")
    once()
    once()

    def turn(_: None) -> dict[str, float]:
        return {"seconds": common.seconds_of(once, args.steps) / args.steps}

    contest.answer(kind, turn)


def profile(args: argparse.Namespace) -> list[dict[str, Any]]:
    """The ten kinds of XLA's operations that take most of a step on one device.

    Operations run beside one another, so the shares are of the sum of their times.
    """
    once = jax_step(args, 1, plain=args.plain)
    once()
    once()
    spent, calls = collections.Counter[str](), collections.Counter[str]()
    for name, seconds in common.operations(once):
        kind = re.sub(r"\.\d+|\.clone", "", name)
        spent[kind] += seconds
        calls[kind] += 1
    total = sum(spent.values())
    return [
        common.stamped(
            experiment="profile_train_step",
            operation=kind,
            calls=calls[kind],
            milliseconds=1000 * seconds,
            share=seconds / total,
            **{name: getattr(args, name) for name in ("model", "method", "dtype")},
            batch=args.batch,
            plain=args.plain,
        )
        for kind, seconds in spent.most_common(10)
    ]


def compare(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Lets the contestants take turns; returns a record for each."""
    kinds = [("one device", sys.executable, "jax:1")]
    if args.cores > 1 and not args.accelerator:
        kinds.append((f"{args.cores} devices", sys.executable, f"jax:{args.cores}"))
    if args.plain:
        kinds.append(("one device, plain", sys.executable, "plain:1"))
    kinds.append(("PyTorch", args.torch_python, "torch"))
    # The C library reads this when a process starts. It spares the kernel most of the
    # work of handing out fresh memory in each step.
    tunables = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
    contestants = contest.compare(
        kinds,
        ["experiments.benchmarks.train_step"],
        [None] * args.rounds,
        patience=args.patience,
        environment=tunables if args.huge_pages else {},
        environments={"plain:1": {"APR_JAX_KEEP_MEMORY": "0"}},
    )
    names = ("model", "method", "dtype", "batch", "huge_pages", "rounds")
    speed = lambda c: {"images_per_second": args.batch / statistics.median(c.seconds)}
    shared = {name: getattr(args, name) for name in names}
    return contest.compared("bench_train_step", contestants, speed, **shared)


def main() -> None:
    """Parses the command line."""
    parser = contest.children_parser(__doc__, model="wrn_40_2", rounds=3, patience=600)
    parser.add_argument("--method", default="apr_p")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--batch", type=int, default=128, help="clean images")
    parser.add_argument("--steps", type=int, default=1, help="in each turn")
    parser.add_argument("--huge_pages", action="store_true", help="for all of them")
    parser.add_argument("--accelerator", action="store_true")
    parser.add_argument("--plain", action="store_true", help="also as JAX is by itself")
    parser.add_argument(
        "--profile", action="store_true", help="what the step's time goes into"
    )
    args = parser.parse_args()
    if args.child:
        child(args)
        return
    if args.profile:
        columns = {
            "": "{operation}",
            "calls": "{calls}",
            "ms": "{milliseconds:.1f}",
            "share": "{share:.1%}",
        }
        records = profile(args)
        common.show(f"{args.model}, {args.dtype}", columns, records)
        common.append(args.out, records)
        return
    records = compare(args)
    common.show(
        f"{args.model}, {args.batch} clean images a step",
        {
            "": "{contestant}",
            "version": "{version}",
            "images/s": "{images_per_second:.1f}",
            "of PyTorch": "{ratio_to_pytorch:.2f}",
        },
        records,
    )
    common.append(args.out, records)


if __name__ == "__main__":
    main()
