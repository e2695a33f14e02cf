"""What the prediction benchmarks share: a trained model behind two endpoints of a local cloud."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import helpers
from helpers import data

ROOT = Path(__file__).parents[2]
SERVERS = ROOT / "helpers" / "emulator" / "servers"
RIVALS = ROOT / ".venv-bench"
MAKE_MODEL = """
import sys, keras, helpers
from helpers import data
table = data.load("game_sales")
inputs, x = helpers.encode(table)
for units in (50, 100, 50):
    x = keras.layers.Dense(units, activation="relu")(x)
helpers.export(keras.Model(inputs, helpers.decode(table, x)), table, sys.argv[1])
"""


@contextlib.contextmanager
def place(folder: Path) -> Iterator:
    """A session on a local cloud of its own in this folder; it ends afterwards."""
    os.environ["LOCAL_CLOUD_DIR"] = str(folder)
    try:
        yield helpers.connect("local")
    finally:
        stop = [sys.executable, "-m", "helpers.emulator", "stop", "--state", folder]
        subprocess.run(stop, check=False, capture_output=True, cwd=ROOT)
        del os.environ["LOCAL_CLOUD_DIR"]


@contextlib.contextmanager
def cloud() -> Iterator[tuple]:
    """(session, dedicated endpoint, shared endpoint's resource, folder of the SavedModel)."""
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as name,
        place(Path(name, "cloud")) as session,
    ):
        folder = Path(name)
        subprocess.run([sys.executable, "-c", MAKE_MODEL, folder / "model"], check=True, cwd=ROOT)
        uri = helpers.storage.upload_folder(session, folder / "model", "gs://local-bucket/b/model")
        model = helpers.register(session, uri, name="bench")
        endpoint = helpers.deploy(session, model)
        endpoints = session.service("aiplatform").projects().locations().endpoints()
        body = {"displayName": "shared"}
        shared = session.wait(session.call(endpoints.create(parent=session.parent, body=body)))
        machine = {"machineSpec": {"machineType": "n1-standard-2"}, "minReplicaCount": 1,
                   "maxReplicaCount": 1}  # fmt: skip
        deployed = {"model": model.resource_name, "dedicatedResources": machine}
        body = {"deployedModel": deployed, "trafficSplit": {"0": 100}}
        session.wait(session.call(endpoints.deployModel(endpoint=shared["name"], body=body)))
        yield session, endpoint, shared["name"], folder / "model" / "1"


@contextlib.contextmanager
def server(kind: str, port: int, folder: Path, target: int = 0) -> Iterator[None]:
    """A rival, or our model server by itself, answering on `port`; `target` is a pipe's."""
    python, script = sys.executable, [str(Path(__file__).with_name("rivals.py")), kind]
    if kind in ("fastapi", "kserve"):
        python = rivals()
    command = [python, *script, str(port), str(target or folder)]
    if kind == "ours":
        script = SERVERS / "model_server.py"
        flags = ["--model_name=model", f"--model_base_path={folder.parent}"]
        command = [python, str(script), *flags, f"--rest_api_port={port}"]
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONWARNINGS": "ignore"}
    with tempfile.TemporaryFile() as said:  # a pipe nobody reads would stop a talkative server
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=said, stderr=said, env=environment, cwd=folder
        )
        try:
            _wait(process, port)
            yield
        except ChildProcessError as error:
            said.seek(0)
            raise RuntimeError(said.read().decode()[-2000:]) from error
        finally:
            process.terminate()
            process.communicate(timeout=30)


def rivals() -> str:
    """The Python of an environment with the rivals; made when first used.

    TensorFlow is this environment's own: everybody serves with the same one.
    """
    python = RIVALS / "bin" / "python"
    if not (RIVALS / ".ready").exists():
        print("Installing the rivals into .venv-bench …", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", RIVALS], check=True)
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "kserve", "fastapi"], check=True)
        ours = next(path for path in sys.path if path.endswith("site-packages"))
        site = next(RIVALS.glob("lib/python*/site-packages"))
        (site / "ours.pth").write_text(ours + "\n")
        (RIVALS / ".ready").touch()
    return str(python)


def instances(rows: int) -> list[dict]:
    """Rows of the built-in table, as JSON objects."""
    table = data.load("game_sales")
    found = table.train[list(table.features)].to_dict("records")
    return [found[i % len(found)] for i in range(rows)]


def _wait(process: subprocess.Popen, port: int) -> None:
    body = json.dumps({"instances": instances(1)}).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/models/model:predict",
        body,
        {"Content-Type": "application/json"},
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ChildProcessError(process.returncode)
        with contextlib.suppress(OSError), urllib.request.urlopen(request, timeout=5):
            return
        time.sleep(0.1)
    raise RuntimeError(f"{process.args} did not answer on port {port}")
