"""How long a newcomer waits: quickstart.ipynb as it comes, up to the first served prediction."""

import os
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import nbformat

import helpers

TURNS = 3
NOTE = """\
`quickstart.ipynb` with its own parameters, in an empty folder, with an empty local cloud, in a
fresh kernel; seconds from the start of the run to the end of the cell. What pip takes in Colab
comes before it. Three turns, each with a cloud of its own."""
CELLS = {  # what a cell does -> what stands in it
    "the prototype is trained": "model.fit(",
    "the job's model is registered": "helpers.register(",
    "the first answer is served": "helpers.predict(endpoint, ",
    "all has run": "helpers.cleanup(",
}


def rows() -> list[dict]:
    turns = [_turn() for _ in range(TURNS)]
    return [
        {"until": what, "seconds": sorted(turn[what] for turn in turns)[TURNS // 2],
         "fastest": min(turn[what] for turn in turns)}
        for what in CELLS
    ]  # fmt: skip


def _turn() -> dict[str, float]:
    """Seconds until the end of the first cell of each kind."""
    with tempfile.TemporaryDirectory(prefix="first-") as folder:
        state, before = str(Path(folder, "cloud")), dict(os.environ)
        os.environ["LOCAL_CLOUD_DIR"] = state
        try:
            start = time.time()
            made = helpers.run_notebook("quickstart.ipynb", Path(folder, "a.ipynb"), cwd=folder)
        finally:
            os.environ.clear()
            os.environ.update(before)
            stop = [sys.executable, "-m", "helpers.emulator", "stop", "--state", state]
            subprocess.run(stop, check=True, capture_output=True, timeout=60)
        seconds = {}
        for cell in nbformat.read(made, as_version=4).cells:
            for what, code in CELLS.items():
                if cell.cell_type == "code" and code in cell.source and what not in seconds:
                    seconds[what] = round(moment(cell) - start, 1)
        return seconds


def moment(cell) -> float:
    """When a cell had run, in seconds since 1970."""
    ended = datetime.fromisoformat(cell.metadata.papermill.end_time)
    return (ended if ended.tzinfo else ended.replace(tzinfo=UTC)).timestamp()
