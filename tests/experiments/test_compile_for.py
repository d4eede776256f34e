"""Programs compiled for chips that aren't there: what is read in them, and some whole.

Tests marked "aot" need what `requirements-aot.txt` names and JAX 0.12.
"""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import jax
import pytest

from apr_jax.errors import ConfigError
from experiments.checks.compile_for import __main__ as command
from experiments.checks.compile_for import chips, compiled, measure, table

ROOT = pathlib.Path(__file__).resolve().parents[2]
# As a TPU's compiler writes it: a loop of three rounds, in each a gather of 6 x 50
# single words and one of 40 rows of 16, and beside it a scatter of 700 single words.
TEXT = """\
HloModule f, input_output_alias={ {0}: (0, {}, may-alias), {1}: (2, {}, must-alias) }

%body (p: f32[8]) -> f32[8] {
  %p = f32[8]{0} parameter(0)
  %g = f32[6,50]{1,0} gather(%p, %i), slice_sizes={1}, metadata={op_name="f/views/g"}
  %r = f32[40,16]{1,0} gather(%q, %i), offset_dims={1}, slice_sizes={1,16}
  ROOT %c = f32[8]{0} fusion(%g), calls=%add, backend_config={"estimated_cycles":"100"}
}

%add (x: f32[]) -> f32[] {
  ROOT %s = f32[] sqrt(%x)
}

%small (x: f32[8]) -> f32[8] {
  ROOT %a = f32[8]{0} add(%x, %x), backend_config={"estimated_cycles":"7"}
}

%large (x: f32[8]) -> f32[8] {
  ROOT %a = f32[8]{0} add(%x, %x), backend_config={"estimated_cycles":"40"}
}

ENTRY %main (a: f32[8]) -> f32[8] {
  %a = f32[8]{0} parameter(0)
  %w = f32[8]{0} while(%a), condition=%small, body=%body, \
backend_config={"known_trip_count":{"n":"3"}}
  %u = s32[700]{0} iota()
  %t = s32[256]{0} scatter(%a, %j, %u), update_window_dims={}, to_apply=%add
  %v = f32[8]{0} add(%w, %w), metadata={op_name="jit(f)/jvp(views)/add"}, \
backend_config={"estimated_cycles":"11"}
  %o = f32[8]{0} conditional(%k, %a, %a), branch_computations={%small, %large}
  %n = (f32[8]{0}, f32[2]{0}) all-reduce(%v, %z), to_apply=%add
  ROOT %f = c64[5]{0} fft(%a), fft_type=RFFT
}
"""
SHAPES = ("v5e", "v5p:", "v9:2x2", "h100:2", "")
WHOLE = (
    *("method standard", "method apr_p", "method apr_sp", "method mixup"),
    *("network resnext29_32x4", "corruption fog 32px", "corruption glass_blur 32px"),
    *("attack pgd linf", "attack square l2", "score vim", "score odin", "score knn"),
)


def test_what_is_read_in_a_program():
    program = compiled.Program(TEXT)
    # Loops by their rounds (with the condition's cycles), the dearer of two branches.
    assert program.cycles() == 3 * (100 + 7) + 11 + 40
    assert program.cycles("views") == 11
    assert program.look_ups("gather") == (3 * 300, 3 * 300)
    assert program.look_ups("scatter") == (700, 700)
    assert (program.all_reduces, program.ffts, program.donated) == (1, 1, 2)
    assert not program.doubles
    assert compiled.Program(TEXT.replace("f32[6,50]", "f64[6,50]")).doubles


def test_a_program_of_this_machine_is_read():
    given = jax.ShapeDtypeStruct((4, 8), "float32")
    run = jax.jit(lambda x: x + 1, donate_argnums=0).lower(given).compile()
    program = compiled.Program(run.as_text())
    assert program.donated == 1
    assert {own.kind for _, own in program.walk()} & {"add", "fusion", "call"}
    assert compiled.memory(run) == 4 * 8 * 4


def good(**changes):
    found = {
        "memory_share": 0.5,
        "all_reduces": 1,
        "ffts": 0,
        "doubles": False,
        "gathers": [10, 20],
        "scatters": [0, 0],
        "donated": 3,
        "to_donate": 3,
        "exported_alike": True,
    }
    return found | changes


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, []),
        ({"memory_share": 1.2}, ["memory"]),
        ({"all_reduces": 3}, ["3 all-reduces"]),
        ({"ffts": 1}, ["FFT"]),
        ({"doubles": True}, ["float64"]),
        ({"gathers": [2_500_000, 9]}, ["gathers 2.5 M words"]),
        ({"scatters": [2_500_000, 9]}, ["scatters 2.5 M words"]),
        ({"donated": 2}, ["not donated"]),
        ({"exported_alike": False}, ["exported otherwise"]),
    ],
)
def test_faults(changes, wanted):
    assert measure.faults_of(good(**changes), platform="tpu", step=True) == wanted
    elsewhere = measure.faults_of(good(**changes), platform="gpu", step=False)
    assert elsewhere == [w for w in wanted if w != "FFT" and "words" not in w]


def test_what_does_not_compile_is_a_fault():
    found = measure.faults_of({"error": "out of memory"}, platform="tpu", step=True)
    assert found == ["doesn't compile"]


def test_the_table_goes_between_its_marks(tmp_path):
    figures = {"memory": 2e9, "memory_share": 0.125, "seconds": 0.0123}
    named = {"target": "v5e:4x4", "program": "a"}
    first = good() | named | figures | {"faults": ["memory"]}
    second = first | {"faults": [], "augmentation": 0.25}
    page = tmp_path / "page.md"
    page.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n")
    for _ in range(2):  # what it wrote itself it finds again
        table.write(page, [first, second, named | {"program": "b", "error": "no"}])
    assert page.read_text() == (
        f"before\n{table.BEGIN}\n\n"
        "| target | program | memory a chip | estimate | augmentation | faults |\n"
        "|---|---|---|---|---|---|\n"
        "| v5e:4x4 | a | 2.00 GB, 12% | 12.30 ms + 2e-05 M words | 25% | none |\n"
        f"| v5e:4x4 | b |  |  |  | no |\n\n{table.END}\nafter\n"
    )
    page.write_text("no marks")
    with pytest.raises(ConfigError, match="--page is"):
        table.write(page, [])


@pytest.mark.parametrize("name", SHAPES)
def test_a_target_that_is_none(name):
    with pytest.raises(ConfigError, match=f"target is '{name}'"):
        chips.parse(name)


def test_it_goes_on_where_it_stopped(tmp_path, monkeypatch):
    made = []

    def record(program, target, *, exported):
        key = measure.key_of(program.name, target)
        made.append(program.name)
        return key | good(faults=["memory"] if "vim" in program.name else [])

    monkeypatch.setattr(measure.importlib.metadata, "version", lambda _: "1")
    monkeypatch.setattr(measure, "record", record)
    monkeypatch.setattr(chips, "describe", lambda name: name)
    out = tmp_path / "records.jsonl"
    given = ["v5e:2x2", "--out", str(out), "--programs", "score msp"]
    assert command.run(command.parser().parse_args(given)) == 0
    given[-1] = "score *"
    assert command.run(command.parser().parse_args(given)) == 1
    assert made.count("score msp") == 1
    assert len(made) == len(set(made)) == len(out.read_text().splitlines())
    assert command.run(command.parser().parse_args(given)) == 1
    assert len(made) == len(out.read_text().splitlines())
    with pytest.raises(ConfigError, match="--programs has 'nothing'"):
        command.chosen(["nothing"])


@pytest.mark.aot
@pytest.mark.timeout(1500)
def test_whole_programs_for_a_tpu(tmp_path):
    """At the lowest level of optimisation, which keeps what is looked at here."""
    if importlib.util.find_spec("libtpu") is None:
        pytest.skip("libtpu isn't installed: requirements-aot.txt")
    if jax.__version_info__ < (0, 12):
        pytest.skip("this libtpu is for JAX 0.12")
    out = tmp_path / "records.jsonl"
    # Without the flags of the tests' own programs, and their cache.
    kept = {k: v for k, v in os.environ.items() if k[:4] not in ("XLA_", "JAX_")}
    done = subprocess.run(
        [
            *(sys.executable, "-m", "experiments.checks.compile_for", "v5e:2x2"),
            *("--out", str(out), "--programs", *WHOLE),
        ],
        cwd=ROOT,
        env=kept | {"JAX_OPTIMIZATION_LEVEL": "O0", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    records = [json.loads(line) for line in out.read_text().splitlines()]
    assert sorted(r["program"] for r in records) == sorted(WHOLE)
    steps = [r for r in records if r["to_donate"]]
    assert len(steps) == 5
    assert all(1 <= r["all_reduces"] <= 2 for r in steps)
