"""README and documentation: their blocks run, their commands and links are there."""

import importlib.util
import json
import os
import pathlib
import re
import subprocess
import sys

import jax
import pytest

from apr_jax import augment, cli, config, presets

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# What blocks may need beside the package; without it they are left out.
OPTIONAL = ("equinox", "grain", "keras", "torchax")
# Runs each block in a namespace of its own, and says what the first that fails of each
# page does; the copies share what is imported.
PROGRAM = """
import json, os, sys, traceback
import jax, optax, flax.linen, apr_jax.augment
failed = {}
for page, blocks in json.load(sys.stdin).items():
    for block in blocks:
        reading, writing = os.pipe()
        if not (child := os.fork()):
            try:
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
                exec(compile(block, "block", "exec"), {"__name__": "block"})
                os._exit(0)
            except BaseException:
                os.write(writing, traceback.format_exc().encode())
                os._exit(1)
        os.close(writing)
        with open(reading) as said:
            error = said.read()
        if os.waitpid(child, 0)[1]:
            failed[page] = block + error
            break
json.dump(failed, sys.stdout)
"""


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.M | re.S)


def pasted(page):
    """Its blocks of Python, without those that need what isn't installed."""
    return [
        block
        for block in blocks(page, "python")
        if all(
            importlib.util.find_spec(name)
            for name in OPTIONAL
            if re.search(rf"^import {name}", block, re.M)
        )
    ]


@pytest.fixture(scope="module")
def failed(tmp_path_factory):
    """What the first block that fails says, by the name of its page."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=json.dumps({page.name: pasted(page) for page in PAGES}),
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "JAX_PLATFORMS": "cpu",
            "JAX_COMPILATION_CACHE_DIR": str(jax.config.jax_compilation_cache_dir),
        },
        cwd=tmp_path_factory.mktemp("pasted"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_blocks_run_as_pasted(page, failed):
    if not pasted(page):
        pytest.skip("no block of Python")
    assert page.name not in failed, failed[page.name]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_are_there(page):
    fields = config.flatten(config.default())
    for block in blocks(page, "sh"):
        for name in re.findall(r"^ *apr-jax (\w+)", block, re.M):
            assert name in cli.COMMANDS
        for module in re.findall(r"python -m ([\w.]+)", block):
            assert importlib.util.find_spec(module), module
        for name in re.findall(r"--config\.([\w.]+)=", block):
            assert name in fields
        for name, choice in re.findall(r"--config (?:configs/)?(\w+)(\S*)", block):
            presets.get(name + choice.removeprefix(".py"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_are_there(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
    for place in re.findall(r"\]\(([^)\s]+)\)|<(\.\.[^>\s]+)>", text):
        place = "".join(place)
        if "://" not in place:
            assert (page.parent / place.partition("#")[0]).exists(), place


def test_the_readme_is_short():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 150
    cells = [c for line in lines if line.startswith("|") for c in line.split("|")]
    assert max(map(len, cells)) <= 120


def test_the_readme_sets_up_in_two_blocks():
    found = blocks(ROOT / "README.md", "sh")
    assert [b.splitlines()[0] for b in found if b[0] == "#"] == ["# run", "# test"]


def test_the_page_of_methods_is_the_table():
    page = (ROOT / "docs" / "methods.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (.*) \| (.*) \| (.*) \|$", page, re.M)
    assert [(name, about, source) for name, about, _, source in rows] == [
        (name, m.about, m.source) for name, m in augment.AUGMENTS.items()
    ]
    functions = {function.strip("`") for _, _, function, _ in rows} - {""}
    assert all(callable(getattr(augment, name)) for name in functions)
