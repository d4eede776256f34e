"""The frame of the HTML page and its elements; nothing is loaded from outside."""

import html
import re
from collections.abc import Iterable, Mapping, Sequence

from apr_jax.report.style import RUNS, STYLE


def escape(text: object) -> str:
    """Text made safe for an element or an attribute."""
    return html.escape(str(text), quote=True)


def anchor(title: str) -> str:
    """The id of the section of this title."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def section(title: str, *parts: str) -> str:
    """A section with its heading; nothing at all if its parts are empty."""
    body, place = "".join(parts), anchor(title)
    if not body:
        return ""
    return f'<section id="{place}"><h2>{escape(title)}</h2>{body}</section>'


def contents(body: str) -> str:
    """Links to the sections of a page; nothing if there are none."""
    found = re.findall(r'<section id="([^"]*)"><h2>(.*?)</h2>', body)
    links = "".join(f'<li><a href="#{i}">{title}</a></li>' for i, title in found)
    named = 'aria-labelledby="contents"'
    heading = '<h2 id="contents">In detail</h2>'
    return f"<nav {named}>{heading}<ul>{links}</ul></nav>" if links else ""


def details(summary: str, body: str) -> str:
    """What is shown when it is asked for; nothing if it is empty."""
    if not body:
        return ""
    return f"<details><summary>{escape(summary)}</summary>{body}</details>"


def figure(title: str, picture: str, note: str = "") -> str:
    """A picture under its title; the note below it is plain text."""
    below = f"<figcaption>{escape(note)}</figcaption>" if note else ""
    # One caption a figure: with a note below, the title is a paragraph of its own.
    name = "figcaption" if not note else "p"
    top = f'<{name} class="title">{escape(title)}</{name}>'
    return f"<figure>{top}{picture}{below}</figure>"


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
    return f'<span class="dot" style="background:var(--run-{run % RUNS})"></span>'


def legend(names: Mapping[int, str]) -> str:
    """The colours of some runs: index -> name."""
    spans = "".join(f"<span>{dot(i)}{escape(name)}</span>" for i, name in names.items())
    return f'<div class="legend">{spans}</div>'


def th(text: str, kind: str = "") -> str:
    """The head of a column; the text is HTML."""
    return f'<th scope="col"{_class(kind)}>{text}</th>'


def row_head(text: str, kind: str = "") -> str:
    """The first cell of a row, which names it; the text is HTML."""
    return f'<th scope="row"{_class(kind)}>{text}</th>'


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
    heads: Sequence[str],
    groups: Iterable[tuple[str, Iterable[Sequence[str]]]],
    *,
    caption: str,
    corner: str,
    kind: str = "",
) -> str:
    """A table that scrolls by itself where it is wider than the page, by keys, too.

    Args:
        heads: ``th`` of each column after the first.
        groups: (heading, rows of a ``row_head`` and ``td``); a heading is HTML and
            spans the table, an empty one is left out.
        caption: what the table shows, as plain text; different for each of a page.
        corner: head of the first column, as plain text.
        kind: class of the table.
    """
    bodies = []
    for heading, rows in groups:
        top = f'<th scope="rowgroup" colspan="{1 + len(heads)}"><span>{heading}</span>'
        lines = [f'<tr class="group">{top}</th></tr>' if heading else ""]
        lines += [f"<tr>{''.join(row)}</tr>" for row in rows]
        bodies.append(f"<tbody>{''.join(lines)}</tbody>")
    head = f"<thead><tr>{th(escape(corner), 'corner')}{''.join(heads)}</tr></thead>"
    name = escape(caption)
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{name}">'
        f"<table{_class(kind)}><caption><span>{name}</span></caption>"
        f"{head}{''.join(bodies)}</table></div>"
    )


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
