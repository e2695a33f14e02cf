"""How long a newcomer waits: quickstart.ipynb as it comes, up to the first served prediction."""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat

import helpers
from tests.bench.least import least_s, moment

TURNS = 3
NOTE = """\
`quickstart.ipynb` with its own parameters, in an empty folder, with an empty local cloud, in a
fresh kernel; seconds from the start of the run to the end of the cell. What pip takes in Colab
comes before it. Three turns, each with a cloud of its own. What can't be avoided up to the first
answer where each process imports TensorFlow by itself: two imports, one after the other, both
trainings, and a server's start. Here the local cloud imports it beside the notebook's own import,
and its job and server are forks."""
LEAST = "what can't be avoided, the sum"
CELLS = {  # what a cell does -> what stands in it
    "the prototype is trained": "model.fit(",
    "the job's model is registered": "helpers.register(",
    "the first answer is served": "helpers.predict(endpoint, ",
    "all has run": "helpers.cleanup(",
}


def rows() -> list[dict]:
    parts: dict[str, float] = {}
    turns = [_turn(parts) for _ in range(TURNS)]
    found = [
        {"until": what, "seconds": sorted(turn[what] for turn in turns)[TURNS // 2],
         "fastest": min(turn[what] for turn in turns)}
        for what in [*CELLS, LEAST]
    ]  # fmt: skip
    served, least = found[-3], found[-1]
    ratio = f"{served['seconds'] / least['seconds']:.2f}"
    return [row | {"of the sum": ratio if row is served else ""} for row in found]


def _turn(parts: dict[str, float]) -> dict[str, float]:
    """Seconds until the end of the first cell of each kind.

    Args:
        parts: of what can't be avoided; measured by the first turn.
    """
    with tempfile.TemporaryDirectory(prefix="first-") as folder:
        state, before = str(Path(folder, "cloud")), dict(os.environ)
        os.environ["LOCAL_CLOUD_DIR"] = state
        try:
            start = time.time()
            made = helpers.run_notebook("quickstart.ipynb", Path(folder, "a.ipynb"), cwd=folder)
            seconds = _seconds(nbformat.read(made, as_version=4), start)
            seconds[LEAST] = _least_s(Path(state, "buckets"), made, parts)
        finally:
            os.environ.clear()
            os.environ.update(before)
            stop = [sys.executable, "-m", "helpers.emulator", "stop", "--state", state]
            subprocess.run(stop, check=True, capture_output=True, timeout=60)
        return seconds


def _seconds(notebook, start: float) -> dict[str, float]:
    found: dict[str, float] = {}
    for cell in notebook.cells:
        for what, code in CELLS.items():
            if cell.cell_type == "code" and code in cell.source:
                found.setdefault(what, round(moment(cell) - start, 1))
    return found


def _least_s(buckets: Path, made: Path, parts: dict[str, float]) -> float:
    job = next(buckets.glob("*/jobs/*/metrics.json"))
    cells = nbformat.read(made, as_version=4).cells
    fit = next(cell for cell in cells if cell.cell_type == "code" and "model.fit(" in cell.source)
    trained_s = fit.metadata.papermill.duration + json.loads(job.read_text())["seconds"]
    parts |= parts or least_s(job.parent / "model")
    return round(trained_s + sum(parts.values()), 1)
