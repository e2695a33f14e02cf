"""The training container's program, run for real: a job on the local cloud, and as process 1."""

import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import nbformat
import psutil
import pytest

from helpers import storage
from helpers.cloud import buckets, images
from helpers.inside import main as container_main
from tests.emulator.conftest import Emulator, start, until

ROOT = Path(__file__).parents[1]
GOOD = """
from pathlib import Path
folder = Path(OUTPUT_DIR)
for name in ("model/1/variables/part", "model/1/saved_model.pb", "logs/events", "metrics.json"):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(f"{name} {EPOCHS}")
print("trained", EPOCHS)
"""
# Saves a checkpoint when told to stop, as a training callback will.
LONG = """
import os, signal, time
from pathlib import Path
folder = Path(OUTPUT_DIR) / "checkpoints"
def save(*_):
    folder.mkdir(parents=True)
    (folder / "last").write_text("saved")
    raise SystemExit
signal.signal(signal.SIGTERM, save)
print("kernel", os.getpid(), flush=True)
time.sleep(600)
"""
DEAF = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("kernel", os.getpid(), flush=True)
time.sleep(600)
"""


@pytest.fixture(scope="module")
def cloud(tmp_path_factory):
    running = start(tmp_path_factory.mktemp("container") / "state", LOCAL_CLOUD_GRACE_S="9")
    buckets.create_bucket(running.session)
    yield running
    running.stop()


def prepare(cloud: Emulator, base: str, code: str, parameters: dict) -> list[str]:
    """Put a notebook and its parameters into the bucket; the program's arguments."""
    cell = nbformat.v4.new_code_cell(
        'EPOCHS = 1\nOUTPUT_DIR = ""', metadata={"tags": ["parameters"]}
    )
    book = nbformat.v4.new_notebook(
        cells=[cell, nbformat.v4.new_code_cell(code.strip())],
        metadata={"kernelspec": {"name": "python3", "display_name": "", "language": "python"}},
    )
    text = nbformat.writes(book).encode()
    storage.write_bytes(cloud.session, text, f"{base}/input/tiny.ipynb")
    storage.write_bytes(
        cloud.session, json.dumps(parameters).encode(), f"{base}/input/parameters.json"
    )
    arguments = [f"--notebook={base}/input/tiny.ipynb"]
    return [*arguments, f"--parameters={base}/input/parameters.json"]


def submit(cloud: Emulator, base: str, code: str, parameters: dict) -> str:
    image = images.environment_image(cloud.session)
    container = {"imageUri": image, "args": prepare(cloud, base, code, parameters)}
    pool = {"machineSpec": {"machineType": "n1-standard-4"}, "replicaCount": "1"}
    specification = {
        "workerPoolSpecs": [pool | {"containerSpec": container}],
        "baseOutputDirectory": {"outputUriPrefix": base},
    }
    jobs = cloud.api("aiplatform").projects().locations().customJobs()
    body = {"displayName": "tiny", "jobSpec": specification}
    return jobs.create(parent=cloud.parent, body=body).execute()["name"]


def ended(cloud: Emulator, name: str) -> dict:
    jobs = cloud.api("aiplatform").projects().locations().customJobs()
    ends = ("SUCCEEDED", "FAILED", "CANCELLED")
    return until(lambda: (job := jobs.get(name=name).execute())["state"].endswith(ends) and job)


def lines(cloud: Emulator, name: str) -> list[str]:
    paths = (cloud.folder / "logs").glob(f"*/ml_job/{name.rsplit('/', 1)[-1]}/workerpool0-0.jsonl")
    return [json.loads(line)["m"] for path in paths for line in path.read_text().splitlines()]


def kernel(cloud: Emulator, name: str) -> psutil.Process:
    said = until(lambda: [line for line in lines(cloud, name) if line.startswith("kernel ")])
    return psutil.Process(int(said[0].split()[1]))


def read(cloud: Emulator, uri: str) -> str:
    return storage.read_bytes(cloud.session, uri).decode()


def test_a_notebook_ends_as_files_in_the_bucket(cloud):
    base = "gs://local-bucket/jobs/good"
    name = submit(cloud, base, GOOD, {"EPOCHS": 7})
    job = ended(cloud, name)
    assert job["state"] == "JOB_STATE_SUCCEEDED", lines(cloud, name)
    assert read(cloud, f"{base}/model/1/saved_model.pb") == "model/1/saved_model.pb 7"
    assert read(cloud, f"{base}/logs/events") == "logs/events 7"
    assert read(cloud, f"{base}/metrics.json") == "metrics.json 7"
    assert "trained 7" in read(cloud, f"{base}/tiny.ipynb")
    assert "trained 7" in read(cloud, f"{base}/report.html")
    assert "trained 7" in lines(cloud, name)
    written = [cloud.folder / "buckets/local-bucket/jobs/good/model/1" / part
               for part in ("variables/part", "saved_model.pb")]  # fmt: skip
    assert written[0].stat().st_mtime_ns <= written[1].stat().st_mtime_ns


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="forks are for Linux")
@pytest.mark.parametrize(
    ("line", "imported"),
    [("", True), ("import os; os.environ['KERAS_BACKEND'] = 'tensorflow'", False)],
)
def test_a_notebook_finds_tensorflow_imported_unless_it_says_how(cloud, line, imported):
    code = f"""
import os, sys
{line}
print("imported", "tensorflow" in sys.modules)
print(sys.executable, os.path.basename(os.getcwd()), sys.modules["__main__"].__name__)
import helpers, matplotlib
print(helpers.__file__, matplotlib.get_backend())
"""
    name = submit(cloud, f"gs://local-bucket/jobs/imported-{imported}", code, {})
    assert ended(cloud, name)["state"] == "JOB_STATE_SUCCEEDED", lines(cloud, name)
    said = lines(cloud, name)
    assert f"imported {imported}" in said
    own = f"{cloud.folder}/jobs/{name.rsplit('/', 1)[-1]}/workerpool0-0"
    assert f"{own}/python/bin/python work __main__" in said
    last = next(line for line in said if line.endswith("inline"))
    assert last.startswith(f"{own}/image/")


def test_a_cell_that_raises_fails_the_job_once_and_is_kept(cloud):
    base = "gs://local-bucket/jobs/raises"
    name = submit(cloud, base, "print('so far')\nraise ValueError('no such column')", {})
    job = ended(cloud, name)
    assert job["state"] == "JOB_STATE_FAILED"
    message = job["error"]["message"]
    assert re.match(r"cell \d of tiny.ipynb raised ValueError: no such column", message), message
    executed = read(cloud, f"{base}/tiny.ipynb")
    assert "so far" in executed
    assert "no such column" in executed
    assert lines(cloud, name).count("so far") == 1
    assert not storage.list_uris(cloud.session, f"{base}/model/")


def test_a_parameter_that_does_not_fit_fails_the_job(cloud):
    base = "gs://local-bucket/jobs/unfit"
    job = ended(cloud, submit(cloud, base, GOOD, {"EPOCH": 7}))
    assert job["state"] == "JOB_STATE_FAILED"
    assert 'Did you mean "EPOCHS"?' in job["error"]["message"]


def test_cancel_reaches_the_kernel_and_keeps_what_there_was(cloud):
    base = "gs://local-bucket/jobs/cancelled"
    name = submit(cloud, base, LONG, {})
    running = kernel(cloud, name)
    cloud.api("aiplatform").projects().locations().customJobs().cancel(name=name).execute()
    assert ended(cloud, name)["state"] == "JOB_STATE_CANCELLED"
    assert read(cloud, f"{base}/checkpoints/last") == "saved"
    assert "kernel" in read(cloud, f"{base}/tiny.ipynb")
    assert "tiny.ipynb was stopped on request." in lines(cloud, name)
    assert not running.is_running()


def test_a_kernel_that_ignores_sigterm_is_killed_within_the_grace_time(cloud):
    base = "gs://local-bucket/jobs/deaf"
    name = submit(cloud, base, DEAF, {})
    running = kernel(cloud, name)
    cloud.api("aiplatform").projects().locations().customJobs().cancel(name=name).execute()
    assert ended(cloud, name)["state"] == "JOB_STATE_CANCELLED"
    assert "kernel" in read(cloud, f"{base}/tiny.ipynb")
    assert not running.is_running()


@pytest.mark.parametrize("kind", ["chief", "worker"])
def test_only_the_chief_uploads(cloud, tmp_path, kind):
    base = f"gs://local-bucket/jobs/as-{kind}"
    done = run(cloud, base, GOOD, {"TF_CONFIG": json.dumps({"task": {"type": kind, "index": 0}})})
    out, _ = done.communicate(timeout=60)
    assert done.returncode == 0, out
    found = storage.list_uris(cloud.session, f"{base}/model/")
    assert bool(found) == (kind == "chief")


def run(cloud: Emulator, base: str, code: str, extra: dict, *before: str) -> subprocess.Popen:
    """The program by itself, as another container service would start it."""
    environment = {
        "LOCAL_CLOUD_DIR": str(cloud.folder), "LOCAL_CLOUD_PROJECT": "local",
        "LOCAL_CLOUD_GRACE_S": "9", "PYTHONPATH": str(ROOT), "AIP_MODEL_DIR": f"{base}/model/",
        "AIP_TENSORBOARD_LOG_DIR": f"{base}/logs/", "AIP_CHECKPOINT_DIR": f"{base}/checkpoints/",
    }  # fmt: skip
    words = [*before, sys.executable, "-m", "helpers.inside.main"]
    return subprocess.Popen(
        [*words, *prepare(cloud, base, code, {})], env=os.environ | environment | extra,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def test_it_works_as_process_1(cloud):
    unshare = ["unshare", "--pid", "--fork", "--mount-proc"]
    if not shutil.which("unshare") or subprocess.run([*unshare, "true"], check=False).returncode:
        pytest.skip("this machine allows no pid namespaces (unshare --pid)")
    base = "gs://local-bucket/jobs/process1"
    outer = run(cloud, base, LONG.replace("print(", "print(os.getppid(), "), {}, *unshare)
    said = iter(outer.stdout.readline, "")
    assert any(line.startswith("1 kernel") for line in said)  # its parent is process 1
    (inner,) = psutil.Process(outer.pid).children()
    inner.send_signal(signal.SIGTERM)
    out, _ = outer.communicate(timeout=60)
    assert outer.returncode == 143, out
    assert read(cloud, f"{base}/checkpoints/last") == "saved"


def test_what_is_not_there_is_permanent(cloud):
    base = "gs://local-bucket/jobs/absent"
    words = [sys.executable, "-m", "helpers.inside.main", f"--notebook={base}/none.ipynb"]
    environment = {"LOCAL_CLOUD_DIR": str(cloud.folder), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*words, f"--parameters={base}/none.json"], env=os.environ | environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "none.ipynb" in done.stderr.splitlines()[-1]


def test_a_bucket_that_does_not_answer_is_worth_another_try(cloud, monkeypatch, capsys):
    dead = dataclasses.replace(cloud.session, endpoint="http://127.0.0.1:9", _services={})
    monkeypatch.setattr("helpers.cloud.environment.from_environment", lambda: dead)
    monkeypatch.setattr("helpers.cloud.client.RETRIES", 0)
    before = signal.getsignal(signal.SIGTERM)
    try:
        code = container_main.main(["--notebook=gs://b/n.ipynb", "--parameters=gs://b/p.json"])
    finally:
        signal.signal(signal.SIGTERM, before)
    assert code == 75
    assert "no answer" in capsys.readouterr().err
