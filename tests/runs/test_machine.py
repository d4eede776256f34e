"""What records say of the processor, by files of systems that aren't this one."""

import importlib.metadata
import os
import pathlib
import platform

import pytest

from apr_jax.metrics import intervals
from apr_jax.runs import machine as machine_lib
from apr_jax.runs import records
from tests.runs.test_records import record

CPUINFO = pathlib.Path("/proc/cpuinfo")
XEON = """processor\t: 0
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 143
model name\t: {name}
flags\t\t: fpu vme sse sse2 avx fma avx2 avx512f avx512cd amx_tile amx_bf16

processor\t: 1
model name\t: another
flags\t\t: fpu
"""
GRAVITON = """processor\t: 0
BogoMIPS\t: 2100.00
Features\t: fp asimd evtstrm aes asimdhp sve bf16 i8mm
CPU implementer\t: 0x41
"""
APPLE = """machdep.cpu.brand_string: Apple M4 Pro
hw.optional.floatingpoint: 1
hw.optional.AdvSIMD: 1
hw.optional.arm.FEAT_BF16: 1
hw.optional.arm.FEAT_I8MM: 1
hw.optional.arm.FEAT_SME: 0
"""
OLD_MAC = """machdep.cpu.brand_string: Intel(R) Core(TM) i7-8850H CPU @ 2.60GHz
hw.optional.avx1_0: 1
hw.optional.avx2_0: 1
hw.optional.fma: 1
hw.optional.avx512f: 0
"""


@pytest.mark.parametrize(
    ("read", "text", "expected"),
    [
        (
            machine_lib.of_cpuinfo,
            XEON.format(name="Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz"),
            (
                "Intel Xeon Platinum 8481C CPU @ 2.70GHz",
                ["avx", "avx2", "fma", "avx512f", "amx_bf16"],
            ),
        ),
        (
            machine_lib.of_cpuinfo,
            XEON.format(name="Intel Xeon Processor"),
            (
                "Intel Xeon Processor (family 6, model 143)",
                ["avx", "avx2", "fma", "avx512f", "amx_bf16"],
            ),
        ),
        (
            machine_lib.of_cpuinfo,
            GRAVITON,
            ("", ["asimd", "asimdhp", "bf16", "i8mm", "sve"]),
        ),
        (
            machine_lib.of_sysctl,
            APPLE,
            ("Apple M4 Pro", ["asimd", "bf16", "i8mm"]),
        ),
        (
            machine_lib.of_sysctl,
            OLD_MAC,
            ("Intel Core i7-8850H CPU @ 2.60GHz", ["avx", "avx2", "fma"]),
        ),
        (machine_lib.of_cpuinfo, "", ("", [])),
        (machine_lib.of_sysctl, "", ("", [])),
    ],
)
def test_processors_of_other_systems(read, text, expected):
    assert read(text) == expected


def test_the_machine_has_what_repeating_a_figure_takes():
    text = machine_lib.machine()
    assert f"JAX {importlib.metadata.version('jax')}" in text
    assert text.endswith(f"Python {platform.python_version()}")
    assert len(text) < 250  # it stands in every line of the records


@pytest.mark.skipif(not CPUINFO.exists(), reason="Linux alone has /proc/cpuinfo")
def test_the_machine_has_the_extensions_that_linux_tells():
    text, flags = machine_lib.machine(), CPUINFO.read_text().split()
    assert f"{len(os.sched_getaffinity(0))} core" in text
    for name in ("avx2", "avx512f", "amx_bf16"):
        assert (name in text.replace(",", "").split()) == (name in flags)


def test_a_system_that_tells_nothing_still_has_a_name(monkeypatch, tmp_path):
    machine_lib.machine.cache_clear()
    monkeypatch.setattr(platform, "system", lambda: "Windows")
    monkeypatch.setattr(platform, "processor", lambda: "")
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    monkeypatch.setattr(machine_lib, "_CPUINFO", tmp_path / "none")
    text = machine_lib.machine()
    machine_lib.machine.cache_clear()
    assert text.startswith("riscv64, ")


def test_records_of_now_have_the_machine_and_older_ones_are_read(tmp_path):
    path = tmp_path / "results.jsonl"
    records.append(path, [record()])
    line = path.read_text()
    path.write_text(line.replace('"machine": "", ', "") + line)
    older, newer = records.read(path)
    assert older.machine == newer.machine == ""
    measured = {"accuracy": intervals.Measured(0.5, None, None, "fraction", 10)}
    where = {"job": "j", "data": "d", "split": "s", "step": 0, "seed": 0}
    (made,) = records.records_of(measured, **where, config_hash="", device="1 x cpu")
    assert made.machine == machine_lib.machine()
    assert made.device == "1 x cpu"
