"""The memory of a device."""

import os
import sys

import jax


def whole(device: jax.Device) -> int | None:
    """The bytes that a device can hold; of a CPU, the machine's. None: not known."""
    if device.platform == "cpu":
        try:
            return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        except (AttributeError, ValueError, OSError):
            return None
    about: dict[str, int] = device.memory_stats() or {}
    return about.get("bytes_limit")


def peak(device: jax.Device) -> int | None:
    """The most bytes in use so far; of a CPU, by this process. None: not known."""
    if device.platform == "cpu":
        try:
            import resource
        except ImportError:  # Windows
            return None
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else 1024 * most
    about: dict[str, int] = device.memory_stats() or {}
    return about.get("peak_bytes_in_use")
