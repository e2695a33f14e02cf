"""The stand-in for Google's prebuilt scikit-learn container, through HTTP."""

import contextlib
import http.client
import json
import os
import pickle
import subprocess
import sys

import joblib
import pytest
from sklearn.linear_model import LinearRegression
from sklearn.tree import DecisionTreeClassifier

from helpers.emulator.servers import PROGRAMS
from helpers.emulator.services import ports
from tests.emulator.conftest import until

PROGRAM = PROGRAMS / "sklearn_server.py"


@pytest.fixture
def serve(tmp_path):
    """Starts a server on tmp_path: (process, call); ended afterwards."""
    with contextlib.ExitStack() as ends:

        def start():
            (port,) = ports.free()
            variables = {
                "AIP_STORAGE_URI": str(tmp_path), "AIP_HTTP_PORT": str(port),
                "AIP_HEALTH_ROUTE": "/health", "AIP_PREDICT_ROUTE": "/predict",
            }  # fmt: skip
            process = subprocess.Popen(
                [sys.executable, "-P", str(PROGRAM)], env=os.environ | variables,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
            ends.enter_context(process)
            ends.callback(process.kill)
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            ends.callback(connection.close)

            def call(verb: str, path: str, body=None) -> tuple[int, dict]:
                text = body if body is None or isinstance(body, str) else json.dumps(body)
                try:
                    connection.request(verb, path, text)
                    answer = connection.getresponse()
                    return answer.status, json.loads(answer.read())
                except OSError:
                    connection.close()
                    raise

            def answers() -> bool:
                with contextlib.suppress(OSError):
                    return call("GET", "/health") == (200, {})
                return False

            until(lambda: process.poll() is not None or answers())
            return process, call

        yield start


def test_numbers_from_a_joblib_file(serve, tmp_path):
    model = LinearRegression().fit([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], [1.0, 3.0, 4.0])
    joblib.dump(model, tmp_path / "model.joblib")
    process, call = serve()
    status, answer = call("POST", "/predict", {"instances": [[1, 1], [2, 0]]})
    assert (status, answer["predictions"]) == (200, pytest.approx([6.0, 5.0]))
    for wrong in ({"instances": [[1, 1, 1]]}, {"rows": [[1, 1]]}, [], "{"):
        status, answer = call("POST", "/predict", wrong)
        assert status == 400
        assert "Prediction failed" in answer["error"]
    assert call("POST", "/elsewhere", {})[0] == 404
    process.stdin.close()
    assert process.wait(timeout=60) == 0


def test_classes_from_a_pickle(serve, tmp_path):
    model = DecisionTreeClassifier().fit([[0], [1]], ["no", "yes"])
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(model))
    _, call = serve()
    assert call("POST", "/predict", {"instances": [[1], [0]]}) == (
        200, {"predictions": ["yes", "no"]},
    )  # fmt: skip


def test_without_a_model_it_ends_with_a_reason(serve):
    process, _ = serve()
    assert process.returncode == 1
    assert b"model.joblib, model.pkl" in process.stdout.read()
