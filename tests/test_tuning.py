"""What a program sets for the processor before JAX starts."""

import argparse
import contextlib
import os
import sys

import jax
import pytest

from apr_jax import config, job, parallel, presets, process, tuning
from apr_jax.errors import ConfigError
from apr_jax.train import plan as plan_lib
from tests.toy import start


@pytest.fixture
def able(monkeypatch, tmp_path):
    """A processor with AMX and a JAX that gains from it."""
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("flags : fpu amx_bf16 amx_tile\n")
    monkeypatch.setattr(tuning, "_CPUINFO", cpuinfo)
    monkeypatch.setattr(tuning.importlib.metadata, "version", lambda _: "0.12.1")
    monkeypatch.setattr(tuning, "knows_flags", lambda _: True)
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    monkeypatch.delenv("APR_JAX_ONEDNN", raising=False)
    return cpuinfo


@pytest.mark.parametrize("unit", ["amx_bf16 amx_tile", "avx512_bf16"])
def test_onednn_where_it_helps(able, unit):
    able.write_text(f"flags : fpu {unit}\n")
    flags = "--xla_cpu_use_onednn=true --xla_cpu_experimental_onednn_custom_call=true"
    assert tuning.onednn_flags() == flags


def test_no_onednn_elsewhere(able, monkeypatch):
    def there():
        return bool(tuning.onednn_flags())

    with monkeypatch.context() as patch:
        patch.setenv("APR_JAX_ONEDNN", "0")
        assert not there()
    with monkeypatch.context() as patch:
        patch.setenv("XLA_FLAGS", "--xla_cpu_use_onednn=false")
        assert not there()
    with monkeypatch.context() as patch:
        patch.setattr(tuning.importlib.metadata, "version", lambda _: "0.10.2")
        assert not there()
    with monkeypatch.context() as patch:
        patch.setattr(tuning, "knows_flags", lambda _: False)
        assert not there()
    assert there()
    able.write_text("flags : fpu avx512_vnni\n")
    assert not there()
    able.unlink()
    assert not there()


def test_flags_of_a_deterministic_run(monkeypatch, tmp_path):
    seen = []
    run = lambda *_, **__: seen.append(os.environ.get("XLA_FLAGS", "").split())
    monkeypatch.setattr(job, "run", run)
    monkeypatch.setattr(process, "finish", lambda work: work())
    monkeypatch.setenv("XLA_FLAGS", "--xla_before=1")
    settings = presets.quickstart()
    job.main(settings, workdir=str(tmp_path))
    settings.train.deterministic = True
    job.main(settings, workdir=str(tmp_path))
    names = ("xla_gpu_deterministic_ops", "xla_gpu_exclude_nondeterministic_ops")
    assert tuning.knows_flags(names)
    before = ["--xla_before=1"]
    assert seen == [before, before + [f"--{name}=true" for name in names]]
    monkeypatch.setenv("XLA_FLAGS", f"--{names[0]}=false")
    with pytest.raises(ConfigError, match=f"XLA_FLAGS has --{names[0]}=false"):
        job.main(settings, workdir=str(tmp_path))
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setattr(tuning, "knows_flags", lambda _: False)
    with pytest.raises(ConfigError, match="the installed jaxlib has no flags"):
        job.main(settings, workdir=str(tmp_path))


def test_several_processes_keep_programs_where_all_see_them(monkeypatch, tmp_path):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    found = {}
    monkeypatch.setattr(type(jax.config), "update", lambda _, *pair: kept(*pair))
    kept = found.__setitem__
    monkeypatch.setattr(plan_lib, "plan", lambda *pair: pair)
    monkeypatch.setattr(parallel, "check_shared", lambda root: None)
    monkeypatch.setattr(parallel, "all_or_none", lambda work: work())
    given = config.parse({"data": {"cache_dir": str(tmp_path / "cache")}})
    for several, wanted in ((False, tmp_path / "cache"), (True, tmp_path / "run")):
        monkeypatch.setattr(parallel, "are_several", lambda several=several: several)
        with contextlib.ExitStack() as held:
            job._prepared([given], [tmp_path / "run"], held)
        assert found["jax_compilation_cache_dir"] == str(wanted / "xla")


def test_flags_are_looked_up_in_the_library():
    assert tuning.knows_flags(("xla_cpu_use_onednn",))
    assert not tuning.knows_flags(("xla_cpu_use_onednn", "xla_cpu_no_such_flag"))


def test_a_flag_of_former_versions_is_not_known(monkeypatch, tmp_path):
    (tmp_path / "xla.so").write_bytes(b"a\0xla_new\0b\1xla_old\2xla_older\0")
    spec = argparse.Namespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(tuning.importlib.util, "find_spec", lambda _: spec)
    known = [tuning.knows_flags((f"xla_{n}",)) for n in ("new", "old", "older")]
    assert known == [True, False, False]


STARTED = """
import os, sys
sys.orig_argv = ["python", "-m", MODULE]
import apr_jax
import resource
for i in range(4):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    b"1" * (80_000_000 + i)
pages = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
apr_jax.tuning.use_onednn()
flags = os.environ.get("XLA_FLAGS", "")
print("onednn" in flags, pages > 1000, sys.stdout.errors == "replace")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs glibc's malloc")
def test_a_program_keeps_memory_and_multiplies_by_onednn(monkeypatch):
    """Not where another program imports the package."""
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    monkeypatch.delenv("APR_JAX_ONEDNN", raising=False)

    def said(module):
        output, _ = start("-c", STARTED.replace("MODULE", repr(module))).communicate()
        return output.split()

    able = str(bool(tuning.onednn_flags()))
    assert said("another.program") == ["False", "True", "False"]
    assert said("apr_jax.evaluate.clean") == [able, "False", "True"]
    monkeypatch.setenv("APR_JAX_ONEDNN", "0")
    monkeypatch.setenv("APR_JAX_KEEP_MEMORY", "0")
    assert said("apr_jax.evaluate.clean") == ["False", "True", "True"]
