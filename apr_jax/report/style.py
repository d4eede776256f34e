"""The style of the page: its colours, light and dark, and the sheet that uses them.

Text has a contrast of 4.5 or more to what it stands on, lines and marks that carry data
one of 3 (WCAG 2.2, AA). Seven runs, amplitude and phase are nine colours, which were
chosen far apart for usual eyes, and apart for those that lack red or green cones.
"""

# Runs have this many colours; from there on they repeat.
RUNS = 7
LIGHT = {
    "paper": "#fbfbfa",
    "card": "#ffffff",
    "ink": "#1c2024",
    "soft": "#5b6067",
    "link": "#1f4fc4",
    "grey": "#7d828a",
    "faint": "#b9bdc4",
    "line": "#e4e5e8",
    "good": "#12805c",
    "bad": "#e5484d",
    "amplitude": "#ac335d",
    "phase": "#74770d",
    "run-0": "#697bf2",
    "run-1": "#cb7e1b",
    "run-2": "#075d35",
    "run-3": "#5c1ea4",
    "run-4": "#e20daf",
    "run-5": "#077095",
    "run-6": "#593007",
}
DARK = {
    "paper": "#131416",
    "card": "#1b1d20",
    "ink": "#edeef0",
    "soft": "#a9aeb6",
    "link": "#9db4ff",
    "grey": "#8d929a",
    "faint": "#565b63",
    "line": "#2e3136",
    "good": "#2fa877",
    "bad": "#ff6369",
    "amplitude": "#c04164",
    "phase": "#a2ed11",
    "run-0": "#638dfb",
    "run-1": "#eda60f",
    "run-2": "#40bf83",
    "run-3": "#9c3de2",
    "run-4": "#e59dcd",
    "run-5": "#91e2fc",
    "run-6": "#a37709",
}
# The strongest tint under a number, so that it stays legible.
TINT = {"light": 0.6, "dark": 0.4}


def _variables(colours: dict[str, str], tint: float) -> str:
    named = "; ".join(f"--{name}: {value}" for name, value in colours.items())
    return f"{named}; --tint: {tint}"


STYLE = (
    f"""
:root {{ color-scheme: light dark; {_variables(LIGHT, TINT["light"])} }}
@media (prefers-color-scheme: dark) {{
  :root {{ {_variables(DARK, TINT["dark"])} }}
}}
"""
    + """
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
}
main { max-width: 1120px; margin: 0 auto; padding: 2.2rem 1.2rem 3rem; }
h1, h2, h3, p, li, dt, dd, figcaption { overflow-wrap: anywhere; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .3rem; letter-spacing: -.01em; }
h2 { font-size: 1.25rem; margin: 2.8rem 0 .5rem; }
h3 { font-size: 1rem; margin: 1.6rem 0 .4rem; }
p { margin: .3rem 0 .8rem; max-width: 75ch; }
a { color: var(--link); text-underline-offset: .15em; }
:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
.soft { color: var(--soft); }
#the-answer ul { color: var(--soft); font-size: .92rem; padding-left: 1.2rem; }
li { max-width: 95ch; }
nav li { max-width: none; }
.card {
  background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 1rem 1.1rem; margin: .7rem 0; min-width: 0;
}
nav ul {
  display: flex; flex-wrap: wrap; gap: .25rem 1.4rem; list-style: none;
  margin: .2rem 0 0; padding: 0;
}
nav h2 { font-size: 1rem; margin: 1.4rem 0 .2rem; }

/* Tables: they scroll by themselves, and their first column stays. */
.scroll { overflow-x: auto; }
table {
  border-collapse: separate; border-spacing: 0; width: 100%;
  font-variant-numeric: tabular-nums;
}
caption {
  text-align: left; color: var(--soft); font-size: .88rem; padding-bottom: .3rem;
}
caption span, .group th > span {
  display: inline-block; position: sticky; left: 0;
  max-width: min(1040px, calc(100vw - 3.6rem));
}
th, td { text-align: left; padding: .38rem .8rem .38rem 0; vertical-align: baseline; }
th { font-weight: 600; overflow-wrap: anywhere; }
thead th { min-width: 6.4rem; }
tbody th[scope=row] { font-weight: 400; }
tbody th.outcome[scope=row] { font-weight: 600; }
.corner, th[scope=row] {
  position: sticky; left: 0; z-index: 1; background: var(--card);
  min-width: 7rem; max-width: 17rem;
}
tbody th, tbody td { border-top: 1px solid var(--line); }
tbody tr.group th { border-top: 0; padding-top: 1.1rem; }
tbody:first-of-type tr.group th { padding-top: .5rem; }
td.number { white-space: nowrap; }
td small, th small { color: var(--soft); display: block; font-size: .8rem; }
td.best { font-weight: 650; }
td.best small { font-weight: 400; }
td.differs { font-weight: 600; }
.answer th[scope=row] { font-weight: 600; min-width: 13rem; }
.answer th[scope=row] small { font-weight: 400; }
.answer td { font-size: 1.15rem; padding-top: .6rem; padding-bottom: .6rem; }
.answer td small { font-size: .8rem; }
.mark {
  font-size: .72rem; font-weight: 650; margin-left: .4rem; padding: .05rem .4rem;
  border-radius: 999px; background: var(--ink); color: var(--card);
  vertical-align: .12em;
}
.heat { font-size: .82rem; }
.heat td, .heat thead th {
  text-align: center; padding: .16rem .1rem; min-width: 2.3rem;
}
.heat thead th { overflow-wrap: normal; }
.heat thead th.corner { text-align: left; }
.heat th[scope=row] { padding: .16rem .4rem .16rem 0; min-width: 5rem; }
.heat tbody th, .heat tbody td { border-top: 1px solid var(--card); }
.heat tbody + tbody tr:first-child > * { border-top: 9px solid var(--card); }
.heat td {
  --share: calc(100% * var(--v) * var(--tint));
  background: color-mix(in srgb, var(--of) var(--share), var(--card));
  border-left: 1px solid var(--card);
}
.heat td:last-child { border-left: 8px solid var(--card); }
.heat .bad { --of: var(--bad); }
.heat .good { --of: var(--good); }
.dot {
  display: inline-block; width: .7em; height: .7em; border-radius: 50%;
  margin-right: .45em;
}
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.3rem; margin: .2rem 0 .6rem; }
.legend span { overflow-wrap: anywhere; }
.grid { display: grid; gap: .8rem; }
.grid > .card { margin: 0; }
.wide { grid-template-columns: repeat(auto-fill, minmax(min(100%, 420px), 1fr)); }
.small { grid-template-columns: repeat(auto-fill, minmax(min(100%, 310px), 1fr)); }

/* Figures: titles and legends are text of the page, which wraps. */
figure { margin: 0; }
figcaption { color: var(--soft); }
.title { color: var(--ink); font-size: .92rem; font-weight: 600; }
svg { display: block; width: 100%; height: auto; margin: .3rem auto 0; }
svg text { font-family: inherit !important; }
.confusion { font-size: 11px; text-anchor: middle; fill: var(--ink); }
.confusion .end { text-anchor: end; }
.confusion .frame { fill: none; stroke: var(--grey); stroke-width: .8; }
.confusion rect { fill-opacity: calc(var(--v) * var(--tint)); }
.forest h3 { margin: .9rem 0 .2rem; font-size: .95rem; }
.forest h3:first-child { margin-top: 0; }
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
.forest .axis .track { border-top: 1px solid var(--grey); }
.forest .axis .track > span {
  transform: translateX(-50%); color: var(--soft); font-size: .8rem; top: .2rem;
}
.bar {
  display: flex; gap: 2px; height: 1.1rem; border-radius: 4px; overflow: hidden;
  margin: -.4rem 0 1.1rem;
}
pre {
  background: var(--paper); border: 1px solid var(--line); border-radius: 8px;
  padding: .7rem .9rem; overflow-x: auto; margin: .4rem 0 .8rem;
  font: 13px/1.5 ui-monospace, "SF Mono", Menlo, Consolas, monospace;
}
details { margin: .9rem 0; }
summary { cursor: pointer; color: var(--link); overflow-wrap: anywhere; }
.example { border-top: 1px solid var(--line); padding: .8rem 0; }
.example:first-child { border-top: 0; padding-top: 0; }
.example p { margin: 0 0 .35rem; font-size: .9rem; font-weight: 600; }
.example > div {
  display: grid; gap: .9rem 1.4rem;
  grid-template-columns: repeat(auto-fill, minmax(min(46%, 225px), 1fr));
}
.sheet.plain {
  display: grid; gap: .9rem 1.4rem;
  grid-template-columns: repeat(auto-fill, minmax(min(46%, 225px), 1fr));
}
.sheet.plain .example { border: 0; padding: 0; }
.sheet.plain .example > div { display: block; }
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
  h1 { font-size: 1.4rem; }
  .card { padding: .75rem .7rem; }
  .example > div, .sheet.plain { gap: .8rem; }
  th, td { padding-right: .6rem; }
  .corner, th[scope=row] { min-width: 7rem; max-width: 8.6rem; }
  thead th { min-width: 5.6rem; }
  .answer .corner, .answer th[scope=row] { min-width: 6rem; max-width: 7.4rem; }
  .answer td { font-size: 1rem; }
  .answer td:last-child, .answer thead th:last-child { padding-right: 0; }
  .answer .mark { display: block; width: fit-content; margin: .15rem 0 0; }
}
@media print {
  .card { break-inside: avoid; }
  .scroll { overflow: visible; }
}
"""
)
