"""Compiles a program for a target, and says what of it is not as it should be."""

import collections
import functools
import importlib.metadata
import re
import time
from collections.abc import Mapping
from typing import Any

import jax

from apr_jax import parallel
from apr_jax import target as target_lib
from experiments.benchmarks import common
from experiments.checks.compile_for import compiled as compiled_lib
from experiments.checks.compile_for.chips import Target
from experiments.checks.compile_for.programs import Program

# Of the scope that training steps make their views in.
SCOPE = "views"
# Single words that a step may look up at once: a TPU takes them one by one.
_WORDS = 1_000_000
_REDUCES = 2
_LOWERED = {"tpu": "tpu", "gpu": "cuda"}
_CHOOSING = {"broadcast_in_dim", "case", "constant", "return"}


def record(program: Program, target: Target, *, exported: bool) -> dict[str, Any]:
    """Compiles a program; returns its record.

    Args:
        program: of ``programs.every``.
        target: what to compile for.
        exported: whether to compare what a CPU exports with it, too.
    """
    known = key_of(program.name, target.name)
    try:
        found = _measured(program, target, exported)
    except jax.errors.JaxRuntimeError as error:
        found = {"error": str(error).splitlines()[0][:300]}
    faults = faults_of(found, platform=target.chip.platform, step=program.step)
    return common.stamped(experiment="compile_for", **known, **found, faults=faults)


def key_of(program: str, target: str) -> dict[str, str]:
    """What tells a record from others: it isn't made again where it is there."""
    library = "jax-cuda13-pjrt" if target.startswith("h100") else "libtpu"
    return {
        "program": program,
        "target": target,
        "optimisation": jax.config.jax_optimization_level,
        "jax": jax.__version__,
        "compiler": importlib.metadata.version(library),
    }


def _measured(program: Program, target: Target, exported: bool) -> dict[str, Any]:
    chip, layout = target.chip, target.layout
    if not program.mapped:
        layout = parallel.Layout(layout.devices[:1])
    started = time.process_time()
    with target_lib.for_platform(chip.platform):
        function, args = program.make(parallel.AXIS)
        count = layout.count
        each = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((count, *x.shape), x.dtype), args
        )
        run = parallel.map_devices(function, layout, donate=program.donate)
        lowered = run.lower(*each)
    same = exported_alike(program, chip.platform) if exported else None
    compiled = lowered.compile(compiler_options=target.options)
    text = compiled_lib.Program(compiled.as_text())
    bytes_needed = compiled_lib.memory(compiled)
    found: dict[str, Any] = {
        "chips": count,
        "memory": bytes_needed,
        "memory_share": bytes_needed / chip.memory,
        "all_reduces": text.all_reduces,
        "ffts": text.ffts,
        "doubles": text.doubles,
        "gathers": text.look_ups("gather"),
        "scatters": text.look_ups("scatter"),
        "donated": text.donated,
        "to_donate": len(jax.tree.leaves([args[i] for i in program.donate])),
        "exported_alike": same,
        "processor_seconds": round(time.process_time() - started, 1),
    }
    if chip.hertz:
        found["seconds"] = text.cycles() / chip.hertz
        if program.step:
            found["augmentation"] = text.cycles(SCOPE) / max(1, text.cycles())
    return found


def exported_alike(program: Program, platform: str) -> bool:
    """Whether a CPU's host lowers what is lowered where the platform is told."""
    function, args = program.make(None)
    counts = [_operations(function, args, platform)]
    with target_lib.for_platform(platform):
        counts.append(_operations(function, args, platform))
    return counts[0] == counts[1]


def _operations(function: Any, args: Any, platform: str) -> collections.Counter[str]:
    fresh = lambda *args: function(*args)  # the trace of another isn't taken
    traced = jax.jit(fresh).trace(*args)
    text = traced.lower(lowering_platforms=(_LOWERED[platform],)).as_text()
    return _counted(text)


def _counted(text: str) -> collections.Counter[str]:
    """Operations of a StableHLO module, those of its functions at each call."""
    parts = re.split(r"func\.func (?:public|private) @", text)[1:]
    bodies = {re.match(r"[\w.]+", part)[0]: part for part in parts}

    @functools.cache
    def of(name: str) -> collections.Counter[str]:
        body = bodies[name]
        found = collections.Counter(re.findall(r"stablehlo\.(\w+)", body))
        for called in re.findall(r"call @([\w.]+)", body):
            found.update(of(called))
        return found

    whole = of("main")
    return collections.Counter({k: v for k, v in whole.items() if k not in _CHOOSING})


def faults_of(found: Mapping[str, Any], *, platform: str, step: bool) -> list[str]:
    """What a record shows that shouldn't be; the rules for look-ups are a step's."""
    if "error" in found:
        return ["doesn't compile"]
    bad = {
        "memory": found["memory_share"] > 1,
        f"{found['all_reduces']} all-reduces": found["all_reduces"] > _REDUCES,
        "FFT": platform == "tpu" and found["ffts"] > 0,
        "float64": found["doubles"],
        "not donated": found["donated"] < found["to_donate"],
        "exported otherwise": found["exported_alike"] is False,
    }
    for kind in ("gathers", "scatters"):
        most = found[kind][0]
        bad[f"{kind} {most / 1e6:.1f} M words"] = step and most > _WORDS
    return [name for name, is_bad in bad.items() if is_bad]
