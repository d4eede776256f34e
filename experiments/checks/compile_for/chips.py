"""Chips that aren't there: their published figures, and how XLA is told of them.

`libtpu` compiles for described TPU topologies without a TPU, JAX's CUDA plugin for a
described GPU without a driver; `requirements-aot.txt` has both.
"""

import dataclasses
import importlib.util
import os
import pathlib
from typing import Any

from apr_jax import parallel
from apr_jax.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Chip:
    """Figures of a chip from its maker's pages.

    Attributes:
        platform: of ``apr_jax.target``.
        flops: per second, of bfloat16 products.
        memory: bytes.
        hertz: that estimated cycles are counted in; 0 where XLA estimates none.
        kind: of the chips of a topology, as the library calls it.
    """

    platform: str
    flops: float
    memory: float
    hertz: float = 0.0
    kind: str = ""


CHIPS = {
    "v5e": Chip("tpu", 197e12, 16e9, 1.5e9),
    "v4": Chip("tpu", 275e12, 32e9, 1.05e9, "megacore"),
    "v6e": Chip("tpu", 918e12, 32e9, 1.75e9),
    "v5p": Chip("tpu", 459e12, 95e9, 1.75e9),
    "h100": Chip("gpu", 989e12, 80e9),
}
# For the h100's flags and the TPU's topologies.
_CUDA_OPTIONS = {"xla_gpu_autotune_level": 0}

# NVIDIA's figures of an H100 SXM, in the terms of XLA's description of a device.
_H100 = """
gpu_device_info {
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: 233472
  threads_per_core_limit: 2048
  core_count: 132
  fpus_per_core: 128
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000
  l2_cache_size: 52428800
  clock_rate_ghz: 1.98
  device_memory_size: 80000000000
  shared_memory_per_block_optin: 232448
  cuda_compute_capability { major: 9 minor: 0 }
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 patch: 0 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""


@dataclasses.dataclass(frozen=True)
class Target:
    """Chips that work together, such as those of "v5e:4x4"."""

    name: str
    chip: Chip
    layout: parallel.Layout

    @property
    def options(self) -> dict[str, Any]:
        """Compiler options that take the place of measuring on the chip."""
        return _CUDA_OPTIONS if self.chip.platform == "gpu" else {}


def parse(name: str) -> tuple[str, str]:
    """The chip and the shape of a target's name; "" for a single GPU.

    Raises:
        ConfigError: no such chip, or a TPU without a shape.
    """
    chip, _, shape = name.partition(":")
    if chip not in CHIPS:
        raise ConfigError(f"target is {name!r}; choose from {', '.join(CHIPS)}")
    if bool(shape) != (CHIPS[chip].platform == "tpu"):
        raise ConfigError(
            f"target is {name!r}; a TPU has a shape as in v5e:4x4, a GPU has none"
        )
    return chip, shape


def missing(name: str) -> str:
    """What isn't installed of what a target needs; "" where all is there."""
    tpu = CHIPS[parse(name)[0]].platform == "tpu"
    need = ("libtpu",) if tpu else ("jax_plugins", "jax_cuda13_plugin")
    return ", ".join(n for n in need if importlib.util.find_spec(n) is None)


def prepare() -> None:
    """Sets the environment, before JAX starts: a CPU's, that looks for no chip."""
    given = {
        "JAX_PLATFORMS": "cpu",
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_ACCELERATOR_TYPE": "v5litepod-4",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_WORKER_ID": "0",
        "TPU_LOG_DIR": "disabled",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    found = importlib.util.find_spec("libtpu")
    if found is not None and found.origin is not None:
        given["TPU_LIBRARY_PATH"] = str(pathlib.Path(found.origin).parent / "libtpu.so")
    os.environ.update(given)


def describe(name: str) -> Target:
    """The chips of a target.

    Raises:
        ConfigError: an unknown name, a shape that doesn't exist, or what is to compile
            for it isn't installed.
    """
    chip, _ = parse(name)
    if lacking := missing(name):
        raise ConfigError(
            f"{name} needs {lacking}: pip install --no-deps -r requirements-aot.txt"
        )
    from jax.experimental import topologies

    own = CHIPS[chip]
    try:
        if own.platform == "gpu":
            found = topologies.get_topology_desc(
                platform="cuda", topology="1x1x1", target_config=_H100
            )
        else:
            further = {"chip_config_name": own.kind} if own.kind else {}
            found = topologies.get_topology_desc(
                platform="tpu", topology_name=name, **further
            )
    except (RuntimeError, ValueError) as error:
        raise ConfigError(f"target is {name!r}: {error}") from error
    devices = sorted(found.devices, key=lambda d: (d.process_index, d.id))
    return Target(name, own, parallel.Layout(tuple(devices)))
