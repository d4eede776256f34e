"""The house rules: what may import what, and where things are."""

import ast
import functools
import pathlib
import re
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "apr_jax"

# The rooms from the ground up: a module imports from its own room and those below it.
FLOORS = (
    {
        "config",
        "errors",
        "fast_random",
        "gates",
        "pixels",
        "settings",
        "spectral",
        "target",
    },
    {"attacks", "augment", "cdes", "corruptions", "metrics", "models", "ood"},
    {"data", "foreign", "network", "presets", "runs"},
    {"train"},
    {"report"},
    {"evaluate"},
    {"job", "zoo"},
    {"cli"},
)
FLOOR = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}
# Stand beside the floors, open to those that work with files and devices.
BESIDE = {"console", "parallel", "process", "tuning"}
OPEN_TO = BESIDE | {"cli", "data", "evaluate", "job", "report", "train"}
# The part of train that is arrays in, arrays out: no files, no clocks, no devices.
PURE_TRAIN = {
    "adversarial",
    "auxiliary_norm",
    "contrastive",
    "image_pairs",
    "losses",
    "optim",
    "single_image",
    "state",
    "step",
    "views",
}
# Where "argmax" doesn't turn logits into answers that are right or wrong: places in
# arrays, parts of formulas, logits of other people's programs.
NO_ANSWERS = {
    "apr_jax/augment/simclr.py": {"apply_jitter", "draw_boxes"},
    "apr_jax/augment/vipaug.py": {"vital_mask"},
    "apr_jax/data/__init__.py": {"_read"},
    "apr_jax/data/classes.py": {"labels"},
    "apr_jax/data/corrupted.py": {"check_npy"},
    "apr_jax/data/corrupted_verify.py": {"_matched"},
    "apr_jax/data/jpeg.py": {"_tf_window", "window"},
    "apr_jax/gates/answers.py": {"_check_range", "answer", "scores"},
    "apr_jax/metrics/detection.py": {"ood_detection"},
    "apr_jax/models/airbench94.py": {"whitening"},
    "apr_jax/models/layers.py": {"max_pool_by_place"},
    "apr_jax/ood/fdbd.py": {"fdbd"},
    "apr_jax/ood/scores.py": {"_odds_of_others"},
    "experiments/benchmarks/fourier.py": {"prepare", "torch_count"},
    "experiments/checks/attacks.py": {"duel"},
    "experiments/hfc/examples.py": {"compute"},
}
# What a name may be imported in; None is module level, anywhere.
ONLY_IN = {
    "array_record": {"data"},
    "grain": {"data"},
    "orbax": {"runs"},
    "pyarrow": {"data"},
    "tensorflow": {"data"},
    "tensorflow_datasets": {"data"},
    "torch": {"foreign", "models"},
    "torchax": {"foreign"},
    "equinox": {"foreign"},
    "keras": {"foreign"},
    "jax2onnx": {"foreign"},
    "onnx": {"foreign"},
    "onnx2torch": {"foreign"},
    "onnxruntime": {"foreign"},
    "huggingface_hub": {"foreign"},
    "timm": {"foreign"},
    "torchvision": {"foreign"},
    "transformers": {"foreign"},
    "wandb": {"runs"},
}
# Never imported when a module loads.
LAZY = {*ONLY_IN} - {"orbax"}


def sources():
    return sorted(PACKAGE.rglob("*.py"))


def part_of(path):
    """The name of a module's place in the layout: "data" for data/cache.py."""
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


@functools.cache
def parsed(path):
    """The syntax tree of a file, which nobody changes."""
    return ast.parse(path.read_text())


@functools.cache
def imports(path):
    """A pair (dotted name, whether at module level) of everything imported.

    Less what a module imports as a program, under ``if __name__ == "__main__"``.
    """
    tree = ast.Module(parsed(path).body, [])
    tree.body = [
        node
        for node in tree.body
        if not (isinstance(node, ast.If) and "'__main__'" in ast.unparse(node.test))
    ]
    found, inside = [], set()
    for node in ast.walk(tree):
        # Whatever is in a function comes later in the walk than the function.
        if id(node) in inside or isinstance(
            node, ast.FunctionDef | ast.AsyncFunctionDef
        ):
            inside.update(map(id, ast.iter_child_nodes(node)))
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in {path}"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        found += [(name, id(node) not in inside) for name in names]
    return found


def imported_modules(path):
    """The modules of this project that one imports, as dotted names below apr_jax."""
    for name, _ in imports(path):
        pieces = name.split(".")[1:] if name.startswith("apr_jax.") else []
        while pieces and not (
            PACKAGE.joinpath(*pieces).with_suffix(".py").exists()
            or PACKAGE.joinpath(*pieces, "__init__.py").exists()
        ):
            pieces.pop()
        if pieces:
            yield ".".join(pieces)


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_downwards(path):
    # A package's command is a program, whatever the package is; the package itself
    # gathers names from everywhere below.
    if path.name == "__main__.py" or path == PACKAGE / "__init__.py":
        return
    room = part_of(path)
    used = {module.split(".")[0] for module in imported_modules(path)} - {room}
    assert not used & BESIDE or room in OPEN_TO, f"{room} imports {used & BESIDE}"
    if room not in BESIDE:
        above = {r for r in used - BESIDE if FLOOR[r] >= FLOOR[room]}
        # A floor's rooms may share what is simpler, as long as there is no circle.
        above -= {r for r in above if FLOOR[r] == FLOOR[room]}
        assert not above, f"{room} imports {', '.join(above)} from above"
    if room == "report":
        assert not used & {"train", "evaluate"}, "report reads records alone"
    if room == "train" and path.stem in PURE_TRAIN:
        assert not used & (BESIDE | {"data", "runs"}), f"{path.stem} is to be pure"
    tops = {name.split(".")[0] for name, _ in imports(path)}
    assert not tops & {"experiments", "tests", "launch"}


def test_imports_have_no_circles():
    uses = {}
    for path in sources():
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        uses[name.removesuffix(".__init__")] = set(imported_modules(path))
    done, order = set(), []

    def visit(name, above):
        assert name not in above, " -> ".join([*above, name])
        if name not in done:
            for used in sorted(uses.get(name, ())):
                if not used.startswith(name) and not name.startswith(f"{used}."):
                    visit(used, [*above, name])
            done.add(name)
            order.append(name)

    for name in sorted(uses):
        visit(name, [])
    assert len(order) == len(uses)


def test_the_map_names_every_room():
    text = (ROOT / "CONTRIBUTING.md").read_text().partition("laid out\n\n```\n")[2]
    folder, listed = "", {}
    for indent, name in re.findall(r"^( *)([\w.]+/?)", text.partition("```")[0], re.M):
        if not indent:
            folder = name
        elif len(indent) == 2:
            listed.setdefault(folder, set()).add(name)
    packages = lambda parent: {
        f"{p.parent.name}/" for p in parent.glob("*/__init__.py")
    }
    modules = {path.name for path in PACKAGE.glob("*.py")} - {"__init__.py"}
    assert listed["apr_jax/"] == packages(PACKAGE) | modules
    assert listed["experiments/"] == packages(ROOT / "experiments")


def test_few_modules_stand_at_the_top():
    modules = [p for p in PACKAGE.glob("*.py") if p.name != "__init__.py"]
    assert len(modules) <= 13, [p.name for p in modules]


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_heavy_libraries_stay_in_their_place(path):
    for name, at_module_level in imports(path):
        top = name.split(".")[0]
        assert part_of(path) in ONLY_IN.get(top, {part_of(path)}), f"{name} in {path}"
        assert not (at_module_level and top in LAZY), f"{name} at module level"


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_public_functions_have_docstrings(path):
    tree = parsed(path)
    assert ast.get_docstring(tree), f"{path} has no docstring"
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name[0] != "_":
            assert ast.get_docstring(node), f"{path}: {node.name}"


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_train_has_no_default(path):
    for node in ast.walk(parsed(path)):
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
        for node in ast.walk(parsed(path)):
            called = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
            if called and isinstance(node.func.value, ast.Name):
                assert ast.unparse(node.func) not in counting, f"{path}:{node.lineno}"


def test_answers_come_from_one_place():
    """The class of NaN logits would be 0 by a plain ``argmax``: see gates.answers."""
    for path in [*sources(), *sorted((ROOT / "experiments").rglob("*.py"))]:
        allowed = NO_ANSWERS.get(str(path.relative_to(ROOT)), set())
        for outer in parsed(path).body:
            for node in ast.walk(outer):
                if isinstance(node, ast.Attribute) and node.attr == "argmax":
                    assert getattr(outer, "name", "") in allowed, path


def test_top_level_layout():
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split()
    if not listed:
        pytest.skip("not a checkout with files")
    folders = {name.split("/")[0] for name in listed if "/" in name}
    assert folders <= {
        *("apr_jax", "configs", "docs", "experiments", "tests"),
        *(".ci", ".github"),
    }
