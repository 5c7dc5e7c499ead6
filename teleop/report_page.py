"""The HTML shell of a report: one file that needs nothing from outside, on a screen or on paper."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from teleop.arbiter import Source
from teleop.report_svg import RESIDUAL, SOURCE_HEX

_COLOURS = {source.name.lower(): colour for source, colour in SOURCE_HEX.items()}
# What the arm was told is drawn in the page's grey, under the voices.
_VOICES = {
    "base": _COLOURS["policy"],
    "residual": RESIDUAL,
    "human": _COLOURS["human"],
    "commanded": "var(--faint)",
}
SOURCE_KEY, VOICE_KEY = _COLOURS, _VOICES

_CSS = """
:root { color-scheme: light dark; --page: #ffffff; --ink: #1b2028; --faint: #667080; --line: #d8dce3; --panel: #f4f5f8;
  --warn: #a35c00; --policy-words: #2660b4; }
@media (prefers-color-scheme: dark) { :root { --page: #14171c; --ink: #eceff4; --faint: #929baa; --line: #343b47;
  --panel: #1f242c; --warn: #f0b43c; --policy-words: #7aa7ec; } }
@media print { :root { --page: #ffffff; --ink: #000000; --faint: #555555; --line: #cccccc; --panel: #f4f5f8;
  --warn: #a35c00; --policy-words: #2660b4; }
  section, figure { break-inside: avoid; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.5rem 4rem; max-width: 62rem; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
h1 { font-size: 1.05rem; font-weight: 600; color: var(--faint); margin: 0 0 .4rem; }
.headline { font-size: 3.2rem; font-weight: 650; line-height: 1.1; margin: 0; letter-spacing: -.02em; }
h2 { font-size: 1.15rem; margin: 2.6rem 0 .3rem; padding-top: 1rem; border-top: 1px solid var(--line); }
p { margin: .3rem 0 .6rem; max-width: 50rem; }
.note { color: var(--faint); }
.warn { color: var(--warn); font-weight: 600; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(var(--least), 1fr)); gap: .7rem;
  margin: 1.3rem 0 0; }
.facts div { background: var(--panel); border-radius: 6px; padding: .7rem .9rem; }
.facts b { display: block; font-size: 1.35rem; line-height: 1.25; }
.facts span { color: var(--faint); font-size: .86rem; }
figure { margin: .8rem 0 0; }
svg { width: 100%; height: auto; display: block; }
svg image, .strip img { image-rendering: pixelated; }
.key span { display: inline-block; margin-right: 1.2rem; font-size: .9rem; }
.key i { display: inline-block; width: .85rem; height: .85rem; border-radius: 3px; margin-right: .4rem;
  vertical-align: -.08rem; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
.strip { display: grid; gap: 4px; font-size: .8rem; }
.strip img { width: 100%; display: block; }
.strip .at { border-top: 5px solid; padding-top: 2px; color: var(--faint); }
.strip .name { color: var(--faint); margin-top: .5rem; grid-column: 1 / -1; }
table { border-collapse: collapse; font-size: .88rem; width: 100%; font-variant-numeric: tabular-nums; }
th { text-align: left; color: var(--faint); font-weight: 500; }
th, td { padding: .22rem .8rem .22rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td.wide { overflow-wrap: anywhere; }
summary { cursor: pointer; color: var(--faint); }
pre { background: var(--panel); border-radius: 6px; padding: .8rem; overflow-x: auto; font-size: .8rem; }
"""


def page(title: str, body: str) -> str:
    """Return the whole document."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_CSS}</style></head><body>\n{body}\n</body></html>\n"
    )


def section(title: str, *parts: str) -> str:
    """Return one titled part of the page."""
    return f"<section><h2>{escape(title)}</h2>\n" + "\n".join(parts) + "</section>\n"


def text(words: str, kind: str = "") -> str:
    """Return a paragraph; `kind` is `note` or `warn`."""
    return f'<p class="{kind}">{escape(words)}</p>'


def figure(drawing: str) -> str:
    """Return a figure round an SVG element."""
    return f"<figure>{drawing}</figure>"


def colour_key(colours: dict[str, str]) -> str:
    """Return the names beside their colours."""
    parts = (f'<span><i style="background:{colour}"></i>{escape(name)}</span>' for name, colour in colours.items())
    return f'<p class="key">{"".join(parts)}</p>'


def tiles(facts: Iterable[tuple[str, str]]) -> str:
    """Return figures to be seen at once: (value, what it is)."""
    parts = [f"<div><b>{escape(value)}</b><span>{escape(what)}</span></div>" for value, what in facts]
    least_rem = 11 if len(parts) == 4 else 15  # one row of four, or rows of three
    return f'<div class="facts" style="--least:{least_rem}rem">{"".join(parts)}</div>'


def table(rows: Iterable[Sequence[str]], head: Sequence[str] = ()) -> str:
    """Return a table; the last column takes long words."""
    top = "<thead><tr>" + "".join(f"<th>{escape(cell)}</th>" for cell in head) + "</tr></thead>" if head else ""
    lines = []
    for *cells, last in rows:
        inside = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        lines.append(f'<tr>{inside}<td class="wide">{escape(last)}</td></tr>')
    return f"<table>{top}<tbody>{''.join(lines)}</tbody></table>"


def folded(summary: str, inside: str) -> str:
    """Return something long that opens on a click."""
    return f"<details><summary>{escape(summary)}</summary>{inside}</details>"


def strip(moments: Sequence[tuple[str, Source]], cameras: dict[str, list[str]]) -> str:
    """Return camera pictures in a row per camera, under the time and the colour of who drove.

    Args:
        moments: (time in words, who drove), one per column.
        cameras: name -> PNG data URIs, one per column.
    """
    cells = [
        f'<div class="at" style="border-color:{SOURCE_HEX[source]}">{escape(at)}<br>{source.name.lower()}</div>'
        for at, source in moments
    ]
    for name, pictures in cameras.items():
        cells.append(f'<div class="name">{escape(name)}</div>')
        cells += [
            f'<img src="{picture}" alt="{escape(name)} at {escape(at)}">'
            for picture, (at, _) in zip(pictures, moments, strict=True)
        ]
    return f'<div class="strip" style="grid-template-columns:repeat({len(moments)},1fr)">{"".join(cells)}</div>'
