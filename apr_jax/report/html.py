"""The style and the frame of the HTML page: one file, nothing loaded from outside."""

import html
from collections.abc import Iterable, Mapping, Sequence

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #fbfbfa; --card: #ffffff; --ink: #1c2024; --soft: #60656c;
  --faint: #b9bdc4; --line: #e4e5e8; --bad: #e5484d;
  --amplitude: #e08700; --phase: #3e63dd;
  --run-0: #3e63dd; --run-1: #e08700; --run-2: #2b9a66;
  --run-3: #8e4ec6; --run-4: #d6409f; --run-5: #0d8fa8;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #131416; --card: #1b1d20; --ink: #edeef0; --soft: #a3a8b0;
    --faint: #565b63; --line: #2e3136; --bad: #ff6369;
    --amplitude: #ffb224; --phase: #849dff;
    --run-0: #849dff; --run-1: #ffb224; --run-2: #4cc38a;
    --run-3: #bf7af0; --run-4: #f76bb9; --run-5: #3db9cf;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
}
main { max-width: 1120px; margin: 0 auto; padding: 2.2rem 1.2rem 3rem; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .3rem; letter-spacing: -.01em; }
h2 { font-size: 1.2rem; margin: 2.6rem 0 .5rem; }
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem; }
p { margin: .3rem 0 .8rem; max-width: 75ch; }
.soft, figcaption { color: var(--soft); }
.card {
  background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 1rem 1.1rem; margin: .7rem 0; min-width: 0;
}
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .38rem .8rem .38rem 0; vertical-align: baseline; }
th { font-weight: 600; overflow-wrap: anywhere; }
thead th { min-width: 7rem; }
tbody tr { border-top: 1px solid var(--line); }
tbody tr.group { border-top: 0; }
tbody tr.group th { padding-top: 1.1rem; }
tbody:first-of-type tr.group th { padding-top: .5rem; }
td.number { white-space: nowrap; }
td.number small { color: var(--soft); display: block; font-size: .8rem; }
td.best { font-weight: 650; }
td.best small { font-weight: 400; }
td.differs { font-weight: 600; }
.dot {
  display: inline-block; width: .7em; height: .7em; border-radius: 50%;
  margin-right: .45em;
}
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.3rem; margin: .2rem 0 .6rem; }
.grid { display: grid; gap: .8rem; }
.grid > .card { margin: 0; }
.wide { grid-template-columns: repeat(auto-fill, minmax(min(100%, 400px), 1fr)); }
.small { grid-template-columns: repeat(auto-fill, minmax(min(100%, 255px), 1fr)); }
.forest h4 { margin: .9rem 0 .2rem; font-size: .95rem; }
.forest h4:first-child { margin-top: 0; }
.forest .row {
  display: grid; align-items: center; column-gap: 1rem;
  grid-template-columns: minmax(0, 15rem) 1fr 4.6rem;
}
.forest .name, .forest .value { color: var(--ink); font-variant-numeric: tabular-nums; }
.forest .name { overflow-wrap: anywhere; padding: .15rem 0; }
.forest .track { position: relative; height: 100%; min-height: 1.7rem; }
.forest .track > * { position: absolute; }
.forest .track > i { top: 0; bottom: 0; border-left: 1px solid var(--line); }
.forest .track > b {
  top: calc(50% - 2px); height: 4px; border-radius: 2px; background: currentColor;
}
.forest .track > u {
  top: calc(50% - 5px); width: 10px; height: 10px; margin-left: -5px;
  border-radius: 50%; background: currentColor;
}
.forest .axis .track { border-top: 1px solid var(--faint); }
.forest .axis .track > span {
  transform: translateX(-50%); color: var(--soft); font-size: .8rem; top: .2rem;
}
svg { display: block; width: 100%; height: auto; margin: 0 auto; }
svg text { font-family: inherit !important; }
.confusion { font-size: 11px; text-anchor: middle; fill: var(--ink); }
.confusion .end { text-anchor: end; }
.confusion .title { text-anchor: start; font-size: 13px; }
.confusion .frame { fill: none; stroke: var(--faint); stroke-width: .8; }
pre {
  background: var(--paper); border: 1px solid var(--line); border-radius: 8px;
  padding: .7rem .9rem; overflow-x: auto; margin: .4rem 0 .8rem;
  font: 13px/1.5 ui-monospace, "SF Mono", Menlo, Consolas, monospace;
}
summary { cursor: pointer; color: var(--soft); }
figure { margin: 0; }
.example { border-top: 1px solid var(--line); padding: .8rem 0; }
.example:first-child { border-top: 0; padding-top: 0; }
.example h4 { margin: 0 0 .35rem; font-size: .9rem; font-weight: 600; }
.example > div {
  display: grid; gap: .9rem 1.4rem;
  grid-template-columns: repeat(auto-fill, minmax(min(46%, 225px), 1fr));
}
.step { display: grid; grid-template-columns: 2fr 1fr; gap: 5px; max-width: 270px; }
.step img {
  width: 100%; display: block; image-rendering: pixelated; border-radius: 4px;
}
.step .picture { grid-row: 1 / span 2; }
.step .amplitude, .step .phase { border: 2px solid transparent; }
.step.gives-amplitude .amplitude { border-color: var(--amplitude); }
.step.gives-phase .phase { border-color: var(--phase); }
.step figcaption { grid-column: 1 / -1; font-size: .82rem; line-height: 1.2; }
.key { border-bottom: 3px solid; font-weight: 600; }
.key.amplitude { border-color: var(--amplitude); }
.key.phase { border-color: var(--phase); }
footer { margin-top: 3rem; color: var(--soft); font-size: .85rem; }
@media (max-width: 560px) {
  .forest .row { grid-template-columns: 1fr 4rem; }
  .forest .name { grid-column: 1 / -1; padding: .3rem 0 0; font-size: .88rem; }
  .forest .track { min-height: 1.3rem; }
  main { padding: 1.3rem .8rem 2rem; }
  .card { padding: .75rem .7rem; }
  .example > div { gap: .8rem; }
  th, td { padding-right: .6rem; }
}
@media print { .card { break-inside: avoid; } }
"""


def escape(text: object) -> str:
    """Text made safe for an element or an attribute."""
    return html.escape(str(text), quote=True)


def section(title: str, *parts: str) -> str:
    """A section with its heading; nothing at all if its parts are empty."""
    body = "".join(parts)
    return f"<section><h2>{escape(title)}</h2>{body}</section>" if body else ""


def part(title: str, body: str, *after: str) -> str:
    """A part of a section with its heading; nothing at all if ``body`` is empty."""
    return f"<h3>{escape(title)}</h3>{body}{''.join(after)}" if body else ""


def noted(text: str, body: str) -> str:
    """A note and what it is about below it; nothing at all if ``body`` is empty."""
    return note(text) + body if body else ""


def card(body: str) -> str:
    """A framed box."""
    return f'<div class="card">{body}</div>'


def note(text: str) -> str:
    """A paragraph in the soft colour; the text is HTML."""
    return f'<p class="soft">{text}</p>'


def grid(kind: str, figures: Sequence[str]) -> str:
    """Boxes side by side, as many as fit; nothing if there are none."""
    boxes = "".join(card(figure) for figure in figures)
    return f'<div class="grid {kind}">{boxes}</div>' if boxes else ""


def items(texts: Sequence[str]) -> str:
    """A list of plain texts; nothing if there are none."""
    lines = "".join(f"<li>{escape(text)}</li>" for text in texts)
    return f"<ul>{lines}</ul>" if lines else ""


def breakable(name: str) -> str:
    """An escaped name that may be broken after its underscores and slashes."""
    return escape(name).replace("_", "_<wbr>").replace("/", "/<wbr>")


def dot(run: int) -> str:
    """The colour of a run, before its name."""
    return f'<span class="dot" style="background:var(--run-{run % 6})"></span>'


def legend(names: Mapping[int, str]) -> str:
    """The colours of some runs: index -> name."""
    spans = "".join(f"<span>{dot(i)}{escape(name)}</span>" for i, name in names.items())
    return f'<div class="legend">{spans}</div>'


def th(text: str, kind: str = "") -> str:
    """The head of a column; the text is HTML."""
    return f"<th{_class(kind)}>{text}</th>"


def td(text: str, kind: str = "") -> str:
    """A cell; the text is HTML."""
    return f"<td{_class(kind)}>{text}</td>"


def run_name(i: int, name: str) -> str:
    """The name of a run in a table, in its colour."""
    return dot(i) + breakable(name)


def run_heads(names: Sequence[str]) -> list[str]:
    """The heads of the columns of runs."""
    return [th(run_name(i, name)) for i, name in enumerate(names)]


def tabulate(
    heads: Sequence[str], groups: Iterable[tuple[str, Iterable[Sequence[str]]]]
) -> str:
    """A table that scrolls by itself where it is wider than the page.

    Args:
        heads: ``th`` of each column after the first, which has none.
        groups: (heading, rows of ``td``); a heading is HTML and spans the table, an
            empty one is left out.
    """
    bodies = []
    for heading, rows in groups:
        top = f'<th colspan="{1 + len(heads)}">{heading}</th>'
        lines = [f'<tr class="group">{top}</tr>' if heading else ""]
        lines += [f"<tr>{''.join(row)}</tr>" for row in rows]
        bodies.append(f"<tbody>{''.join(lines)}</tbody>")
    head = f"<thead><tr><th></th>{''.join(heads)}</tr></thead>"
    return f'<div class="scroll"><table>{head}{"".join(bodies)}</table></div>'


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""


def document(title: str, body: str) -> str:
    """The whole page."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )
