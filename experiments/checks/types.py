"""Lets a strict mypy look over the README's blocks, as code of somebody else's.

    python -m experiments.checks.types

ends with mypy's status: what the package annotates must be enough for them.
"""

import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]


def main() -> None:
    """Writes each block as a file, and ends as mypy does."""
    text = (ROOT / "README.md").read_text()
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for number, block in enumerate(re.findall(r"(?ms)^```python\n(.*?)^```", text)):
            files.append(pathlib.Path(folder) / f"readme_{number}.py")
            files[-1].write_text(block)
        # Of the package its annotations count, not how strict it is with itself.
        strict = ["--strict", "--follow-imports=silent", "--config-file="]
        command = [sys.executable, "-m", "mypy", *strict, *map(str, files)]
        sys.exit(subprocess.run(command, cwd=ROOT, check=False).returncode)


if __name__ == "__main__":
    main()
