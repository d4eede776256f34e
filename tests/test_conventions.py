"""The house rules: what may import what, and where things are."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "apr_jax"

# Arrays in, arrays out: no files, no clocks, no global state.
CORE = {
    "config",
    "errors",
    "pixels",
    "network",
    "spectral",
    "augment",
    "models",
    "optim",
    "step",
    "views",
    "stages",
    "pairs",
    "contrast",
    "losses",
    "adversary",
    "auxiliary",
    "corruptions",
    "fast_random",
    "attacks",
    "ood",
    "metrics",
    "calibration",
    "detection",
    "saliency",
    "kernels",
    "cdes",
}
# What a name may be imported in; None is module level, anywhere.
ONLY_IN = {
    "orbax": {"checkpoint"},
    "tensorflow": {"data"},
    "tensorflow_datasets": {"data"},
    "torch": {"models"},
}
# Never imported when a module loads.
LAZY = {"tensorflow", "tensorflow_datasets", "torch"}


def sources():
    return sorted(PACKAGE.rglob("*.py"))


def part_of(path):
    """The name of a module's place in the layout: "data" for data/cache.py."""
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imports(path):
    """Yields (dotted name, whether at module level) of everything imported."""
    tree = ast.parse(path.read_text())
    inside = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            inside.update(map(id, ast.walk(node)))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in {path}"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            yield name, id(node) not in inside


def imported_parts(path):
    """The parts of this project that a module imports."""
    for name, _ in imports(path):
        pieces = name.split(".")
        if pieces[0] == "apr_jax" and len(pieces) > 1:
            yield pieces[1]


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_downwards(path):
    part, used = part_of(path), set(imported_parts(path))
    parts = {part_of(p) for p in sources()}
    # A package's command is shell, whatever the package is.
    if part in CORE and path.name != "__main__.py":
        assert not (used & parts) - CORE, "the core imports the shell"
    if part == "evaluate":
        assert not used & {"train", "job"}, "evaluate imports train"
    if part == "augment":
        assert used & parts <= {"augment", "fast_random", "spectral"}
    if part in ("config", "fast_random", "spectral"):
        assert used & parts <= {part, "errors"}
    tops = {name.split(".")[0] for name, _ in imports(path)}
    assert not tops & {"experiments", "tests", "launch"}
    if part != "job":
        assert "configs" not in tops


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_heavy_libraries_stay_in_their_place(path):
    for name, at_module_level in imports(path):
        top = name.split(".")[0]
        assert part_of(path) in ONLY_IN.get(top, {part_of(path)}), f"{name} in {path}"
        assert not (at_module_level and top in LAZY), f"{name} at module level"


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_public_functions_have_docstrings(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), f"{path} has no docstring"
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name[0] != "_":
            assert ast.get_docstring(node), f"{path}: {node.name}"


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_train_has_no_default(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.FunctionDef):
            continue
        arguments = node.args
        names = [a.arg for a in arguments.posonlyargs + arguments.args]
        defaulted = names[len(names) - len(arguments.defaults) :]
        pairs = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
        defaulted += [a.arg for a, default in pairs if default is not None]
        assert "train" not in defaulted, f"{path}:{node.lineno} {node.name}"


def test_only_parallel_counts_devices():
    counting = {
        "jax.devices",
        "jax.device_count",
        "jax.local_devices",
        "jax.local_device_count",
        "jax.pmap",
    }
    for path in sources():
        if part_of(path) == "parallel":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                assert ast.unparse(node.func) not in counting, f"{path}:{node.lineno}"


def test_top_level_layout():
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split()
    if not listed:
        pytest.skip("not a checkout with files")
    folders = {name.split("/")[0] for name in listed if "/" in name}
    assert folders <= {"apr_jax", "configs", "experiments", "tests", ".ci"}


def test_the_core_and_the_shell_import_without_tensorflow_and_torch():
    program = (
        "import sys, apr_jax, apr_jax.job, apr_jax.evaluate.clean\n"
        "heavy = {'tensorflow', 'tensorflow_datasets', 'torch'} & set(sys.modules)\n"
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
