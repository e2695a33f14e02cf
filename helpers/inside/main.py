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
or to the script. Everything that either leaves in the folder OUTPUT_DIR (in the environment, and a
parameter of the notebook) or in its working directory is stored (left.py); the last line says what
that is. In a tuning job's trial --NAME=VALUE sets a parameter of the notebook, and --metric names
what the trial reports.
Works as process 1 of a container, where a signal without a handler does nothing.
"""

import argparse
import gc
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from pathlib import Path

import psutil

from helpers import notebooks
from helpers.cells import ahead, kernel
from helpers.cloud import environment, storage
from helpers.cloud.client import Session
from helpers.errors import CloudError, HelpersError, NotebookError
from helpers.inside import left
from helpers.looks import report

RAISED, UNFIT, NO_ANSWER, STOPPED = 1, 2, 75, 143
# What a notebook on several machines raises when another machine has stopped or does not answer.
LOST = r"raised (Unavailable|DeadlineExceeded|Aborted|Cancelled|Cluster|Stopped)Error| died \("
GRACE_S = 30  # between Google's SIGTERM and SIGKILL


def main(arguments: list[str] | None = None) -> int:
    """Run the notebook and give the exit code."""
    parser = argparse.ArgumentParser(prog="python -m helpers.inside.main", allow_abbrev=False)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--notebook", help="gs:// address")
    what.add_argument("--script", help="a file of the image")
    parser.add_argument("--parameters", help="gs:// address of a JSON object")
    parser.add_argument("--code", help="gs:// address of a .tgz for the working directory")
    parser.add_argument("--metric", help="a number of the notebook's metrics.json")
    parser.add_argument("--strategy", choices=["auto", "none"], default="none")
    parser.add_argument("rest", nargs="*", help="the script's arguments")
    asked, more = parser.parse_known_args(arguments)
    environment.complete_cluster()
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
    cloud, name = environment.from_environment(), Path(asked.notebook).name
    source = storage.download_file(cloud, asked.notebook, folder / "input" / name)
    parameters = json.loads(storage.read_bytes(cloud, asked.parameters))
    output, work, executed = folder / "output", folder / "work", folder / name
    known = notebooks.read_parameters(source)
    for key, value in asked.values.items():  # the service may write a whole number as 32.0
        whole = isinstance(known.get(key), int) and re.fullmatch(r"(-?\d+)\.0+", value)
        parameters[key] = whole[1] if whole else value
    if "OUTPUT_DIR" in known:
        parameters["OUTPUT_DIR"] = str(output)
    output.mkdir()
    work.mkdir()
    if asked.code:
        packed = storage.read_bytes(cloud, asked.code)
        with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
            tar.extractall(work, filter="data")
    os.environ["OUTPUT_DIR"], before, failure = str(output), left.stamps(work), ""
    if not stopped.is_set():
        try:
            how = {"report": False, "cwd": work, "log": True, "rehearse": True}
            kernel.execute(source, executed, notebooks.check_parameters(source, parameters), **how)
        except NotebookError as error:
            failure = str(error).splitlines()[0]  # the rest names a file of this container
    if asked.metric and _is_chief() and not failure and not stopped.is_set():
        from helpers.inside.metric import report_metric  # brings pandas, which others do without

        found = left.collect(output, work, before).get("metrics.json", output / "metrics.json")
        failure = report_metric(asked.metric, found)
    if _is_chief() and "AIP_MODEL_DIR" in os.environ:
        if not stopped.is_set() and executed.is_file():  # a page takes seconds a stop may not have
            report.html_report(executed, folder / "report.html")
        _keep(cloud, folder, left.collect(output, work, before), asked, bool(failure), stopped)
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
    cloud, output, work = environment.from_environment(), folder / "output", folder / "work"
    given, code = Path(asked.script), 0
    home = given.parent if given.is_absolute() else Path.cwd()
    script = given.relative_to(home) if given.is_absolute() else given
    output.mkdir()
    if home == Path(home.anchor):  # no folder of code: do not copy the whole machine
        work.mkdir()
        shutil.copy(home / script, work / script.name)
    else:
        shutil.copytree(home, work)  # the image itself stays as it is
    before = left.stamps(work)
    if not stopped.is_set():
        module = ["-m", "helpers.learning.strategy"] if asked.strategy == "auto" else []
        env = os.environ | {"OUTPUT_DIR": str(output), "TF_KERAS_RUNNING_REMOTELY": "1"}
        command = [sys.executable, *module, str(script), *asked.rest]
        known = (work / script).is_file() and ahead.waits(work / script, work)
        process = ahead.start(command, env, work) if known else None
        code = (process or subprocess.Popen(command, env=env, cwd=work)).wait()
    if _is_chief() and "AIP_MODEL_DIR" in os.environ:
        _keep(cloud, folder, left.collect(output, work, before), asked, bool(code), stopped)
    if stopped.is_set():
        print(f"{asked.script} was stopped on request.", file=sys.stderr)
        return STOPPED
    return 128 - code if code < 0 else code  # the script's own words are the last line already


def _keep(
    cloud: Session, folder: Path, files: dict[str, Path], asked: argparse.Namespace, failed: bool,
    stopped: threading.Event,
) -> None:  # fmt: skip
    """Results into the bucket; the last line of a job that went well says what they are."""
    base = os.environ["AIP_MODEL_DIR"].rstrip("/").rpartition("/")[0]
    pages = {path.name: path for path in (*folder.glob("*.ipynb"), *folder.glob("report.html"))}
    said = ""
    if not failed and not stopped.is_set():
        made = left.with_model(files, folder / "served", convert=not asked.metric)
        files, said = made.files, made.said
    model = None if stopped.is_set() else not failed
    left.store(cloud, base, files, pages, model=model)
    print(f"Everything is in {base}/", flush=True)
    if said and model:
        storage.write_bytes(cloud, said.encode(), f"{base}/left.txt")
        print(said, flush=True)


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
    ended_as = main()
    gc.freeze()  # the system takes it all back at once
    sys.exit(ended_as)
