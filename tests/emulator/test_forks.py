"""Jobs whose programs are forks of the process that has imported TensorFlow: what they find, leave
and say is what a process from the beginning would."""

import json
import os
import signal
import textwrap

import psutil
import pytest

import helpers
from tests.emulator.conftest import Emulator, start, until
from tests.emulator.test_isolation import HIDES
from tests.emulator.test_jobs import ended, get, jobs, lines, submit

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="forks are for Linux"),
]
IMAGE = "tensorflow/tensorflow:2.20.0"
FORKED = "import sys; print('tensorflow' in sys.modules, flush=True)\n"


@pytest.fixture(scope="module")
def cloud(tmp_path_factory):
    running = start(
        tmp_path_factory.mktemp("forks") / "state", "--ahead", LOCAL_CLOUD_GRACE_S="0.5"
    )
    yield running
    running.stop()


def run(cloud: Emulator, code: str, *, words: list | None = None, image: str = IMAGE, **container):
    """A job of a file with this code, or of other words; its name."""
    file = cloud.shared / "program.py"
    file.write_text(FORKED + textwrap.dedent(code))
    task = {"imageUri": image, "command": words or ["python", str(file), "one", "--two=3"]}
    pool = {"machineSpec": {"machineType": "n1-standard-4"}, "containerSpec": task | container}
    return submit(cloud, pools=[pool | {"replicaCount": "1"}])


def said(cloud: Emulator, code: str, **about) -> list[str]:
    """What a job that goes well says; the first line whether it found TensorFlow imported."""
    name = run(cloud, code, **about)
    job = ended(cloud, name)
    assert job["state"] == "JOB_STATE_SUCCEEDED", job["error"]
    return lines(cloud, name)


def test_a_job_finds_tensorflow_imported_and_is_itself_otherwise(cloud):
    forked, found = said(cloud, """
        import json, os
        print(json.dumps({
            "name": __name__, "file": __file__, "argv": sys.argv, "python": sys.executable,
            "prefix": sys.prefix, "home": os.environ["HOME"], "cwd": os.getcwd(),
            "main": sys.modules["__main__"].__dict__ is globals(), "path": sys.path[0],
            "threads": len(os.listdir("/proc/self/task")), "open": os.listdir("/proc/self/fd"),
            "command": open("/proc/self/cmdline").read().rstrip("\\0").split("\\0"),
            "session": os.getsid(0), "parent": os.getppid(),
        }))
    """)  # fmt: skip
    found, place = json.loads(found), f"{cloud.folder}/jobs/"
    assert forked == "True"
    assert found["name"] == "__main__"
    assert found["main"] is True
    assert found["argv"] == [found["file"], "one", "--two=3"]
    assert found["path"] == os.path.dirname(found["file"])
    for path in (found["python"], found["prefix"], found["home"], found["cwd"]):
        assert path.startswith(place)
    assert found["command"] == [found["python"], *found["argv"]]
    assert found["threads"] == 1
    assert sorted(map(int, found["open"]))[:3] == [0, 1, 2]
    assert len(found["open"]) == 4  # and the folder it looks at
    assert found["session"] == found["parent"]  # its supervisor's


def test_what_its_image_lacks_it_does_not_find(cloud):
    _, *found = said(cloud, """
        import importlib
        for name in ("pandas", "matplotlib", "sklearn", "uvicorn", "saved_model", "replica",
                     "google.cloud.storage", "numpy", "google.protobuf", "keras.layers"):
            try:
                importlib.import_module(name)
                print(name)
            except ModuleNotFoundError as error:
                print(error)
    """)  # fmt: skip
    assert found[:6] == [
        f"No module named '{name}'"
        for name in ("pandas", "matplotlib", "sklearn", "uvicorn", "saved_model", "replica")
    ]
    assert found[6].startswith("No module named 'google.cloud")
    assert found[7:] == ["numpy", "google.protobuf", "keras.layers"]


def test_it_trains_with_every_core_of_numpy_and_tensorflow(cloud):
    found = said(cloud, """
        import os, keras, numpy as np
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        x = np.random.default_rng(0).normal(size=(512, 3))
        losses = model.fit(x, x @ [1, 2, 3], epochs=3, verbose=0).history["loss"]
        print(losses[0] > losses[-1])
        before, a = len(os.listdir("/proc/self/task")), np.ones((500, 500))
        print(float((a @ a)[0, 0]), len(os.listdir("/proc/self/task")) - before)
    """)  # fmt: skip
    assert found == ["True", "True", f"500.0 {os.cpu_count() - 1}"]


def test_no_two_draw_the_same_numbers(cloud):
    code = """
        import random, uuid, keras, numpy as np, tensorflow as tf
        print(random.random(), np.random.random(), uuid.uuid4(), float(keras.random.uniform(())),
              float(tf.random.uniform(())))
    """  # fmt: skip
    one, two = (said(cloud, code)[1].split() for _ in range(2))
    assert not set(one) & set(two)


@pytest.mark.parametrize(
    ("code", "status", "last"),
    [
        ("sys.exit(2)", 2, ""),
        ("sys.exit('no such thing')", 1, "no such thing"),
        ("1 / 0", 1, "ZeroDivisionError: division by zero"),
        ("import os; os._exit(127)", 127, ""),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", 139, ""),
    ],
)
def test_it_ends_as_python_does(cloud, code, status, last):
    name = run(cloud, code)
    job = ended(cloud, name)
    assert job["state"] == "JOB_STATE_FAILED"
    assert f"non-zero status of {status}" in job["error"]["message"]
    assert job["error"]["message"].startswith(last)
    shown = lines(cloud, name, severity="ERROR")
    assert not any("forks.py" in line for line in shown)


def test_what_is_open_running_or_promised_at_its_end_is_completed(cloud):
    left = cloud.shared
    assert said(cloud, f"""
        import atexit, threading, time
        kept = open({str(left / "open")!r}, "w")
        kept.write("complete")
        atexit.register(lambda: print("promised"))
        threading.Thread(target=lambda: (time.sleep(0.3), print("waited for"))).start()
        print("main", end="")
    """)[1:] == ["mainwaited for", "promised"]  # fmt: skip
    assert (left / "open").read_text() == "complete"


def test_a_module_a_package_and_what_is_not_there(cloud):
    folder = cloud.shared
    (folder / "packed").mkdir()
    (folder / "packed" / "__main__.py").write_text(
        "import sys, packed\nprint('tensorflow' in sys.modules, __name__, __package__, sys.argv)"
    )
    there = {"env": [{"name": "PYTHONPATH", "value": str(folder)}]}
    assert said(cloud, "", words=["python", "-m", "packed", "x"], **there) == [
        f"True __main__ packed ['{folder}/packed/__main__.py', 'x']"
    ]
    for words, status, what in (
        (["-m", "absent"], 1, "No module named absent"),
        (["/gcs/absent.py"], 2, "can't open file"),
    ):
        name = run(cloud, "", words=["python", *words])
        message = ended(cloud, name)["error"]["message"]
        assert what in message
        assert f"status of {status}" in message


@pytest.mark.parametrize("name", ["TF_ENABLE_ONEDNN_OPTS", "KERAS_BACKEND", "PYTHONHASHSEED"])
def test_variables_that_are_read_early_are_read(cloud, name):
    value = {"KERAS_BACKEND": "tensorflow"}.get(name, "0")
    code = f"import os; print(os.environ[{name!r}])"
    found = said(cloud, code, env=[{"name": name, "value": value}])
    assert found == ["False", value]


def test_variables_that_are_read_late_hold(cloud):
    env = {"TZ": "Asia/Tokyo", "PYTHONUNBUFFERED": "1", "COLOUR": "red"}
    code = "import os, time; print(os.environ['COLOUR'], time.tzname[0], sys.stdout.write_through)"
    given = [{"name": name, "value": value} for name, value in env.items()]
    assert said(cloud, code, env=given) == ["True", "red JST True"]


def test_an_image_without_tensorflow_has_none(cloud):
    assert said(cloud, "", image="python:3.11") == ["False"]


def test_it_is_told_to_stop_and_killed_with_all_it_started(cloud):
    name = run(cloud, """
        import os, signal, subprocess, time
        signal.signal(signal.SIGTERM, lambda *_: print("told", flush=True))
        inner = subprocess.Popen(["sleep", "600"], start_new_session=True)
        print(os.getpid(), inner.pid, flush=True)
        while True: time.sleep(0.1)
    """)  # fmt: skip
    pids = until(lambda: len(found := lines(cloud, name)) > 1 and found[1]).split()
    family = [psutil.Process(int(pid)) for pid in pids]
    jobs(cloud).cancel(name=name).execute()
    assert ended(cloud, name)["state"] == "JOB_STATE_CANCELLED"
    assert "told" in lines(cloud, name)
    assert not any(process.is_running() for process in family)


def test_one_that_is_killed_starts_again(cloud):
    folder = cloud.shared
    name = run(cloud, f"""
        import os, pathlib, signal
        seen = pathlib.Path({str(folder / "seen")!r})
        if not seen.exists():
            seen.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        print("again")
    """)  # fmt: skip
    assert ended(cloud, name)["state"] == "JOB_STATE_SUCCEEDED"
    assert lines(cloud, name) == ["True", "True", "again"]


def test_jobs_outlive_the_local_cloud_and_the_process_they_come_from(start_emulator):
    first = start_emulator("state", "--ahead")
    gate = first.shared / "gate"
    code = f"""
        import os, time
        print("one", flush=True)
        while not os.path.exists({str(gate)!r}): time.sleep(0.02)
        print("two", flush=True)
    """
    running = run(first, code)
    lost = run(first, "import os, time; print(os.getppid(), os.getpid(), flush=True)\nwhile 1: 0")
    until(lambda: lines(first, running) == ["True", "one"])
    supervisor, program = map(
        int, until(lambda: len(found := lines(first, lost)) == 2 and found[1]).split()
    )
    forked = psutil.Process(program)
    first.kill()
    os.kill(supervisor, signal.SIGKILL)
    until(lambda: not forked.is_running() or forked.status() == psutil.STATUS_ZOMBIE)
    second = start_emulator()
    assert get(second, running)["state"] == "JOB_STATE_RUNNING"
    gate.touch()
    assert ended(second, running)["state"] == "JOB_STATE_SUCCEEDED"
    assert lines(second, running) == ["True", "one", "two"]
    assert "ended without an exit code" in ended(second, lost)["error"]["message"]


def test_a_job_waits_for_the_import_but_not_for_one_that_has_ended(start_emulator):
    running = start_emulator("state", "--ahead")
    importing = until(lambda: _nursery(running))
    importing.suspend()
    waiting, cancelled = run(running, "print('here')"), run(running, "")
    until(lambda: get(running, waiting)["state"] == "JOB_STATE_PENDING")
    jobs(running).cancel(name=cancelled).execute()
    assert ended(running, cancelled)["state"] == "JOB_STATE_CANCELLED"
    assert get(running, waiting)["state"] == "JOB_STATE_PENDING"
    importing.kill()
    assert ended(running, waiting)["state"] == "JOB_STATE_SUCCEEDED"
    assert lines(running, waiting) == ["False", "here"]


def test_a_job_that_leaves_no_model_begins_no_import(start_emulator):
    running = start_emulator()
    assert said(running, "") == ["False"]
    assert _nursery(running) is None


@pytest.mark.parametrize("ahead", [True, False])
def test_a_notebooks_local_cloud_imports_before_it_is_asked(empty_cloud, monkeypatch, ahead):
    if ahead:
        monkeypatch.delenv("LOCAL_CLOUD_AHEAD")
    helpers.connect("local")
    cloud = psutil.Process(json.loads((empty_cloud / "emulator.json").read_text())["pid"])
    assert ("--ahead" in cloud.cmdline()) == ahead
    if ahead:
        until(lambda: any("nursery.py" in " ".join(child.cmdline()) for child in cloud.children()))


def _nursery(running: Emulator) -> psutil.Process | None:
    children = psutil.Process(running.process.pid).children()
    return next((c for c in children if any("nursery.py" in word for word in c.cmdline())), None)


@pytest.mark.skipif(not HIDES, reason="this system gives no namespaces")
def test_it_sees_no_other_files(cloud, tmp_path):
    mine = tmp_path / "mine"
    mine.write_text("a file of the one who trains")
    places = [str(mine), f"{cloud.folder}/state.sqlite3", f"{cloud.folder}/emulator.json",
              f"{cloud.folder}/served", __file__]  # fmt: skip
    assert said(cloud, f"""
        import os
        for place in {places}: print(os.path.exists(place))
    """)[1:] == ["False"] * len(places)  # fmt: skip
