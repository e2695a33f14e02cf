"""Executed notebooks as pages, and the page that leads to them; a reader needs no network."""

import functools
import json
import re
import threading
from datetime import UTC, datetime
from pathlib import Path

import nbformat

from helpers.looks.amounts import verdict

TEMPLATE = Path(__file__).with_name("report.html.j2")
KEPT = 50  # runs whose metrics are remembered
# a picture from the network, with or without a link
BADGE = re.compile(r"\[!\[[^\]]*\]\([^)]*\)\]\([^)]*\)\n*|!\[[^\]]*\]\(https?:[^)]*\)\n*")
# What the stages hand on, as their objects draw themselves.
MADE = re.compile(r"(Training job|Model|Endpoint) <a [^>]*>([^<]+)</a>((?: version \d+)?)")
_lock = threading.Lock()  # the exporter is one for all


def html_report(ipynb: str | Path, html: str | Path) -> Path:
    """Write an executed notebook as one page: outputs first, code folded, seconds a cell."""
    notebook = nbformat.read(ipynb, as_version=4)
    about = _about(notebook, Path(ipynb).stem)
    notebook.metadata.pop("widgets", None)
    notebook.cells = [c for c in notebook.cells if "papermill-error-cell-tag" not in _tags(c)]
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = re.sub(r"\A# .*\n*", "", BADGE.sub("", cell.source))
        elif cell.cell_type == "code":
            cell.outputs.sort(key=lambda output: output.output_type == "stream")
    return _write(Path(html), notebook, about)


def index(folder: str | Path, facts: dict[str, str] | None = None) -> Path:
    """Write `folder`/index.html, which leads to the folder's reports, and link these to each other.

    Args:
        folder: executed notebooks with their pages. `folder`/*/metrics.json, as 01 leaves it, is
            set against the run before and the baselines; `metrics.jsonl` there remembers runs.
        facts: what else is worth a line, by name.
    """
    folder, pages = Path(folder), []
    for path in sorted(folder.glob("*.ipynb")):
        if path.with_suffix(".html").is_file():
            pages.append(_about(nbformat.read(path, as_version=4), path.stem))
    for page in pages:
        names = [("index", "Reports"), *((other["name"], other["name"]) for other in pages)]
        current = ' aria-current="page"'
        links = " ".join(
            f'<a href="{name}.html"{current * (name == page["name"])}>{text}</a>'
            for name, text in names
        )
        file = folder / f"{page['name']}.html"
        text = file.read_text(encoding="utf-8")
        text = re.sub(r"<nav>.*?</nav>", lambda _, new=links: f"<nav>{new}</nav>", text, count=1)
        file.write_text(text, encoding="utf-8")
    about = {"title": "Reports", "pages": pages, "road": _road(pages), "facts": facts or {}}
    about["measured"] = _measured(folder)
    return _write(folder / "index.html", nbformat.v4.new_notebook(), about)


def unrun(notebook) -> list[int]:
    """Which code cells did not run, counted from 1."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [
        number
        for number, cell in enumerate(cells, 1)
        if cell.source.strip() and cell.execution_count is None
    ]


def _about(notebook, name: str) -> dict:
    """What one look should tell of an executed notebook; each code cell gets its share of it."""
    run, title, heading = notebook.metadata.get("papermill", {}), name, ""
    cells, made, failure, defaults = [], [], "", {}
    for position, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown":
            for marks, text in re.findall(r"(?m)^(#+) (.+)", cell.source):
                title, heading = (text if marks == "#" else title), text
        if cell.cell_type != "code":
            continue
        if "parameters" in _tags(cell):
            defaults = dict(re.findall(r"(?m)^(\w+) = (.+?)(?=  # |$)", cell.source))
        seconds = cell.metadata.get("papermill", {}).get("duration") or 0.0
        about = {"anchor": f"cell-{position}", "heading": heading, "seconds": seconds}
        about |= {"number": cell.execution_count, "failed": False}
        cell.metadata |= {"report": about, "alt": f"Picture under “{heading}”"}
        for output in cell.outputs:
            if output.output_type == "error":
                failure = f"cell {about['number']} raised {output.ename}: {output.evalue}"
                about["failed"] = True
            for kind, what, version in MADE.findall(output.get("data", {}).get("text/html", "")):
                made.append({"text": f"{kind} {what}{version}", "anchor": about["anchor"]})
        cells.append(about)
    given = {key: repr(value) for key, value in run.get("parameters", {}).items()}
    if not failure and (left := unrun(notebook)):
        failure = f"cell {left[0]} did not run ({len(left)} in all)"
    return {
        "name": name, "title": title, "state": "failed" if failure else "ran", "failure": failure,
        "ended": (run.get("end_time") or "")[:16].replace("T", " "),
        "seconds": run.get("duration") or sum(cell["seconds"] for cell in cells),
        "given": given, "defaults": {k: v for k, v in defaults.items() if k not in given},
        "cells": cells, "made": made,
        "longest": sorted(
            (cell for cell in cells if cell["seconds"] >= 0.05), key=lambda c: -c["seconds"]
        )[:3],
    }  # fmt: skip


def _road(pages: list[dict]) -> list[dict]:
    """Job → version → endpoint: where each was made, and which pages used it after."""
    things: dict[str, dict] = {}
    for page in pages:
        for thing in page["made"]:
            where = {"page": page["name"], "anchor": thing["anchor"]}
            known = things.setdefault(thing["text"], {"text": thing["text"], "by": where, "in": []})
            if page["name"] not in (known["by"]["page"], *(use["page"] for use in known["in"])):
                known["in"].append(where)
    return list(things.values())


def _measured(folder: Path) -> dict:
    """The newest metrics beside the run before, the baselines and the limit; {} if there are none.

    A verdict says how this run stands against a row, by the first metric.
    """
    files = sorted(folder.glob("*/metrics.json"), key=lambda path: path.stat().st_mtime)
    if not files:
        return {}
    ended = datetime.fromtimestamp(files[-1].stat().st_mtime, UTC)
    run = {"ended": ended.isoformat(timespec="milliseconds")} | json.loads(files[-1].read_text())
    memory = folder / "metrics.jsonl"
    runs = [json.loads(line) for line in memory.read_text().splitlines()] if memory.exists() else []
    runs = [*(r for r in runs[-KEPT:] if r["ended"] != run["ended"]), run]
    memory.write_text("".join(json.dumps(r) + "\n" for r in runs))

    same = [r for r in runs[:-1] if all(r[k] == run[k] for k in ("data", "target", "task"))]
    rows = [("this run", run["metrics"])]
    for last in same[-1:]:
        changed = [f"{k} {last[k]}" for k in ("epochs", "seed") if last.get(k) != run.get(k)]
        when = ", ".join([last["ended"][:16].replace("T", " "), *changed])
        rows.append((f"last run ({when})", last["metrics"]))
    rows += [(k.replace("_", " "), scores) for k, scores in run.get("baselines", {}).items()]
    if run.get("noise_mae") is not None:
        rows.append(("noise alone (the limit)", {"mae": run["noise_mae"]}))
    names = list(run["metrics"])
    rows = [(name, scores) for name, scores in rows if names[0] in scores]
    most = max(abs(scores[names[0]]) for _, scores in rows) or 1
    return {
        "what": f"{run['target']} from {run['data']}, {run['rows_test']:,} test rows",
        "names": [f"{k}, {run['unit']}" if k != "r2" and run["unit"] else k for k in names],
        "rows": [
            {
                "name": name,
                "values": [_number(scores[k]) if k in scores else "" for k in names],
                "share": round(100 * abs(scores[names[0]]) / most),
                "verdict": ""
                if name == "this run"
                else verdict(names[0], run["metrics"][names[0]], scores[names[0]]),
            }
            for name, scores in rows
        ],
    }


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _tags(cell) -> list[str]:
    return cell.metadata.get("tags", [])


def prepare() -> None:
    """Load what the first page needs, half a second's work; a notebook may run meanwhile."""
    threading.Thread(target=_rehearse, daemon=True, name="report").start()


def _rehearse() -> None:
    cells = [nbformat.v4.new_markdown_cell("# A"), nbformat.v4.new_code_cell("a = 1  # one")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    _page(notebook, _about(notebook, "a"))


def _write(path: Path, notebook, about: dict) -> Path:
    path.write_text(_page(notebook, about), encoding="utf-8")
    return path


def _page(notebook, about: dict) -> str:
    with _lock:
        return _exporter().from_notebook_node(notebook, resources={"about": about})[0]


@functools.cache
def _exporter():
    from nbconvert import HTMLExporter

    whole = ["nbconvert.preprocessors.CoalesceStreamsPreprocessor"]  # progress bars: the last state
    template = TEMPLATE.read_text(encoding="utf-8")
    return HTMLExporter(raw_template=template, preprocessors=whole)
