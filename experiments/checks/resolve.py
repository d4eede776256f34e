"""Finds wheels of all requirements for other machines, without installing any.

    pip install uv && python -m experiments.checks.resolve

asks the package index by ``uv pip compile``, as pip's own ``--platform`` reads the
markers of the machine that it runs on. Prints a Markdown table of what each machine and
version of Python gets, and ends with status 1 where one gets nothing.
"""

import pathlib
import re
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
PLATFORMS = {
    "Linux x86-64": "x86_64-manylinux_2_28",
    "Linux aarch64": "aarch64-manylinux_2_28",
    "macOS arm64": "aarch64-apple-darwin",
}
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
FILES = ("pyproject.toml", "requirements.txt", "requirements-dev.txt")
SHOWN = ("jax", "flax", "tensorflow", "tensorflow-cpu")
# Plain Python that is published as source alone; TensorFlow Datasets asks for it.
SOURCES = ("promise",)


def resolve(file: str, platform: str, python: str) -> tuple[bool, str]:
    """Whether there are wheels, and the versions in words or why there are none."""
    command = [
        *("uv", "pip", "compile", "--quiet", "--no-header", "--no-annotate"),
        *("--python-platform", platform, "--python-version", python),
        *("--only-binary", ":all:"),
        *(word for name in SOURCES for word in ("--no-binary", name)),
        file,
    ]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        return False, " ".join(done.stderr.split())[:200]
    found = dict(re.findall(r"^([\w.-]+)(?:\[.*\])?==([\w.+]+)", done.stdout, re.M))
    versions = [f"{name} {found[name]}" for name in SHOWN if name in found]
    return True, f"{len(found)} packages: {', '.join(versions)}"


def main() -> None:
    """Prints the table."""
    if shutil.which("uv") is None:
        sys.exit("error: uv is not installed: pip install uv")
    whole = True
    print("| file | machine | Python | what it gets |\n|---|---|---|---|")
    for file in FILES:
        for machine, platform in PLATFORMS.items():
            for python in PYTHONS:
                there, words = resolve(file, platform, python)
                whole &= there
                words = words if there else f"NOTHING: {words}"
                print(f"| `{file}` | {machine} | {python} | {words} |", flush=True)
    sys.exit(not whole)


if __name__ == "__main__":
    main()
