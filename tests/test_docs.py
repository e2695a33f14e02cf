"""The pages name what is there: every message, every file, every link."""

import ast
import re
from pathlib import Path
from xml.etree import ElementTree

import nbformat
import pytest

from helpers import errors

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NOTEBOOKS = sorted((ROOT / "notebooks").rglob("*.ipynb"))
KINDS = {name for name in dir(errors) if name.endswith("Error")}


def template(node: ast.expr) -> str:
    """A message as it is written, with … for what is filled in."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(template(part) for part in node.values)
    if isinstance(node, ast.BinOp):
        return template(node.left) + template(node.right)
    return "…"


def plain(message: str) -> str:
    return " ".join(re.sub("…+", "…", message).split()).rstrip("…().:;, ")


def messages() -> set[tuple[str, str]]:
    """(kind, words) of every error this package makes."""
    found = set()
    for path in (ROOT / "helpers").rglob("*.py"):
        if "emulator" in path.relative_to(ROOT).parts:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
                words = plain(template(node.args[0]))
                if node.func.id in KINDS and re.search("[a-z]", words):
                    found.add((node.func.id, words))
    return found


def explained() -> list[tuple[str, str]]:
    """(kind, message) of every row of the troubleshooting page."""
    rows, kind = [], ""
    for line in (ROOT / "docs" / "troubleshooting.md").read_text().splitlines():
        if line.startswith("## "):
            kind = line[3:].split(":")[0]
        elif line.startswith("| `"):
            rows.append((kind, line.split("`")[1]))
            assert all(cell.strip() for cell in line.split("|")[1:-1]), line
    return rows


def test_every_message_is_explained_and_no_other():
    found, rows = messages(), explained()
    assert len(found) > 70
    used = set()
    for kind, words in found:
        starts = [row for row in rows if row[0] == kind and words.startswith(plain(row[1]))]
        assert starts, f"add a row to docs/troubleshooting.md: {kind}: {words}"
        used.add(max(starts, key=lambda row: len(row[1])))
    stale = set(rows) - used
    assert not stale, f"no code raises this any more, remove the row: {stale}"
    assert len(set(rows)) == len(rows)


def test_the_layout_names_every_stage_and_room():
    tree = README.split("## Layout")[1].split("```")[1]
    named = re.findall(r"(?m)^  (\S+)  +\S", tree.split("helpers/")[1])
    there = {path.name for path in (ROOT / "helpers").glob("*.py")} - {"__init__.py"}
    assert sorted(named) == sorted(there)
    folders = set(re.findall(r"(?m)^(\S+/)", tree))
    rooms = {path.parent.name for path in (ROOT / "helpers").glob("*/__init__.py")}
    assert {f"helpers/{room}/" for room in rooms} <= folders
    for folder in folders:
        assert (ROOT / folder).is_dir(), folder


def test_where_is_names_files_that_are_there():
    table = (ROOT / "docs" / "how-it-works.md").read_text().split("## Where is …?")[1]
    files = re.findall(r"(?m)^\| .+ \| `(\S+)` \|$", table)
    assert len(files) >= 20
    assert not [file for file in files if not (ROOT / file).is_file()]


def test_every_page_is_linked_from_the_readme():
    for page in PAGES[1:]:
        assert f"(docs/{page.name})" in README, page.name
    for notebook in (ROOT / "notebooks").rglob("*.ipynb"):
        assert f"/notebooks/{notebook.relative_to(ROOT / 'notebooks')})" in README


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_meet_a_file(page):
    for target in re.findall(r"\]\(([^)\s#]+)[^)]*\)", page.read_text()):
        if not target.startswith(("http", "mailto:")):
            assert (page.parent / target).exists(), target


def test_the_picture_is_small_asks_nobody_and_has_words():
    text = (ROOT / "docs" / "road.svg").read_text()
    root = ElementTree.fromstring(text)
    assert root.find("{http://www.w3.org/2000/svg}title").text
    assert len(text) < 12_000
    assert "<script" not in text
    assert not re.findall(r'href="http', text)
    assert "prefers-color-scheme" in text


def test_the_table_of_sizes_says_what_the_benchmarks_say():
    from tests.bench import sizes

    assert sizes.filled(README, sizes.PAGE.read_text()) == README


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_comes_next_is_a_click_away(path):
    cells = nbformat.read(path, as_version=4).cells
    for cell in cells:
        if cell.cell_type == "markdown" and "comes next" in cell.source.splitlines()[0]:
            assert not re.search(r"(?<!\[)`\w+\.ipynb`", cell.source), cell.source
