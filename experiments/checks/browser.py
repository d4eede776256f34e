"""Opens a page in a real browser: is it as wide as the screen, silent, accessible?

    PUPPETEER_SKIP_DOWNLOAD=1 npm install --prefix FOLDER axe-core puppeteer-core
    NODE_PATH=FOLDER/node_modules python -m experiments.checks.browser PAGE.html

needs Chromium (or a program like it, named by ``CHROMIUM``), Node, and the two packages
where ``NODE_PATH`` points. At 1280 and at 390 pixels, light and dark, the document must
not be wider than the screen, the console must stay empty, and axe-core must find
nothing serious or critical. ``--shots FOLDER`` keeps pictures. Ends with status 1 where
something is found, and 2 where something is missing.
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from apr_jax.gates import places

# (width in pixels, colour scheme)
VIEWS = ((1280, "light"), (1280, "dark"), (390, "light"), (390, "dark"))
_SCRIPT = pathlib.Path(__file__).with_suffix(".cjs")
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_PACKAGES = ("axe-core", "puppeteer-core")
_SECONDS = 300  # a view, at most
_GRAVE = ("serious", "critical")


def browser() -> str | None:
    """The browser's program, if there is one."""
    named = os.environ.get("CHROMIUM")
    return next(filter(None, map(shutil.which, [named] if named else _BROWSERS)), None)


def missing() -> str:
    """What isn't there and how it comes, in words; empty where all of it is."""
    if browser() is None:
        return f"no browser: install {_BROWSERS[0]}, or name one by CHROMIUM"
    if shutil.which("node") is None:
        return "node is not installed"
    for package in _PACKAGES:
        found = ["node", "-e", f"require.resolve({package!r})"]
        if subprocess.run(found, capture_output=True, check=False).returncode:
            return f"no {package} where NODE_PATH points: npm install {package}"
    return ""


def look(
    page: pathlib.Path,
    *,
    shots: pathlib.Path | None = None,
    views: Sequence[tuple[int, str]] = VIEWS,
) -> list[dict[str, Any]]:
    """What the browser finds in each view of a page.

    Args:
        page: the file.
        shots: folder of the pictures, WIDTH-SCHEME.png and its top; none if None.
        views: width and scheme of each.

    Returns:
        width, scheme, overflow in pixels, said (what the console said) and axe-core's
        broken rules: id, impact, help, count of elements, the first of them.

    Raises:
        RuntimeError: the browser failed; with its words.
    """
    if shots is not None:
        shots.mkdir(parents=True, exist_ok=True)
    arguments = {
        "page": str(page),
        "browser": browser(),
        "views": views,
        "shots": str(shots) if shots else None,
    }
    command = ["node", str(_SCRIPT), json.dumps(arguments)]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            timeout=_SECONDS * len(views),
        )
    except subprocess.TimeoutExpired as late:
        raise RuntimeError(f"a view took more than {_SECONDS} seconds") from late
    if done.returncode:
        raise RuntimeError(done.stderr.strip() or "the browser failed")
    return json.loads(done.stdout)


def findings(seen: list[dict[str, Any]]) -> list[str]:
    """What is wrong, a line each."""
    lines = []
    for view in seen:
        place = f"{view['width']} px, {view['scheme']}"
        if view["overflow"] > 0:
            lines.append(f"{place}: {view['overflow']} px wider than the screen")
        lines += [f"{place}: the console said {words}" for words in view["said"]]
        lines += [
            f"{place}: {rule['impact']} {rule['id']}, {rule['count']} times: "
            f"{rule['help']} ({', '.join(rule['first'])})"
            for rule in view["rules"]
            if rule["impact"] in _GRAVE
        ]
    return lines


def main() -> None:
    """Looks at one page, and says what it found."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("page", type=places.argument)
    parser.add_argument("--shots", type=places.argument, help="folder of pictures")
    flags = parser.parse_args()
    if why := missing():
        print(f"error: {why}", file=sys.stderr)
        sys.exit(2)
    if not flags.page.is_file():
        print(f"error: there is no page {flags.page}", file=sys.stderr)
        sys.exit(2)
    try:
        seen = look(flags.page, shots=flags.shots)
    except RuntimeError as why:
        print(f"error: {why}", file=sys.stderr)
        sys.exit(2)
    for view in seen:
        minor = [r["id"] for r in view["rules"] if r["impact"] not in _GRAVE]
        print(
            f"{view['width']} px, {view['scheme']}: overflow {view['overflow']} px, "
            f"{len(view['said'])} lines of the console, {len(view['rules'])} rules "
            f"broken{' (minor: ' + ', '.join(minor) + ')' if minor else ''}"
        )
    found = findings(seen)
    print(*found, sep="\n")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
