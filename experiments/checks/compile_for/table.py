"""Records of compiled programs as a table in the documentation."""

import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from apr_jax.errors import ConfigError
from apr_jax.runs import files

BEGIN = "<!-- written by experiments.checks.compile_for -->"
END = "<!-- end -->"


def rows(records: Iterable[Mapping[str, Any]]) -> str:
    """A Markdown table, a row for each program and target; of several the last."""
    newest = {(r["target"], r["program"]): r for r in records}
    lines = [
        "| target | program | memory a chip | estimate | augmentation | faults |",
        "|---|---|---|---|---|---|",
    ]
    for (target, program), found in sorted(newest.items()):
        faults = found.get("error") or ", ".join(found["faults"]) or "none"
        cells = [target, program, *_figures(found), faults]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _figures(found: Mapping[str, Any]) -> list[str]:
    """Memory, time and the share of the augmentation, in words."""
    if "error" in found:
        return ["", "", ""]
    share = found["memory_share"]
    memory = f"{found['memory'] / 1e9:.2f} GB, {share:.0%}"
    seconds, part = found.get("seconds"), found.get("augmentation")
    time = "" if seconds is None else f"{1e3 * seconds:.2f} ms"
    further = max(found["gathers"][1], found["scatters"][1])
    if time and further:
        time += f" + {further / 1e6:.2g} M words"
    return [memory, time, "" if part is None else f"{part:.0%}"]


def write(page: pathlib.Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Puts the table between its markers in a page.

    Raises:
        ConfigError: the page hasn't got them, or isn't there.
    """
    text = page.read_text() if page.exists() else ""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ConfigError(f"--page is {str(page)!r}, which has no {BEGIN} ... {END}")
    whole = f"{before}{BEGIN}\n\n{rows(records)}\n\n{END}{after}"
    files.write_bytes(page, whole.encode())
