"""Strict JAX settings and the fixtures that every test file shares."""

import gc
import importlib.util
import os
import pathlib
import signal
import tempfile
import types
import uuid
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest

from apr_jax import models, tuning
from apr_jax.gates import stores
from apr_jax.train import dispatch
from apr_jax.train import plan as plan_lib
from tests import toy

# Tests compile much and run little: machine code that is less optimised is as exact,
# and takes a third off them. To test the code that users run, set this flag to 3.
_LEVEL = "xla_backend_optimization_level"
_GIVEN = os.environ.get("XLA_FLAGS", "")
if _LEVEL not in _GIVEN:
    # So does the older way of fusing, where XLA still has it, in one piece.
    older = (
        "xla_cpu_use_fusion_emitters=false",
        "xla_cpu_parallel_codegen_split_count=1",
    )
    flags = [f"{_LEVEL}=0"]
    if tuning.knows_flags(tuple(flag.partition("=")[0] for flag in older)):
        flags += older
    os.environ["XLA_FLAGS"] = " ".join([_GIVEN, *(f"--{f}" for f in flags)]).strip()

# XLA can't keep programs that multiply by oneDNN in the compile cache.
os.environ.setdefault("APR_JAX_ONEDNN", "0")

jax.config.update("jax_numpy_rank_promotion", "raise")
# Tests use up to 8 devices. More are declared than used: XLA's pool has a thread for
# each declared device, and collectives can starve a pool that has none to spare.
jax.config.update("jax_num_cpu_devices", 12)

# The same programs are compiled in many tests; the second time they come from here, in
# all processes of the tests and in the programs that they start. A folder named in the
# environment serves the next run of the tests, too.
_CACHE = "JAX_COMPILATION_CACHE_DIR"
if _CACHE not in os.environ:
    _FOLDER = tempfile.TemporaryDirectory(prefix="apr_jax_tests_")
    os.environ[_CACHE] = _FOLDER.name
# So is what Python compiles, where it may write nothing beside the sources and did not
# before: each program that a test starts would compile JAX anew, which takes seconds.
if os.environ.get("PYTHONDONTWRITEBYTECODE") and not os.path.exists(
    importlib.util.cache_from_source(jax.__file__)
):
    del os.environ["PYTHONDONTWRITEBYTECODE"]
    os.environ["PYTHONPYCACHEPREFIX"] = os.path.join(os.environ[_CACHE], "bytecode")
# Tests send it to programs that they start, which nohup would have ignore it.
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
jax.config.update("jax_compilation_cache_dir", os.environ[_CACHE])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.05)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)

# Tracing is a third of the tests' time: no stack of Python's for each operation.
jax.config.update("jax_traceback_in_locations_limit", 0)
jax.config.update("jax_include_full_tracebacks_in_locations", False)

SHARED = pathlib.Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(autouse=True)
def _no_program_outlives_its_test() -> Iterator[None]:
    yield
    toy.end_started()


@pytest.fixture(autouse=True, scope="session")
def _programs() -> Iterator[toy.Programs]:
    """Each program of a training is traced once; see ``toy.Programs``."""
    kept = toy.Programs()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dispatch, "map_steps", kept.once(dispatch.map_steps))
        patch.setattr(plan_lib, "initial_state", kept.once(plan_lib.initial_state))
        yield kept


_MAPS = 20_000
_GROWTH = 2 * 2**30  # bytes


@pytest.fixture(autouse=True, scope="session")
def _held() -> list[int]:
    """The memory that this process held when it last let go of programs."""
    return [0]


@pytest.fixture(autouse=True, scope="module")
def _room_for_programs(_programs: toy.Programs, _held: list[int]) -> Iterator[None]:
    """Lets go of compiled programs while there is room for more.

    Each takes some maps of memory, of which a process has 65,530 under Linux; XLA
    ends with a segmentation fault where none is left. And each takes some memory.
    """
    yield
    own = pathlib.Path("/proc/self")
    if not (own / "maps").exists():
        return
    maps = (own / "maps").read_bytes().count(b"\n")
    if maps > _MAPS or _resident(own) > _held[0] + _GROWTH:
        _programs.clear()
        jax.clear_caches()
        gc.collect()
        _held[0] = _resident(own)


def _resident(process: pathlib.Path) -> int:
    """Bytes of memory that a process holds."""
    return int((process / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def key() -> jax.Array:
    return jax.random.key(0)


@pytest.fixture(scope="session")
def shared() -> pathlib.Path:
    """The folder with golden outputs and real data, where the checkout has one."""
    if not (SHARED / "golden" / "reference.npz").exists():
        pytest.skip(f"needs the reference data in {SHARED}, which is not there")
    return SHARED


@pytest.fixture(scope="session")
def torch() -> types.ModuleType:
    """PyTorch; what needs it is marked "torch", and skips where it isn't installed."""
    return pytest.importorskip("torch")


# Files that take half a minute and more, so that no process ends with one alone.
LONG = ("test_interruptions.py", "test_tables.py", "test_docs.py", "test_loop.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "torch" in getattr(item, "fixturenames", ()):
            item.add_marker("torch")
    items.sort(key=lambda item: item.path.name not in LONG)


def pytest_collection_finish() -> None:
    """Tells the garbage collector to leave modules alone, and to come less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keeps the tests of a file in one process, where what they share is made once."""
    from xdist.scheduler import LoadFileScheduling

    config.option.loadscopereorder = False
    return LoadFileScheduling(config, log)


@pytest.fixture
def _tiny_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """The network "tiny", for tests that train."""
    monkeypatch.setitem(models.MODELS, "tiny", toy.TinyNet)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> stores.StorePath:
    """A folder in a store in this process's memory, by the code that S3 has."""
    pytest.importorskip("fsspec")
    monkeypatch.setitem(stores.PACKAGES, "memory", "fsspec")
    return stores.find(f"memory://bucket/{uuid.uuid4().hex}", "--workdir")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A small set of images; see ``toy.write_arrays``."""
    folder = tmp_path_factory.mktemp("toy")
    toy.write_arrays(folder)
    return folder
