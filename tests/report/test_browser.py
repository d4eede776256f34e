"""Pages in a real browser, where there is one: as wide as the screen, silent, legible.

What needs no browser (scopes, captions, anchors, contrast) is tested beside.
"""

import pathlib
import subprocess
import sys

import pytest

from apr_jax.report import page, run_view
from experiments.checks import browser

ROOT = pathlib.Path(__file__).resolve().parents[2]
RUNS = [
    ROOT / "experiments/results" / f"quickstart_{m}" for m in ("standard", "apr_sp")
]
BAD = """<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>bad</title>
<meta name="viewport" content="width=device-width"></head><body><main><h1>Bad</h1>
<p style="color: #bbb">pale</p><div style="width: 500px">wide</div>
<script>console.error("a mistake")</script></main></body></html>"""


@pytest.fixture(scope="module")
def chromium():
    if why := browser.missing():
        pytest.skip(f"a browser check needs more than is here: {why}")


def test_page_stands_in_the_browser(chromium, tmp_path):
    page.write_report(tmp_path / "page.html", [run_view.view(root) for root in RUNS])
    shots, views = tmp_path / "shots", [(1280, "light"), (390, "dark")]
    seen = browser.look(tmp_path / "page.html", shots=shots, views=views)
    assert browser.findings(seen) == []
    assert [(view["width"], view["scheme"]) for view in seen] == views
    assert (shots / "390-dark.png").stat().st_size > 10_000


def test_the_browser_sees_what_is_wrong(chromium, tmp_path):
    (tmp_path / "bad.html").write_text(BAD)
    views = [(1280, "light"), (390, "light")]
    found = browser.findings(browser.look(tmp_path / "bad.html", views=views))
    assert [line for line in found if "the console said a mistake" in line]
    assert [line for line in found if "serious color-contrast" in line]
    wide = [line for line in found if "wider than the screen" in line]
    assert [line.partition(",")[0] for line in wide] == ["390 px"]


def test_findings_are_what_is_grave():
    rules = [
        {"id": i, "impact": impact, "help": "h", "count": 2, "first": ["p"]}
        for i, impact in (("a", "minor"), ("b", "moderate"), ("c", "critical"))
    ]
    view = {"width": 390, "scheme": "dark", "overflow": 0, "said": [], "rules": rules}
    (line,) = browser.findings([view])
    assert line == "390 px, dark: critical c, 2 times: h (p)"
    assert browser.findings([{**view, "rules": [], "overflow": 1}])


def test_what_is_missing_is_said(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "experiments.checks.browser", str(tmp_path / "p.html")],
        cwd=ROOT,
        env={"CHROMIUM": "/nowhere/chromium", "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: no browser: install chromium")
