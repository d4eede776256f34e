"""What a program of the project sets for the processor before JAX starts."""

import ctypes
import importlib.metadata
import importlib.util
import mmap
import os
import pathlib
import sys

from apr_jax import process
from apr_jax.errors import ConfigError

# With these XLA multiplies by oneDNN, which knows a processor's units for bfloat16.
_ONEDNN = ("xla_cpu_use_onednn", "xla_cpu_experimental_onednn_custom_call")
# The first version of jaxlib in which they help.
_ONEDNN_SINCE = (0, 12)
# What a processor has for bfloat16 where they were measured to help, in float32 too.
_UNITS = ("amx_bf16", "avx512_bf16")
_CPUINFO = pathlib.Path("/proc/cpuinfo")


def onednn_flags() -> str:
    """The flags for ``XLA_FLAGS`` that make convolutions fast on this processor.

    "" where it has no units for bfloat16 (AMX or AVX-512's), where the installed
    jaxlib doesn't know the flags (XLA ends a program at one that it doesn't know) or
    gains nothing, where ``XLA_FLAGS`` names one of them already, and where the
    environment has ``APR_JAX_ONEDNN=0``.
    """
    given = os.environ.get("XLA_FLAGS", "")
    if os.environ.get("APR_JAX_ONEDNN") == "0" or any(n in given for n in _ONEDNN):
        return ""
    try:
        known = _CPUINFO.read_text().split()
        if not any(unit in known for unit in _UNITS):
            return ""
        release = importlib.metadata.version("jaxlib").split(".")[:2]
        if tuple(map(int, release)) < _ONEDNN_SINCE or not knows_flags(_ONEDNN):
            return ""
    except (OSError, ValueError, importlib.metadata.PackageNotFoundError):
        return ""
    return " ".join(f"--{name}=true" for name in _ONEDNN)


def use_onednn() -> None:
    """Has a program of the project multiply by oneDNN, if it helps.

    Before JAX starts, as XLA reads its flags once. XLA can't keep such programs in the
    compile cache. Programs of others that import the package set ``onednn_flags``
    themselves.
    """
    if process.is_program() and (flags := onednn_flags()):
        _add_flags(flags)


def _add_flags(flags: str) -> None:
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()


# With these a GPU's programs do their sums in the same order each time.
_DETERMINISTIC = ("xla_gpu_deterministic_ops", "xla_gpu_exclude_nondeterministic_ops")


def use_deterministic() -> None:
    """Has programs on a GPU repeat their bits, before JAX starts; others do anyway.

    Raises:
        ConfigError: ``XLA_FLAGS`` says otherwise, or XLA doesn't know how.
    """
    given = os.environ.get("XLA_FLAGS", "").split()
    own = [flag for name in _DETERMINISTIC for flag in given if f"--{name}=" in flag]
    if against := [flag for flag in own if not flag.endswith("=true")]:
        raise ConfigError(
            f"train.deterministic is True, and XLA_FLAGS has {' '.join(against)}"
        )
    if not knows_flags(_DETERMINISTIC):
        raise ConfigError(
            "train.deterministic is True, and the installed jaxlib has no flags "
            f"{', '.join(_DETERMINISTIC)}"
        )
    _add_flags(" ".join(f"--{name}=true" for name in _DETERMINISTIC))


def knows_flags(flags: tuple[str, ...]) -> bool:
    """Whether XLA's library has all these flags; without loading it.

    A flag's name is a string of its own there; those of flags that it had once may
    stand within longer ones.
    """
    names = [b"\0%s\0" % flag.encode() for flag in flags]
    spec = importlib.util.find_spec("jaxlib")
    for folder in (spec and spec.submodule_search_locations) or ():
        for path in pathlib.Path(folder).glob("*.so"):
            with (
                path.open("rb") as file,
                mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as binary,
            ):
                if all(binary.find(name) >= 0 for name in names):
                    return True
    return False


# Parameters of glibc's malloc: arenas, mapped pieces, and what is given back.
_ARENA_MAX, _MMAP_MAX, _TRIM_THRESHOLD, _TOP_PAD = -8, -4, -1, -2


def keep_memory() -> None:
    """Has the C library keep memory that was freed, for the next to ask for it.

    XLA frees what a call of a program needed and asks for it anew in the next. Given
    back to the system between them, the kernel has to clear it page by page each time:
    a fifth to a third of a training step on two cores. Where the C library isn't glibc,
    and where the environment has ``APR_JAX_KEEP_MEMORY=0``, nothing is changed.
    """
    if os.environ.get("APR_JAX_KEEP_MEMORY") == "0" or sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for parameter, value in (
            (_ARENA_MAX, 1),
            (_MMAP_MAX, 0),
            (_TRIM_THRESHOLD, -1),
            (_TOP_PAD, 2**26),
        ):
            mallopt(parameter, value)


if process.is_program():
    keep_memory()
