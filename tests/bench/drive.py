"""`make run` beside what no drive can avoid, and where the time of its training job goes.

The sum: TensorFlow imported twice, one after the other, the training itself, and the start of a
server that has it imported. Each is measured here, alone.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

import nbformat

import helpers
from tests.bench.least import least_s, moment

ROOT = Path(__file__).parents[2]
DRIVES, TRIALS, EPOCHS = 3, 8, 10
NOTE = """`make run` three times on one local cloud, the first of them an empty one: the second and
the third also compare the new version with the running one. Seconds; `of the sum` is the share of
what can't be avoided where each process imports TensorFlow by itself. The local cloud's jobs and
servers are forks of a process that has it imported, which the first drive waits for. What a drive
takes beyond its training: kernels that start one after the other (0.3 s each), pandas, Matplotlib
and Google's client imported in each of them (0.6 to 0.9 s), TensorFlow imported in 01, the table
read and looked at, baselines and pictures twice, in 01 and in the job; and 01 trains beside the job
on the same two cores. Tried: 01 at a lower priority, which makes it end later and so be beside the
job for longer; kernels that wait for nothing (0.25 s less each, kept). Below: a job of the last
drive from its submission to the moment its caller saw it end, by the times that the job, its
notebook and the bucket carry."""
STAGE = re.compile(r"(?m)^(\w+) +([\d.]+) s$")
FIT, REST = "model.fit(", "pictures, scores and export"
PARTS = {"import keras": "TensorFlow imported, the model built", FIT: "trained"}


def rows() -> list[dict]:
    with tempfile.TemporaryDirectory(prefix="drive-") as folder:
        before = os.environ.get("LOCAL_CLOUD_DIR")
        os.environ["LOCAL_CLOUD_DIR"] = state = str(Path(folder, "cloud"))
        try:
            return _rows(Path(state))
        finally:
            stop = [sys.executable, "-m", "helpers.emulator", "stop", "--state", state]
            subprocess.run(stop, check=True, capture_output=True, timeout=60)
            del os.environ["LOCAL_CLOUD_DIR"]
            os.environ |= {"LOCAL_CLOUD_DIR": before} if before else {}


def _rows(state: Path) -> list[dict]:
    drives = [_drive() for _ in range(DRIVES)]
    session = helpers.connect("local")
    job = helpers.find_job(session)
    trained_s = job.metrics["seconds"]
    start = time.perf_counter()
    model = helpers.register(session, job, name="once-more")
    registered_s, start = time.perf_counter() - start, time.perf_counter()
    helpers.deploy(session, model)
    deployed_s = time.perf_counter() - start
    model_folder = state / "buckets" / job.model_uri.removeprefix("gs://")
    parts = least_s(model_folder) | {"training": trained_s}
    least = sum(parts.values())
    found = [("what can't be avoided", least)]
    found += [(f"{number}. drive", drive["all"]) for number, drive in enumerate(drives, 1)]
    found += [(name, seconds) for name, seconds in drives[-1].items() if name != "all"]
    found += [("registered and deployed", registered_s + deployed_s)]
    found += [(f"more/tune, {TRIALS} trials of {EPOCHS} epochs, the best trained anew", _tuned_s())]
    found += [("02 beside its training", drives[-1]["02_train"] - trained_s)]
    found += [(f"can't be avoided: {name}", seconds) for name, seconds in parts.items()]
    found += [(f"job: {name}", seconds) for name, seconds in timeline(state, job).items()]
    return [
        {"what": what, "seconds": round(seconds, 1),
         "of the sum": f"{seconds / least:.2f}" if "drive" in what else ""}
        for what, seconds in found
    ]  # fmt: skip


def _tuned_s() -> float:
    asked, start = {"CLOUD": "local", "TRIALS": TRIALS, "EPOCHS": EPOCHS}, time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="tune-") as folder:
        helpers.run_notebook(ROOT / "notebooks/more/tune.ipynb", Path(folder, "t.ipynb"), asked)
    return time.perf_counter() - start


def timeline(state: Path, job) -> dict[str, float]:
    """Seconds from each of a job's moments to the next."""
    resource, ipynb = job.resource(), f"{job.base_uri}/01_prototype.ipynb"
    executed = nbformat.reads(helpers.storage.read_bytes(job.session, ipynb).decode(), 4)
    caller = nbformat.read(ROOT / "outputs" / "02_train.ipynb", as_version=4)
    waited = next(cell for cell in caller.cells if "job.wait()" in cell.source)
    asked = next(cell for cell in caller.cells if "helpers.train(" in cell.source)
    cells = [cell for cell in executed.cells if cell.cell_type == "code"]
    run = executed.metadata.papermill
    stored = state / "buckets" / job.base_uri.removeprefix("gs://")
    at = {
        "checked and staged": _at(resource["createTime"]),
        "taken up": _at(resource["startTime"]),
        "its process up to the kernel's start": _at(run["start_time"]),
        "kernel started": _at(cells[0].metadata.papermill.start_time),
    }
    part = "cells before TensorFlow"
    for cell in cells:
        part = next((name for code, name in PARTS.items() if code in cell.source), part)
        at[part] = moment(cell)
        part = REST if part == PARTS[FIT] else part
    at |= {
        "kernel ended": _at(run["end_time"]),
        "page written, all stored": (stored / "left.txt").stat().st_mtime,
        "process ended": _at(resource["endTime"]),
        "seen by the caller": moment(waited),
    }
    last, found = _at(asked.metadata.papermill.start_time), {}
    for name, then in at.items():
        found[name], last = then - last, then
    return found


def _drive() -> dict[str, float]:
    """Seconds a stage, and of all."""
    command = [sys.executable, str(ROOT / ".ci" / "road.py"), "EPOCHS=50"]  # as in the Makefile
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=ROOT)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return {name: float(seconds) for name, seconds in STAGE.findall(done.stdout)}


def _at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
