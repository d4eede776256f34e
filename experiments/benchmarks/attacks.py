"""Speed of AutoAttack's four attacks: ours, and a PyTorch rival on the same network.

    python -m experiments.benchmarks.attacks
    python3.13 -m experiments.benchmarks.attacks --torch_python python3.11 \\
        --rival autoattack --images 64 256 --out FILE

A small WRN-10-1 after FGSM training (``networks/attacks_*.npz``, float16) is attacked
by each in turn on the points that the attacks before it left standing, with
AutoAttack's settings but for the queries of Square. Everybody is a process of its own
that has two cores. Ours finds an empty compile cache, so its time contains all that a
user waits for; with ``--again`` there is one more that finds what it has compiled. The
rivals are ``torchattacks`` (PyPI; no L1) and the original ``autoattack``
(github.com/fra31).
"""

import argparse
import functools
import json
import pathlib
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np

from experiments.benchmarks import common, contest, torch_network

MODULE = "experiments.benchmarks.attacks"
NETWORKS = pathlib.Path(__file__).with_name("networks")
MODEL = "wrn_10_1"
CLEAN = "clean"
NAMES = ("apgd-ce", "apgd-t", "fab-t", "square")
# Of each set of images: radii, of which the network was trained against the first.
EPS = {"linf": 4 / 255, "l2": 0.25, "l1": 5.0}
SETS = {
    "cifar10": {"source": "tfds", "name": "cifar10"},
}
# Farther than the ball by more than rounding doesn't count; some rivals return images
# out of it where they found none within.
_TOLERANCE = 1e-5

# Takes the name of an attack, returns the points that stand after it.
Turn = Callable[[str], list[int]]


def stored(data: str) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Weights in PyTorch's layout, mean and standard deviation of each channel."""
    with np.load(NETWORKS / f"attacks_{data}.npz") as file:
        arrays = {name: file[name].astype(np.float32) for name in file.files}
    return arrays, arrays.pop("mean"), arrays.pop("std")


def prepare(args: argparse.Namespace) -> None:
    """Writes the first test images, float32 in [0, 1], and their labels."""
    from apr_jax import config as config_lib
    from apr_jax import data

    places = {"data_dir": args.data_dir, "cache_dir": args.cache_dir}
    config = config_lib.parse({"data": SETS[args.data] | places})
    split = data.load(config.data, splits=("test",)).splits["test"]
    count = max(args.images)
    np.savez(
        args.folder / "points.npz",
        images=np.asarray(split.images[:count], np.float32) / 255,
        labels=np.asarray(split.labels[:count], np.int32),
    )


def jax_turn(args: argparse.Namespace, images: np.ndarray, labels: np.ndarray) -> Turn:
    """Ours: every attack as ``attacks.autoattack`` calls it."""
    import jax
    import jax.numpy as jnp

    from apr_jax import config as config_lib
    from apr_jax import models, process, tuning
    from apr_jax.attacks import rounds, sequence
    from apr_jax.models import torch_weights

    tuning.use_onednn()
    process.use_compile_cache(config_lib.parse({"data": {"cache_dir": args.kept}}).data)
    weights, mean, std = stored(args.data)
    model = models.build(MODEL, num_classes=10)
    variables = jax.tree.map(jnp.asarray, torch_weights.from_torch(MODEL, weights))

    def logits_fn(variables: Any, pixels: jax.Array) -> jax.Array:
        return model.apply(variables, (pixels - mean) / std, train=False)

    bound = functools.partial(logits_fn, variables)
    stages = sequence.make_stages("standard", args.norm, queries=args.queries)
    engine, images, labels = rounds.prepare(bound, images, labels, args.chunk)
    ball = {"norm": args.norm, "eps": EPS[args.norm]}
    results = rounds.attack_in_turn(
        engine, stages, jax.random.key(0), images, labels, **ball
    )

    def turn(name: str) -> list[int]:
        result = next(results)
        assert list(result.survived)[-1] == name
        return np.flatnonzero(result.robust).tolist()

    return turn


def torch_turn(
    args: argparse.Namespace, images: np.ndarray, labels: np.ndarray
) -> Turn:
    """A rival's, each called on what the one before it left standing."""
    import torch

    weights, mean, std = stored(args.data)
    network = torch_network.normalised(MODEL, weights, mean, std)
    placed, _ = torch_network.placed(network, args.cores)

    class ChannelsLast(torch.nn.Module):
        """The network in the layout that is faster; attacks want the usual one."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = placed

        def forward(self, x: Any) -> Any:
            return self.inner(x.contiguous(memory_format=torch.channels_last))

    network = ChannelsLast().eval()
    pixels = torch.tensor(images.transpose(0, 3, 1, 2).copy())
    target = torch.tensor(labels, dtype=torch.int64)
    make = {"autoattack": original, "torchattacks": port}[args.rival]
    attacks = make(network, args.norm, EPS[args.norm], args.queries)
    standing = torch.arange(len(target))

    def turn(name: str) -> list[int]:
        nonlocal standing
        left = []
        for rows in standing.split(args.chunk):
            x, y = pixels[rows], target[rows]
            found = x if name == CLEAN else attacks[name](x, y).detach()
            with torch.inference_mode():
                still = network(found).max(1).indices == y
            delta = (found - x).flatten(1)
            order = {"linf": float("inf"), "l2": 2, "l1": 1}[args.norm]
            far = torch.linalg.vector_norm(delta, order, dim=1)
            still = still | (far > EPS[args.norm] * (1 + _TOLERANCE) + _TOLERANCE)
            left.append(rows[still])
        standing = torch.cat(left)
        return standing.tolist()

    return turn


def original(network: Any, norm: str, eps: float, queries: int) -> dict[str, Callable]:
    """The attacks of the original AutoAttack, by our names."""
    import autoattack

    names = {"linf": "Linf", "l2": "L2", "l1": "L1"}
    found = autoattack.AutoAttack(
        network, norm=names[norm], eps=eps, seed=0, verbose=False, device="cpu"
    )
    found.square.n_queries = queries
    found.apgd.loss, found.fab.targeted = "ce", True
    for part in (found.apgd, found.apgd_targeted, found.fab, found.square):
        part.seed = 0
    calls = (found.apgd, found.apgd_targeted, found.fab, found.square)
    return {name: part.perturb for name, part in zip(NAMES, calls, strict=True)}


def port(network: Any, norm: str, eps: float, queries: int) -> dict[str, Callable]:
    """Those of torchattacks, with AutoAttack's settings."""
    import torchattacks

    if norm == "l1":
        sys.exit("torchattacks has no L1; take --rival autoattack")
    given = {"norm": {"linf": "Linf", "l2": "L2"}[norm], "eps": eps}
    steps = given | {"steps": 100}
    return {
        "apgd-ce": torchattacks.APGD(network, loss="ce", **steps),
        "apgd-t": torchattacks.APGDT(network, n_classes=10, **steps),
        "fab-t": torchattacks.FAB(network, multi_targeted=True, n_classes=10, **steps),
        "square": torchattacks.Square(
            network, n_queries=queries, resc_schedule=False, **given
        ),
    }


def child(args: argparse.Namespace) -> None:
    """Reads the task, then answers each name with seconds and who stands."""
    for name, value in json.loads((args.folder / "task.json").read_text()).items():
        setattr(args, name, value)
    with np.load(args.folder / "points.npz") as file:
        images, labels = (file[k][: args.count] for k in ("images", "labels"))
    make = torch_turn if args.child == "torch" else jax_turn
    made: list[Turn] = []

    def once(name: str) -> list[int]:
        # What it takes to begin is timed with the clean images.
        if not made:
            made.append(make(args, images, labels))
        return made[0](name)

    def turn(name: str) -> dict[str, Any]:
        done = common.timed(lambda: once(name))
        print(f"{args.child} {name}: {done.clock:.1f} s", file=sys.stderr, flush=True)
        return {"seconds": done.clock, "standing": done.result}

    contest.answer(args.child, turn)


def compare(args: argparse.Namespace, norm: str, count: int) -> list[dict[str, Any]]:
    """Lets ours and the rival take turns; returns a record for each attack."""
    kept = args.folder / f"cache_{norm}_{count}"
    task = {"norm": norm, "count": count, "kept": str(kept)}
    (args.folder / "task.json").write_text(json.dumps(task))
    ours = [("first run", sys.executable, "jax"), ("second", sys.executable, "jax")]
    contestants = contest.compare(
        [
            *ours[: 2 if args.again else 1],
            (args.rival, args.torch_python, "torch"),
        ],
        [MODULE, "--folder", str(args.folder)],
        [CLEAN, *NAMES],
        patience=args.patience,
    )
    first, *_, rival = contestants
    shared = {
        "data": args.data,
        "model": MODEL,
        "norm": norm,
        "eps": EPS[norm],
        "images": count,
        "chunk": args.chunk,
        "queries": args.queries,
        "cores": args.cores,
        "version": first.first["version"],
        "rival": f"{args.rival}, {rival.first['version']}",
    }
    records = []
    rows = {name: [number] for number, name in enumerate((CLEAN, *NAMES))}
    rows["together"] = list(range(1, 1 + len(NAMES)))
    for name, turns in rows.items():
        seconds = [sum(c.seconds[i] for i in turns) for c in contestants]
        ours, theirs = (set(c.answers[turns[-1]]["standing"]) for c in (first, rival))
        records.append(
            common.stamped(
                experiment="bench_attacks",
                attack=name,
                **shared,
                seconds=seconds[0],
                seconds_cached=seconds[1] if args.again else None,
                seconds_rival=seconds[-1],
                ratio=seconds[0] / seconds[-1],
                ratio_cached=seconds[1] / seconds[-1] if args.again else None,
                standing=len(ours),
                standing_rival=len(theirs),
                only_ours=len(ours - theirs),
                only_rival=len(theirs - ours),
            )
        )
    return records


def main() -> None:
    """Parses the command line."""
    parser = contest.children_parser(__doc__, model=MODEL, rounds=1, patience=600)
    parser.add_argument("--data", default="cifar10", choices=tuple(SETS))
    parser.add_argument("--data_dir", default="", help="of TFDS, for cifar10")
    parser.add_argument("--cache_dir", default="")
    rivals = ("torchattacks", "autoattack")
    parser.add_argument("--rival", default=rivals[0], choices=rivals)
    parser.add_argument("--norms", nargs="+", default=["linf"], choices=tuple(EPS))
    parser.add_argument("--images", nargs="+", type=int, default=[64, 256])
    parser.add_argument("--chunk", type=int, default=256, help="at a time, at most")
    parser.add_argument("--queries", type=int, default=1000, help="of Square")
    parser.add_argument("--again", action="store_true", help="also with a full cache")
    parser.add_argument("--folder", type=pathlib.Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args)
        return
    with tempfile.TemporaryDirectory() as folder:
        args.folder = pathlib.Path(folder)
        prepare(args)
        for norm in args.norms:
            for count in args.images:
                records = compare(args, norm, count)
                common.append(args.out, records)
                common.show(
                    f"{args.data}, {norm}, {count} images",
                    {
                        "": "{attack}",
                        "seconds": "{seconds:.1f}",
                        args.rival: "{seconds_rival:.1f}",
                        "ratio": "{ratio:.2f}",
                        "from the cache": "{ratio_cached}",
                        "standing": "{standing}",
                        "theirs": "{standing_rival}",
                        "only ours": "{only_ours}",
                        "only theirs": "{only_rival}",
                    },
                    records,
                )


if __name__ == "__main__":
    main()
