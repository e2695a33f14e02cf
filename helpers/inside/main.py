"""What runs inside a training container: a notebook or a script; its results go into the bucket.

    python -m helpers.inside.main --notebook=gs://B/…/01_prototype.ipynb --parameters=gs://B/…json
    python -m helpers.inside.main --script=train.py --strategy=auto -- its own arguments

exit code  meaning                                                      run again?
0          it ran to its end; everything is in the bucket
1          it raised; the executed notebook is in the bucket            no: it would raise again
2          an argument or parameter does not fit, or may not be read    no
75         the bucket, or another machine of the job, did not answer    yes
143        stopped on request (SIGTERM); what there was is in the bucket

SIGTERM is passed to the notebook's kernel, which is in a session of its own and would never see it,
or to the script. What either leaves in the folder OUTPUT_DIR (a parameter of the notebook, the
script's environment) is stored: model/, checkpoints/, logs/ and metrics.json. In a tuning job's
trial --NAME=VALUE sets a parameter of the notebook, and --metric names what the trial reports.
Works as process 1 of a container, where a signal without a handler does nothing.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

from helpers import notebooks
from helpers.cloud import environment, storage
from helpers.cloud.client import Session
from helpers.errors import CloudError, HelpersError, NotebookError
from helpers.inside.metric import report_metric

RAISED, UNFIT, NO_ANSWER, STOPPED = 1, 2, 75, 143
# What befalls a notebook of several machines when another one is told to stop, or gives no sign.
LOST = r"raised (Unavailable|DeadlineExceeded|Aborted|Cancelled|Cluster|Stopped)Error| died \("
GRACE_S = 30  # between Google's SIGTERM and SIGKILL


def main(arguments: list[str] | None = None) -> int:
    """Run the notebook and give the exit code."""
    parser = argparse.ArgumentParser(prog="python -m helpers.inside.main", allow_abbrev=False)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--notebook", help="gs:// address")
    what.add_argument("--script", help="a file of the image")
    parser.add_argument("--parameters", help="gs:// address of a JSON object")
    parser.add_argument("--metric", help="a number of the notebook's metrics.json")
    parser.add_argument("--strategy", choices=["auto", "none"], default="none")
    parser.add_argument("rest", nargs="*", help="the script's arguments")
    asked, more = parser.parse_known_args(arguments)
    given = [re.fullmatch(r"--(\w+)=(.*)", word, re.DOTALL) for word in more]
    if more and (asked.script or None in given):
        parser.error(f"{' '.join(more)}: expected --NAME=VALUE, a parameter of the notebook")
    asked.values = dict(match.groups() for match in given)
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: _stop(stopped))
    try:
        with tempfile.TemporaryDirectory(prefix="job-") as folder:
            run = _run_script if asked.script else _run
            return run(asked, Path(folder), stopped)
    except HelpersError as error:
        print(error, file=sys.stderr)
        status = error.status if isinstance(error, CloudError) else 400
        passing = status in (0, 408, 429) or status >= 500
        return STOPPED if stopped.is_set() else NO_ANSWER if passing else UNFIT


def _run(asked: argparse.Namespace, folder: Path, stopped: threading.Event) -> int:
    cloud = environment.from_environment()
    name = Path(asked.notebook).name
    source = storage.download_file(cloud, asked.notebook, folder / "input" / name)
    parameters = json.loads(storage.read_bytes(cloud, asked.parameters))
    output, executed, known = folder / "output", folder / name, notebooks.read_parameters(source)
    output.mkdir()
    for key, value in asked.values.items():  # the service may write a whole number as 32.0
        whole = isinstance(known.get(key), int) and re.fullmatch(r"(-?\d+)\.0+", value)
        parameters[key] = whole[1] if whole else value
    if "OUTPUT_DIR" in known:
        parameters["OUTPUT_DIR"] = str(output)
    failure = ""
    if not stopped.is_set():
        try:
            notebooks.run_notebook(source, executed, parameters, report=False, cwd=folder, log=True)
        except NotebookError as error:
            failure = str(error).splitlines()[0]  # the rest names a file of this container
    if asked.metric and _is_chief() and not failure and not stopped.is_set():
        failure = report_metric(asked.metric, output)
    if _is_chief() and "AIP_MODEL_DIR" in os.environ:
        if not stopped.is_set() and executed.is_file():  # a page takes seconds a stop may not have
            notebooks.html_report(executed, folder / "report.html")
        _upload(cloud, executed, output, whole=not failure and not stopped.is_set())
    if stopped.is_set():
        print(f"{name} was stopped on request.", file=sys.stderr)
        return STOPPED
    if failure:
        lost = "TF_CONFIG" in os.environ and re.search(LOST, failure)
        failure += " (Is another machine of the job gone?)" if lost else ""
        print(failure, file=sys.stderr)  # the last line: it becomes the job's error
        return NO_ANSWER if lost else RAISED
    return 0


def _run_script(asked: argparse.Namespace, folder: Path, stopped: threading.Event) -> int:
    cloud, output, code = environment.from_environment(), folder / "output", 0
    output.mkdir()
    if not stopped.is_set():
        module = ["-m", "helpers.learning.strategy"] if asked.strategy == "auto" else []
        about = {"OUTPUT_DIR": str(output), "TF_KERAS_RUNNING_REMOTELY": "1"}
        command = [sys.executable, *module, asked.script, *asked.rest]
        code = subprocess.call(command, env=os.environ | about)
    if _is_chief() and "AIP_MODEL_DIR" in os.environ:
        _upload(cloud, folder / "none.ipynb", output, whole=not code and not stopped.is_set())
    if stopped.is_set():
        print(f"{asked.script} was stopped on request.", file=sys.stderr)
        return STOPPED
    return 128 - code if code < 0 else code  # the script's own words are the last line already


def _upload(cloud: Session, executed: Path, output: Path, *, whole: bool) -> None:
    """Results into the bucket: what can't be made again first, the model last."""
    base = os.environ["AIP_MODEL_DIR"].rstrip("/").rpartition("/")[0]
    uris = {output / "checkpoints": os.environ.get("AIP_CHECKPOINT_DIR")}
    uris |= {file: f"{base}/{file.name}" for file in (executed, executed.parent / "report.html")}
    uris[output / "metrics.json"] = f"{base}/metrics.json"
    uris[output / "logs"] = os.environ.get("AIP_TENSORBOARD_LOG_DIR")
    uris[output / "model"] = os.environ["AIP_MODEL_DIR"] if whole else None
    for path, uri in uris.items():
        if uri and path.exists():
            store = storage.upload_folder if path.is_dir() else storage.upload_file
            store(cloud, path, uri)
    print(f"Everything is in {base}/", flush=True)


def _is_chief() -> bool:
    task = json.loads(os.environ.get("TF_CONFIG", "{}")).get("task", {})
    return task.get("type", "chief") == "chief"


def _stop(stopped: threading.Event) -> None:
    if not stopped.is_set():
        stopped.set()
        threading.Thread(target=_stop_kernel, daemon=True).start()


def _stop_kernel() -> None:
    """Pass SIGTERM on; a third of the grace time stays for the upload."""
    told: set[psutil.Process] = set()
    grace_s = float(os.environ.get("LOCAL_CLOUD_GRACE_S", GRACE_S))
    kill_at_s = time.monotonic() + grace_s * 2 / 3
    while True:
        for child in psutil.Process().children():
            if time.monotonic() > kill_at_s:
                child.kill()
            elif child not in told:  # also a kernel that is just starting
                child.terminate()
                told.add(child)
        time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main())
