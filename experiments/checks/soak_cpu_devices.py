"""Trains for thousands of steps with processor cores as devices, under a watchdog.

    python -m experiments.checks.soak_cpu_devices --steps 5000 --devices 2

Several CPU devices in one process can wait for each other for ever in a collective
if XLA's thread pool is starved. The training runs in a child process; if its curve
does not grow for ``--patience`` seconds the child is killed, and the step where it
hung is reported. Prints one JSON record and ends with status 1 after a hang.
"""

import argparse
import json
import math
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

from apr_jax.gates import places
from apr_jax.runs import jsonl
from apr_jax.train import plan
from experiments import recipes
from experiments.benchmarks import common


def child(workdir: pathlib.Path, args: argparse.Namespace) -> None:
    """Trains WRN-10-1 on noise; the numbers don't matter, the collectives do."""
    import numpy as np

    from apr_jax import config as config_lib
    from apr_jax import parallel, presets
    from apr_jax.train import loop

    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        np.savez(
            workdir / f"{split}.npz",
            images=rng.integers(0, 256, (1000, 32, 32, 3), dtype=np.uint8),
            labels=rng.integers(0, 10, 1000),
        )
    settings = recipes.changed(
        presets.base(),
        data__source="arrays",
        data__data_dir=str(workdir),
        data__cache_dir=str(workdir / "cache"),
        model__name="wrn_10_1",
        augment__method="apr_p",
        optim__learning_rate=0.01,
        optim__epochs=args.steps * args.batch / 1000,
        optim__milestones=(),
        train__batch_size=args.batch,
        train__devices=args.devices,
        train__log_every=math.gcd(50, args.steps),
        train__tensorboard=False,
    )
    config = config_lib.parse(settings.to_dict())
    parallel.declare_cpu_devices(args.devices)
    loop.train(plan.plan(config, workdir / "run"), quiet=True)


def watch(args: argparse.Namespace) -> dict[str, object]:
    """Runs the child; returns what happened as one record."""
    with tempfile.TemporaryDirectory() as folder:
        workdir = pathlib.Path(folder)
        curve = workdir / "run" / "metrics.jsonl"
        module = ("-m", "experiments.checks.soak_cpu_devices")
        command = [sys.executable, *module, "--child", folder, *sys.argv[1:]]
        started = grown = time.monotonic()
        size, hung = -1, False
        with subprocess.Popen(command, cwd=common.ROOT) as process:
            while process.poll() is None:
                time.sleep(0.5)
                now = curve.stat().st_size if curve.exists() else -1
                if now != size:
                    size, grown = now, time.monotonic()
                elif time.monotonic() - grown > args.patience:
                    hung = True
                    process.kill()
        rows = [row for _, row in jsonl.read(curve)] if curve.exists() else []
        speeds = [row["images_per_second"] for row in rows]
    import jax

    return common.stamped(
        experiment="soak_cpu_devices",
        jax=jax.__version__,
        devices=args.devices,
        batch=args.batch,
        steps_asked=args.steps,
        steps_done=rows[-1]["step"] if rows else 0,
        hung=hung,
        exit_status=process.returncode,
        seconds=round(time.monotonic() - started, 1),
        median_images_per_second=statistics.median_high(speeds) if rows else None,
    )


def main() -> None:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--devices", type=int, default=2)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--patience", type=float, default=120, help="seconds")
    parser.add_argument("--out", type=places.argument, help="append the record here")
    parser.add_argument("--child", type=places.argument, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child is not None:
        child(args.child, args)
        return
    record = watch(args)
    print(json.dumps(record))
    common.append(args.out, [record])
    if record["hung"] or record["steps_done"] != args.steps:
        sys.exit(1)


if __name__ == "__main__":
    main()
