"""What README and docs/ point to is there, down to the heading."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")
# files of ours as they are written in running text, tables and examples
NAMED = re.compile(r"(?:launch|robot|perception|policy|teleop|tests|benchmarks)/[\w/]+\.(?:py|sh|toml)\b")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_named_files_exist(page: Path) -> None:
    text = page.read_text()
    missing = [link for link in LINK.findall(text) if not (page.parent / link).exists()]
    missing += [name for name in NAMED.findall(text) if not (ROOT / name).exists()]
    assert missing == []


def anchors(page: Path) -> set[str]:
    """Anchors that GitHub gives the headings of a page; of equal ones the later are numbered."""
    found: list[str] = []
    for heading in re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", page.read_text(), flags=re.S | re.M), re.M):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower().strip()
        found.append(re.sub(r"[^\w\- ]", "", words).replace(" ", "-"))
    return {name if (before := found[:i].count(name)) == 0 else f"{name}-{before}" for i, name in enumerate(found)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_headings_exist(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]*)#([^)]*)\)", page.read_text())
    missing = [f"{name}#{title}" for name, title in links if title not in anchors(page.parent / name if name else page)]
    assert missing == []


def test_every_guide_is_linked_from_the_readme() -> None:
    linked = set(LINK.findall((ROOT / "README.md").read_text()))
    assert {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")} <= linked
