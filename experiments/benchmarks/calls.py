"""What a call of a mapped step costs the host, by pmap and over a mesh.

    python -m experiments.benchmarks.calls --processes 1 2 4

The step does next to nothing with a state of as many arrays as WRN-40-2's, so that the
time is that of the call. Processes have a device each, of the machine's processor, and
take both ways in turns; the bits of both are compared. Prints one JSON record for each
number of processes: milliseconds a call, of the fastest turn.
"""

import argparse
import json
import socket
import subprocess
import sys
import time
from typing import Any

from apr_jax.gates import places
from experiments.benchmarks import common

_ARRAYS = 500
_WAYS = ("pmap", "shard_map")


def child(args: argparse.Namespace) -> None:
    """One of the processes; the first prints what it found."""
    import jax
    import numpy as np

    from apr_jax import parallel

    number = int(args.child)
    if args.count > 1:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        parallel.start_processes(args.coordinator, args.count, number)
    rng = np.random.default_rng(0)
    state = {str(i): rng.random(16, np.float32) for i in range(_ARRAYS)}
    rows = np.arange(8, dtype=np.float32) + number

    def step(state: Any, rows: Any) -> Any:
        own = jax.lax.pmean(rows.mean(), parallel.AXIS)
        return jax.tree.map(lambda leaf: leaf + own, state), own

    seconds: dict[str, list[float]] = {way: [] for way in _WAYS}
    ends = {}
    made = {}
    for way in _WAYS:
        layout = parallel.make_layout(0, way)
        run = parallel.map_devices(step, layout, donate=(0,), same=True)
        mine = parallel.split_batch(rows, layout)
        made[way] = run, mine, parallel.replicate(state, layout)
    for _ in range(args.turns):
        for way, (run, mine, now) in made.items():
            now, last = run(now, mine)
            jax.block_until_ready(last)
            start = time.perf_counter()
            for _ in range(args.calls):
                now, last = run(now, mine)
            jax.block_until_ready(last)
            seconds[way].append((time.perf_counter() - start) / args.calls)
            made[way] = run, mine, now
            ends[way] = parallel.first_copy(now)
    alike = all(
        np.array_equal(one, other)
        for one, other in zip(*(e.values() for e in ends.values()), strict=True)
    )
    if number == 0:
        fastest = {way: 1e3 * min(found) for way, found in seconds.items()}
        print(json.dumps({"milliseconds": fastest, "same_bits": alike}), flush=True)


def measure(args: argparse.Namespace, count: int) -> dict[str, Any]:
    """Starts the processes; returns a record."""
    with socket.socket() as found:
        found.bind(("localhost", 0))
        port = found.getsockname()[1]
    given = [
        *(sys.executable, "-m", "experiments.benchmarks.calls"),
        *("--count", str(count), "--coordinator", f"localhost:{port}"),
        *("--calls", str(args.calls), "--turns", str(args.turns)),
    ]
    started = [
        subprocess.Popen(
            [*given, "--child", str(i)], stdout=subprocess.PIPE, cwd=common.ROOT
        )
        for i in range(count)
    ]
    said = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        sys.exit(f"one of {count} processes failed")
    found_by_first = json.loads(said[0].splitlines()[-1])
    return common.stamped(
        experiment="bench_calls",
        processes=count,
        arrays=_ARRAYS,
        calls=args.calls,
        turns=args.turns,
        **found_by_first,
    )


def main() -> None:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--calls", type=int, default=50)
    parser.add_argument("--turns", type=int, default=6)
    parser.add_argument("--out", type=places.argument, help="append records here")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--coordinator", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child is not None:
        child(args)
        return
    for count in args.processes:
        record = measure(args, count)
        print(json.dumps(record))
        common.append(args.out, [record])


if __name__ == "__main__":
    main()
