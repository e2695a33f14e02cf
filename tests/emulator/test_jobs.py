"""Training jobs on the local cloud: real processes, real signals, real logs."""

import json
import os
import signal
import subprocess
import sys
import tarfile
import textwrap
from importlib import metadata
from pathlib import Path

import psutil
import pytest
from googleapiclient.errors import HttpError

from tests.emulator.conftest import Emulator, start, until

pytestmark = pytest.mark.long

ENDED = {"JOB_STATE_SUCCEEDED", "JOB_STATE_FAILED", "JOB_STATE_CANCELLED"}
# Ignores SIGTERM and leaves a grandchild in a session of its own; both say who they are.
STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
inner = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); "
inner += "time.sleep(600)"
middle = "import subprocess, sys; words = [sys.executable, '-c', sys.argv[1]]; "
middle += "print(subprocess.Popen(words, start_new_session=True).pid, flush=True)"
subprocess.run([sys.executable, "-c", middle, inner])
print(os.getpid(), flush=True)
time.sleep(600)
"""


@pytest.fixture(scope="module")
def cloud(tmp_path_factory):
    secret = {"LOCAL_CLOUD_GRACE_S": "0.5", "MY_SECRET": "not for jobs"}
    running = start(tmp_path_factory.mktemp("jobs") / "state", **secret)
    yield running
    running.stop()


def jobs(cloud: Emulator):
    return cloud.api("aiplatform").projects().locations().customJobs()


def submit(cloud: Emulator, code: str = "", *, pools: list | None = None, **specification) -> str:
    container = {"imageUri": "python:3.11", "command": ["python", "-c", textwrap.dedent(code)]}
    pool = {"machineSpec": {"machineType": "n1-standard-4"}, "containerSpec": container}
    pools = pools or [pool | {"replicaCount": "1"}]
    body = {"displayName": "job", "jobSpec": {"workerPoolSpecs": pools} | specification}
    return jobs(cloud).create(parent=cloud.parent, body=body).execute()["name"]


def get(cloud: Emulator, name: str) -> dict:
    return jobs(cloud).get(name=name).execute()


def ended(cloud: Emulator, name: str) -> dict:
    return until(lambda: (job := get(cloud, name))["state"] in ENDED and job)


def lines(cloud: Emulator, name: str, task: str = "workerpool0-0", severity: str = "") -> list[str]:
    number = name.rsplit("/", 1)[-1]
    chosen = f'resource.type="ml_job" AND resource.labels.job_id="{number}"'
    chosen += f' AND resource.labels.task_name="{task}"'
    chosen += f" AND severity={severity}" if severity else ""
    body = {"resourceNames": ["projects/local"], "filter": chosen, "pageSize": 1000}
    answer = cloud.api("logging").entries().list(body=body).execute()
    return [entry["textPayload"] for entry in answer.get("entries", [])]


def test_a_job_runs_with_the_environment_vertex_gives(cloud):
    code = "import json, os; print(json.dumps(dict(os.environ)))"
    base = {"outputUriPrefix": "gs://local-bucket/out/"}
    name = submit(cloud, code, baseOutputDirectory=base)
    job = ended(cloud, name)
    assert job["state"] == "JOB_STATE_SUCCEEDED"
    assert job["createTime"] <= job["startTime"] <= job["endTime"] <= job["updateTime"]
    assert "error" not in job
    found = json.loads(lines(cloud, name)[0])
    assert found["AIP_MODEL_DIR"] == "gs://local-bucket/out/model/"
    assert found["AIP_CHECKPOINT_DIR"] == "gs://local-bucket/out/checkpoints/"
    assert found["AIP_TENSORBOARD_LOG_DIR"] == "gs://local-bucket/out/logs/"
    assert found["CLOUD_ML_JOB_ID"] == name.rsplit("/", 1)[-1]
    assert found["CLOUD_ML_PROJECT_ID"].isdecimal()
    assert found["CLOUD_ML_REGION"] == "us-central1"
    assert found["LOCAL_CLOUD_PROJECT"] == "local"
    assert Path(found["LOCAL_CLOUD_DIR"]).is_relative_to(cloud.folder / "jobs")
    assert "TF_CONFIG" not in found
    assert "MY_SECRET" not in found
    assert any("not emulated" in line for line in lines(cloud, name, "service"))


def test_replicas_know_their_cluster_and_the_chief_ends_the_job(cloud):
    command = ["python", "-c", "import os; print(os.environ['TF_CONFIG'])"]
    waiting = ["python", "-c", "import os, time; print(os.environ['TF_CONFIG'], flush=True)\n"
               "time.sleep(600)"]  # fmt: skip
    pools = [
        {"machineSpec": {"machineType": "n1-standard-4"}, "replicaCount": str(count),
         "containerSpec": {"imageUri": "python:3.11", "command": words}}
        for count, words in ((1, command), (2, waiting))
    ]  # fmt: skip
    name = submit(cloud, pools=pools)
    assert ended(cloud, name)["state"] == "JOB_STATE_SUCCEEDED"
    chief = json.loads(lines(cloud, name)[0])
    assert chief["task"] == {"type": "chief", "index": 0}
    assert {kind: len(hosts) for kind, hosts in chief["cluster"].items()} == {
        "chief": 1,
        "worker": 2,
    }
    assert len({host for hosts in chief["cluster"].values() for host in hosts}) == 3


def test_logs_arrive_while_it_runs(cloud):
    gate = cloud.shared / "gate"
    code = f"""
        import os, sys, time
        print("first", flush=True)
        print("a bar 1\\ra bar 2\\ra bar 3", flush=True)
        print("x" * 100_000, flush=True)
        while not os.path.exists({str(gate)!r}): time.sleep(0.02)
        print("to stderr", file=sys.stderr)
    """
    name = submit(cloud, code)
    seen = until(lambda: len(found := lines(cloud, name)) == 3 and found)
    assert get(cloud, name)["state"] == "JOB_STATE_RUNNING"
    assert seen[:2] == ["first", "a bar 3"]
    assert len(seen[2]) < 20_000
    assert seen[2].endswith("(cut)")
    gate.touch()
    assert ended(cloud, name)["state"] == "JOB_STATE_SUCCEEDED"
    assert lines(cloud, name, severity="ERROR") == ["to stderr"]


def test_a_failure_says_why_and_is_not_tried_again(cloud):
    name = submit(cloud, "raise ValueError('boom')")
    job = ended(cloud, name)
    assert job["state"] == "JOB_STATE_FAILED"
    assert "ValueError: boom" in job["error"]["message"]
    assert "workerpool0-0 exited with a non-zero status of 1" in job["error"]["message"]
    assert lines(cloud, name).count("ValueError: boom") == 1


def test_a_restartable_error_restarts_the_worker(cloud):
    count = cloud.shared / "count"
    code = f"""
        import sys
        with open({str(count)!r}, "a+") as file:
            file.write("x"); file.seek(0); tries = len(file.read())
        sys.exit(0 if tries == 3 else 75)
    """
    name = submit(cloud, code)
    assert ended(cloud, name)["state"] == "JOB_STATE_SUCCEEDED"
    assert len(count.read_text()) == 3
    assert sum("Restart" in line for line in lines(cloud, name, "service")) == 2


def test_restarts_have_an_end(cloud):
    count = cloud.shared / "count"
    code = f"import sys; open({str(count)!r}, 'a').write('x'); sys.exit(75)"
    job = ended(cloud, submit(cloud, code))
    assert job["state"] == "JOB_STATE_FAILED"
    assert len(count.read_text()) == 4 * 6  # a job is tried 4 times, its worker 6 times in each
    disabled = cloud.shared / "disabled"
    code = f"import sys; open({str(disabled)!r}, 'a').write('x'); sys.exit(75)"
    job = ended(cloud, submit(cloud, code, scheduling={"disableRetries": True}))
    assert job["state"] == "JOB_STATE_FAILED"
    assert disabled.read_text() == "x"


def test_cancel_leaves_no_process_even_if_sigterm_is_ignored(cloud):
    name = submit(cloud, STUBBORN)
    said = until(lambda: len(found := lines(cloud, name)) == 3 and found)
    family = [psutil.Process(int(pid)) for pid in said if pid.isdecimal()]
    assert len(family) == 2
    assert os.getsid(family[0].pid) != os.getsid(family[1].pid)
    jobs(cloud).cancel(name=name).execute()
    assert get(cloud, name)["state"] in ("JOB_STATE_CANCELLING", "JOB_STATE_CANCELLED")
    job = ended(cloud, name)
    assert job["state"] == "JOB_STATE_CANCELLED"
    assert job["error"]["code"] == 1
    assert not any(process.is_running() for process in family)
    jobs(cloud).cancel(name=name).execute()  # safe to repeat
    assert get(cloud, name) == job


def test_cancel_lets_a_process_save_what_it_has(cloud):
    code = """
        import signal, sys, time
        def save(*_): print("saved", flush=True); sys.exit(143)
        signal.signal(signal.SIGTERM, save)
        print("ready", flush=True)
        time.sleep(600)
    """
    name = submit(cloud, code)
    until(lambda: lines(cloud, name) == ["ready"])
    jobs(cloud).cancel(name=name).execute()
    assert ended(cloud, name)["state"] == "JOB_STATE_CANCELLED"
    assert lines(cloud, name) == ["ready", "saved"]


def test_timeout_stops_a_job(cloud):
    job = ended(cloud, submit(cloud, "import time; time.sleep(600)", scheduling={"timeout": "1s"}))
    assert job["state"] == "JOB_STATE_CANCELLED"
    assert "timeout of 1s" in job["error"]["message"]


def test_a_process_killed_from_outside_is_a_restartable_error(cloud):
    mark = cloud.shared / "mark"
    code = f"""
        import os, time
        if os.path.exists({str(mark)!r}): raise SystemExit(0)
        open({str(mark)!r}, "w").close()
        print(os.getpid(), flush=True)
        time.sleep(600)
    """
    name = submit(cloud, code)
    pid = until(lambda: lines(cloud, name))[0]
    os.kill(int(pid), signal.SIGKILL)
    assert ended(cloud, name)["state"] == "JOB_STATE_SUCCEEDED"
    assert any("137" in line for line in lines(cloud, name, "service"))


@pytest.mark.parametrize(
    ("container", "said"),
    [
        ({"imageUri": "us-central1-docker.pkg.dev/local/repo/none:1"}, "not found"),
        ({"imageUri": "nvcr.io/nvidia/cuda:12", "command": ["nvidia-smi"]}, "Without Docker"),
        ({"imageUri": "python:3.11", "command": ["no-such-program"]}, "No such file"),
        ({"imageUri": "python:3.11"}, "No command"),
    ],
)
def test_what_cannot_run_fails_and_says_why(cloud, container, said):
    pool = {"machineSpec": {"machineType": "n1-standard-4"}, "replicaCount": "1"}
    job = ended(cloud, submit(cloud, pools=[pool | {"containerSpec": container}]))
    assert job["state"] == "JOB_STATE_FAILED"
    assert said in job["error"]["message"]


@pytest.mark.parametrize("needs", ["packaging", "no-such-distribution>=3"])
def test_a_python_package_is_installed_and_run(cloud, tmp_path, needs):
    source = tmp_path / "trainer-0.1"
    (source / "trainer").mkdir(parents=True)
    (source / "trainer" / "__init__.py").touch()
    (source / "trainer" / "task.py").write_text("import sys; print('trained', sys.argv[1:])")
    about = f"name='trainer', version='0.1', packages=['trainer'], install_requires=[{needs!r}]"
    setup = f"from setuptools import setup\nsetup({about})\n"
    (source / "setup.py").write_text(setup)
    bucket = cloud.folder / "buckets" / "packages"
    bucket.mkdir(parents=True, exist_ok=True)
    with tarfile.open(bucket / "trainer-0.1.tar.gz", "w:gz") as tar:
        tar.add(source, "trainer-0.1")
    package = {
        "executorImageUri": "us-docker.pkg.dev/vertex-ai/training/tf-cpu.2-17.py310:latest",
        "packageUris": ["gs://packages/trainer-0.1.tar.gz"],
        "pythonModule": "trainer.task",
        "args": ["--epochs=2"],
    }
    pool = {"machineSpec": {"machineType": "n1-standard-4"}, "replicaCount": "1"}
    name = submit(cloud, pools=[pool | {"pythonPackageSpec": package}])
    job = ended(cloud, name)
    if needs == "packaging":
        assert job["state"] == "JOB_STATE_SUCCEEDED", job
        assert "trained ['--epochs=2']" in lines(cloud, name)
    else:
        assert job["state"] == "JOB_STATE_FAILED"
        assert "No matching distribution found" in job["error"]["message"]


def test_jobs_wait_when_the_machine_is_full(cloud):
    gate = cloud.shared / "gate"
    code = f"import os, time\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.02)"
    container = {"imageUri": "python:3.11", "command": ["python", "-c", code]}
    pool = {"machineSpec": {"machineType": "n1-standard-4"}, "containerSpec": container}
    full = submit(cloud, pools=[pool | {"replicaCount": "1"}, pool | {"replicaCount": "7"}])
    until(lambda: get(cloud, full)["state"] == "JOB_STATE_RUNNING")
    waiting, dropped = submit(cloud, "print('at last')"), submit(cloud, "print('never')")
    jobs(cloud).cancel(name=dropped).execute()
    assert ended(cloud, dropped)["state"] == "JOB_STATE_CANCELLED"
    assert get(cloud, waiting)["state"] == "JOB_STATE_QUEUED"
    gate.touch()
    assert ended(cloud, waiting)["state"] == "JOB_STATE_SUCCEEDED"
    assert lines(cloud, dropped) == []


def test_list_filters_and_delete_waits_for_the_end(cloud):
    gate = cloud.shared / "gate"
    name = submit(
        cloud, f"import os, time\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.02)"
    )
    until(lambda: get(cloud, name)["state"] == "JOB_STATE_RUNNING")
    chosen = 'state="JOB_STATE_RUNNING"'
    found = jobs(cloud).list(parent=cloud.parent, filter=chosen).execute()["customJobs"]
    assert name in [job["name"] for job in found]
    with pytest.raises(HttpError, match="cancel it"):
        jobs(cloud).delete(name=name).execute()
    gate.touch()
    ended(cloud, name)
    assert jobs(cloud).delete(name=name).execute()["done"]
    with pytest.raises(HttpError) as refused:
        get(cloud, name)
    assert refused.value.status_code == 404


def test_a_killed_local_cloud_finds_its_jobs_again(start_emulator):
    first = start_emulator()
    gate = first.shared / "gate"
    code = f"""
        import os, time
        print("one", flush=True)
        while not os.path.exists({str(gate)!r}): time.sleep(0.02)
        print("two", flush=True)
    """
    running = submit(first, code)
    lost = submit(first, "import os, time; print(os.getppid(), flush=True); time.sleep(600)")
    until(lambda: lines(first, running) == ["one"])
    supervisor = int(until(lambda: lines(first, lost))[0])
    first.kill()
    os.kill(supervisor, signal.SIGKILL)
    second = start_emulator()
    assert get(second, running)["state"] == "JOB_STATE_RUNNING"
    gate.touch()
    assert ended(second, running)["state"] == "JOB_STATE_SUCCEEDED"
    assert lines(second, running) == ["one", "two"]
    job = ended(second, lost)
    assert job["state"] == "JOB_STATE_FAILED"
    assert "ended without an exit code" in job["error"]["message"]


def test_a_job_that_ends_while_nobody_watches_is_found_ended(start_emulator):
    first = start_emulator()
    shared = first.shared
    gate, done = shared / "gate", shared / "done"
    code = f"""
        import os, time
        while not os.path.exists({str(gate)!r}): time.sleep(0.02)
        open({str(done)!r}, "w").close()
    """
    name = submit(first, code)
    until(lambda: get(first, name)["state"] == "JOB_STATE_RUNNING")
    first.kill()
    gate.touch()
    until(done.exists)
    assert ended(start_emulator(), name)["state"] == "JOB_STATE_SUCCEEDED"


def test_stopping_the_local_cloud_cancels_its_jobs(start_emulator):
    first = start_emulator("state", LOCAL_CLOUD_GRACE_S="0.5")
    name = submit(first, STUBBORN)
    said = until(lambda: len(found := lines(first, name)) == 3 and found)
    family = [psutil.Process(int(pid)) for pid in said if pid.isdecimal()]
    first.stop()
    assert not any(process.is_running() for process in family)
    job = get(start_emulator(), name)
    assert job["state"] == "JOB_STATE_CANCELLED"
    assert "stopped" in job["error"]["message"]


def test_the_supervisor_needs_only_the_standard_library():
    source = Path(__file__).parents[2] / "helpers" / "emulator" / "servers" / "replica.py"
    imported = {line.split()[1] for line in source.read_text().splitlines()
                if line.startswith(("import ", "from "))}  # fmt: skip
    assert {name.partition(".")[0] for name in imported} <= sys.stdlib_module_names


def test_pip_inside_a_job_takes_what_is_here_and_changes_nothing(cloud):
    package = cloud.shared / "mine"
    package.mkdir()
    (package / "mine.py").write_text("print('mine runs')")
    (package / "setup.py").write_text(
        "from setuptools import setup\nsetup(name='mine', version='1', py_modules=['mine'],"
        " install_requires=['numpy'])"
    )
    steps = [
        "pip install --upgrade pip", f"pip3 install --user {package}", "python3 -m mine",
        f"python3 -m pip install {package} six", "python -c 'import six'",
        "! python -m pip install numpy==0.0.1", "! pip uninstall --yes no-such-package",
        "pip --version",
    ]  # fmt: skip
    container = {"imageUri": "python:3.11", "command": ["sh", "-c", " && ".join(steps)]}
    pool = {"machineSpec": {"machineType": "n1-standard-4"}, "containerSpec": container}
    name = submit(cloud, pools=[pool])
    assert ended(cloud, name)["state"] == "JOB_STATE_SUCCEEDED", lines(cloud, name)
    assert "mine runs" in lines(cloud, name)
    assert any("No matching distribution" in line for line in lines(cloud, name))
    with pytest.raises(metadata.PackageNotFoundError):
        metadata.version("mine")


def test_mounted_paths_in_commands_are_the_buckets_files(cloud):
    (cloud.folder / "buckets" / "mounted").mkdir(parents=True, exist_ok=True)
    shell = "echo text > /gcs/mounted/a && cat /gcs/mounted/a; echo not/gcs/mounted"
    container = {"imageUri": "python:3.11", "command": ["sh", "-c", shell]}
    pool = {"machineSpec": {"machineType": "n1-standard-4"}, "containerSpec": container}
    name = submit(cloud, pools=[pool])
    assert ended(cloud, name)["state"] == "JOB_STATE_SUCCEEDED", lines(cloud, name)
    assert lines(cloud, name) == ["text", "not/gcs/mounted"]
    assert (cloud.folder / "buckets" / "mounted" / "a").read_text() == "text\n"


def preempt(cloud: Emulator, name: str, replica: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "helpers.emulator", "preempt", "--state", str(cloud.folder)]
    number = name.rsplit("/", 1)[-1]
    return subprocess.run([*command, number, replica], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("whole", [False, True])
def test_preempted_replicas_start_again_as_they_were(cloud, whole):
    """SIGTERM, after the grace time SIGKILL to all they started; restarts after failures stay."""
    gate = cloud.shared / "gate"
    code = f"""
        import json, os, signal, subprocess, sys, time
        print("told", json.dumps(dict(os.environ), sort_keys=True), flush=True)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        words = [sys.executable, "-c", "import time; time.sleep(600)"]
        print("pid", subprocess.Popen(words, start_new_session=True).pid, flush=True)
        print("pid", os.getpid(), flush=True)
        while not os.path.exists({str(gate)!r}): time.sleep(0.02)
    """
    container = {"imageUri": "python:3.11", "command": ["python", "-c", textwrap.dedent(code)]}
    pool = {"machineSpec": {"machineType": "n1-standard-4"}, "containerSpec": container}
    pools = [pool | {"replicaCount": "1"}, pool | {"replicaCount": "1"}]
    name = submit(cloud, pools=pools, scheduling={"restartJobOnWorkerRestart": whole})

    def found(task: str, word: str) -> list[str]:
        return [line for line in lines(cloud, name, task) if line.startswith(word)]

    times = 2 if whole else 7  # more often than a worker may fail
    for time in range(1, times + 1):
        until(lambda time=time: len(found("workerpool1-0", "pid")) == 2 * time)
        assert preempt(cloud, name, "workerpool1-0").returncode == 0
    until(lambda: len(found("workerpool1-0", "pid")) == 2 * times + 2)
    until(lambda: len(found("workerpool0-0", "pid")) == (2 * times + 2 if whole else 2))
    for task in ("workerpool0-0", "workerpool1-0"):
        assert len(set(found(task, "told"))) == 1
        pids = [int(line.split()[1]) for line in found(task, "pid")]
        assert [psutil.pid_exists(pid) for pid in pids] == [False] * (len(pids) - 2) + [True] * 2
    os.kill(pids[-1], signal.SIGKILL)
    said = "Restarting the whole job, 1 of 3" if whole else "Restart 1 of 5"
    until(lambda: any(said in line for line in lines(cloud, name, "service")))
    gate.touch()
    assert ended(cloud, name)["state"] == "JOB_STATE_SUCCEEDED"
    told = [line for line in lines(cloud, name, "service") if "was preempted" in line]
    assert len(told) == times
    refused = preempt(cloud, name, "workerpool1-0")
    assert refused.returncode == 1
    assert "No replica workerpool1-0" in refused.stderr


def test_a_preemption_outlives_the_local_cloud(start_emulator):
    code = """
        import signal, time
        signal.signal(signal.SIGTERM, lambda *_: (print("told", flush=True), time.sleep(0.5)))
        print("up", flush=True)
        time.sleep(600)
    """
    first = start_emulator("state", LOCAL_CLOUD_GRACE_S="2")
    name = submit(first, code)
    until(lambda: lines(first, name) == ["up"])
    preempt(first, name, "workerpool0-0")
    until(lambda: lines(first, name) == ["up", "told"])
    first.kill()
    second = start_emulator("state", LOCAL_CLOUD_GRACE_S="2")
    until(lambda: lines(second, name) == ["up", "told", "up"])
