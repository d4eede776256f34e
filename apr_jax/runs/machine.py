"""The processor and the versions that the last digits of a number depend on."""

import functools
import importlib.metadata
import os
import pathlib
import platform
import subprocess

_CPUINFO = pathlib.Path("/proc/cpuinfo")
# The extensions that programs for a CPU differ by, as Linux spells them: x86, then ARM.
_EXTENSIONS = (
    *("avx", "avx2", "fma", "avx_vnni", "avx512f", "avx512dq", "avx512_vnni"),
    *("avx512_bf16", "avx512_fp16", "amx_bf16", "amx_int8", "amx_fp16"),
    *("asimd", "asimdhp", "asimddp", "bf16", "i8mm", "sve", "sve2", "sme", "sme2"),
)
# The names that macOS has for some of them.
_ON_MACOS = {
    "AdvSIMD": "asimd",
    "FEAT_FP16": "asimdhp",
    "FEAT_DotProd": "asimddp",
    "FEAT_BF16": "bf16",
    "FEAT_I8MM": "i8mm",
    "FEAT_SME": "sme",
    "FEAT_SME2": "sme2",
    "avx1_0": "avx",
    "avx2_0": "avx2",
}


@functools.cache
def machine() -> str:
    """The processor, its vector and matrix extensions, cores in use, and versions.

    For instance "Intel Xeon Platinum 8481C, avx avx2 fma avx512f amx_bf16, 2 cores,
    JAX 0.12.0, Python 3.13.0".
    """
    model, extensions = _processor()
    count = cores()
    jax, jaxlib = (importlib.metadata.version(name) for name in ("jax", "jaxlib"))
    parts = [
        model,
        " ".join(extensions),
        f"{count} core{'s' if count > 1 else ''}",
        f"JAX {jax}",
        f"jaxlib {jaxlib}" if jaxlib != jax else "",
        f"Python {platform.python_version()}",
    ]
    return ", ".join(filter(None, parts))


def cores() -> int:
    """The number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _processor() -> tuple[str, list[str]]:
    """Model and extensions, as far as the system tells them."""
    model, extensions = "", list[str]()
    try:
        if platform.system() == "Darwin":
            command = ["sysctl", "machdep.cpu.brand_string", "hw.optional"]
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=10, check=False
            )
            model, extensions = of_sysctl(done.stdout)
        else:
            model, extensions = of_cpuinfo(_CPUINFO.read_text())
    except (OSError, subprocess.SubprocessError):
        pass  # no such file or command: the next has to do
    # "unknown" is what virtual machines say.
    if model.strip() in ("", "unknown"):
        model = platform.processor() or platform.machine() or "unknown processor"
    return model, extensions


def of_cpuinfo(text: str) -> tuple[str, list[str]]:
    """Model ("" if it isn't said) and extensions of the first processor of a Linux."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    there = fields.get("flags", fields.get("Features", "")).split()
    model = _brand(fields.get("model name", ""))
    if model and not any(map(str.isdigit, model)) and "model" in fields:
        # Virtual machines give many processors one name; these numbers tell them apart.
        model += f" (family {fields.get('cpu family')}, model {fields['model']})"
    return model, _known(there)


def of_sysctl(text: str) -> tuple[str, list[str]]:
    """Model and extensions from macOS's sysctl: brand_string and hw.optional."""
    fields = {
        name.strip(): value.strip()
        for name, _, value in (line.partition(":") for line in text.splitlines())
    }
    names = [name.split(".")[-1] for name, value in fields.items() if value == "1"]
    there = [_ON_MACOS.get(name, name) for name in names]
    return _brand(fields.get("machdep.cpu.brand_string", "")), _known(there)


def _known(there: list[str]) -> list[str]:
    return [name for name in _EXTENSIONS if name in there]


def _brand(name: str) -> str:
    """A processor's name without marks and blanks that tell nothing."""
    for mark in ("(R)", "(TM)", "(r)", "(tm)"):
        name = name.replace(mark, "")
    return " ".join(name.split())
