"""The model server through HTTP: TensorFlow Serving's contract, with the saved model's answers."""

import base64
import concurrent.futures
import contextlib
import http.client
import json
import math
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest

from helpers.emulator.servers import PROGRAMS
from helpers.emulator.services import ports
from tests.emulator.conftest import until
from tests.emulator.saved_models import ASKED, ROWS, saved_models  # noqa: F401

PROGRAM = PROGRAMS / "model_server.py"


class Server:
    """A running model server."""

    def __init__(self, folder: Path, *arguments: str, route: str = "/v1/models/model"):
        (self.port,), self.route = ports.free(), route
        command = [sys.executable, str(PROGRAM), f"--model_base_path={folder}",
                   "--model_name=model", f"--rest_api_port={self.port}", "--port=8500",
                   "--file_system_poll_wait_seconds=31540000", *arguments]  # fmt: skip
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        until(lambda: self.process.poll() is not None or self.answers())

    def answers(self) -> bool:
        with contextlib.suppress(OSError):
            return self.call("GET", self.route)[0] == 200
        return False

    def call(self, verb: str, path: str, body: str = "") -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(verb, path, body.encode())
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def predict(self, body) -> tuple[int, dict]:
        """Status and JSON; a body that is no text is made JSON."""
        text = body if isinstance(body, str) else json.dumps(body)
        status, answer = self.call("POST", f"{self.route}:predict", text)
        return status, json.loads(answer)

    def close(self) -> str:
        """The lifeline is cut; what it wrote."""
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        self.process.wait(timeout=60)
        return self.process.stdout.read().decode()


@pytest.fixture(scope="module")
def numbers(saved_models):  # noqa: F811
    server = Server(saved_models / "one")
    yield server
    server.close()


@pytest.fixture(scope="module")
def words(saved_models):  # noqa: F811
    server = Server(saved_models / "words")
    yield server
    server.close()


def test_rows_get_what_the_saved_model_says(words, saved_models):  # noqa: F811
    expected = json.loads((saved_models / "words.json").read_text())
    status, answer = words.predict({"instances": ROWS})
    assert status == 200
    rows = answer["predictions"]
    assert [row["class"] for row in rows] == expected["class"]
    assert [row["value"] for row in rows] == pytest.approx(expected["value"], rel=1e-6)
    for row, pair in zip(rows, expected["pair"], strict=True):
        assert row["pair"] == pytest.approx(pair, rel=1e-6)


def test_every_kind_of_signature_answers_as_the_saved_model_does(saved_models):  # noqa: F811
    """Each number type, texts, images, loops, tables, free and fixed shapes; and kept state."""
    expected = json.loads((saved_models / "kinds.json").read_text())
    server = Server(saved_models / "kinds")
    try:
        for name, inputs in ASKED.items():
            status, answer = server.predict({"signature_name": name, "inputs": inputs})
            assert status == 200, (name, answer)
            found, known = np.array(answer["outputs"]), np.array(expected[name])
            assert found.shape == known.shape, name
            same = found == known if known.dtype.kind == "U" else np.isclose(found, known, 1e-6)
            assert same.all(), (name, found, known)
        counted = {"signature_name": "counted", "inputs": {"x": [0, 10]}}
        assert [server.predict(counted)[1]["outputs"] for _ in range(2)] == [[1, 11], [2, 12]]
    finally:
        server.close()


def test_columns_get_the_same_as_rows(words):
    columns = {name: [row[name] for row in ROWS] for name in ("a", "word")}
    status, answer = words.predict({"inputs": columns})
    rows = words.predict({"instances": ROWS})[1]["predictions"]
    assert status == 200
    assert answer["outputs"] == {name: [row[name] for row in rows] for name in rows[0]}


def test_one_output_gives_bare_values(numbers):
    rows = [{"a": 1, "b": 2}, {"a": 0.05, "b": 0}]
    assert numbers.predict({"instances": rows}) == (200, {"predictions": [8.0, 0.1]})
    columns = {"a": [1, 0.05], "b": [2, 0]}
    assert numbers.predict({"inputs": columns}) == (200, {"outputs": [8.0, 0.1]})


def test_text_may_come_as_base64(words):
    encoded = {"b64": base64.b64encode(b"y").decode()}
    plain, binary = words.predict(
        {"instances": [{"a": 1, "word": "y"}, {"a": 1, "word": encoded}]}
    )[1]["predictions"]
    assert plain == binary


def test_not_a_number_passes_both_ways(numbers):
    status, answer = numbers.predict('{"instances": [{"a": NaN, "b": 1}, {"a": 1, "b": Infinity}]}')
    assert status == 200
    assert math.isnan(answer["predictions"][0])
    assert answer["predictions"][1] == math.inf


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("{", "JSON"),
        ("[]", "object"),
        ("{}", "instances"),
        ({"instances": []}, "at least one"),
        ({"instances": 3}, "list"),
        ({"instances": [{"a": 1}]}, "'b'"),
        ({"instances": [{"a": 1, "b": 1, "c": 1}]}, "'c'"),
        ({"instances": [{"a": 1, "b": 1}, {"a": 1}]}, "Row 1"),
        ({"instances": [{"a": 1, "b": 1}, {"a": 1, "c": 1}]}, "'b'"),
        ({"instances": [1, 2]}, "objects"),
        ({"instances": [{"a": 1, "b": "2"}]}, "'b'"),
        ({"instances": [{"a": 1, "b": None}]}, "'b'"),
        ({"instances": [{"a": 1, "b": True}]}, "'b'"),
        ({"instances": [{"a": 1, "b": [1]}]}, "shape"),
        ({"inputs": {"a": [1]}}, "'b'"),
        ({"inputs": {"a": [1, 2], "b": [1, 2, 3]}}, ""),
        ({"instances": [{"a": 1, "b": 1}], "inputs": {}}, "either"),
        ({"signature_name": "other", "instances": [1]}, "serving_default"),
        ({"signature_name": [], "instances": [1]}, "signature"),
    ],
)  # fmt: skip
def test_mistakes_are_answered_with_400_and_a_reason(numbers, body, said):
    status, answer = numbers.predict(body)
    assert status == 400
    assert list(answer) == ["error"]
    assert said in answer["error"]


def test_requests_at_the_same_time_get_their_own_answers(numbers):
    def ask(i: int) -> bool:
        if i % 10 == 3:
            return numbers.predict({"instances": [{"a": "no", "b": i}]})[0] == 400
        rows = [{"a": i, "b": k} for k in range(i % 5 + 1)]
        expected = [2.0 * i + 3 * k for k in range(i % 5 + 1)]
        return numbers.predict({"instances": rows}) == (200, {"predictions": expected})

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        assert all(pool.map(ask, range(300)))


def test_large_requests_are_answered_too(numbers):
    rows = [{"a": i, "b": 1} for i in range(20_000)]
    status, answer = numbers.predict({"instances": rows})
    assert status == 200
    assert answer["predictions"] == [2.0 * i + 3 for i in range(20_000)]
    assert numbers.predict({"instances": [*rows, {"a": 1}]})[0] == 400


def test_more_large_requests_than_fit_are_refused_not_kept(numbers):
    """A hundred at once: some are refused with 503, the others get their answers."""
    body = json.dumps({"instances": [{"a": i, "b": 1} for i in range(20_000)]}).encode()
    head = f"POST {numbers.route}:predict HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n"
    clients = [socket.create_connection(("127.0.0.1", numbers.port), 60) for _ in range(100)]
    for client in clients:
        client.sendall(head.encode() + body[:-1])
    server = psutil.Process(numbers.process.pid)
    server.suspend()  # so that it finds all of them complete at one look
    for client in clients:
        client.sendall(body[-1:])
    server.resume()
    states = []
    for client in clients:
        with client, http.client.HTTPResponse(client) as answer:
            answer.begin()
            states.append(answer.status)
            if answer.status == 503:
                assert answer.headers["retry-after"] == "1"
            else:
                assert json.load(answer)["predictions"] == [2.0 * i + 3 for i in range(20_000)]
    assert set(states) == {200, 503}


def test_a_slow_model_keeps_nobody_else_waiting(saved_models):  # noqa: F811
    server = Server(saved_models / "slow")
    try:
        for rounds in (100, 2):  # the server has seen that it takes long; then a quick one again
            server.predict({"instances": [{"rounds": rounds}] * 2})
        server.predict({"instances": [{"rounds": 100}]})
        with concurrent.futures.ThreadPoolExecutor() as pool:
            long = pool.submit(server.predict, {"instances": [{"rounds": 1000}]})
            answered = 0
            while not long.done():
                answered += server.call("GET", server.route)[0] == 200
            assert answered > 20  # a waiting server answers those few that came before
            assert long.result() == (200, {"predictions": [0.0]})
    finally:
        server.close()


def test_status_metadata_and_routes(words):
    status, answer = words.call("GET", "/v1/models/model")
    version = json.loads(answer)["model_version_status"][0]
    assert (status, version["state"], version["version"]) == (200, "AVAILABLE", "1")
    assert words.call("GET", "/v1/models/model/versions/1")[0] == 200
    status, answer = words.call("GET", "/v1/models/model/metadata")
    signatures = json.loads(answer)["metadata"]["signature_def"]["signature_def"]
    kinds = {
        name: about["dtype"] for name, about in signatures["serving_default"]["inputs"].items()
    }
    assert kinds == {"a": "DT_FLOAT", "word": "DT_STRING"}
    for path in ("/v1/models/other", "/v1/models/model/versions/2", "/"):
        status, answer = words.call("GET", path)
        assert (status, list(json.loads(answer))) == (404, ["error"])
    body = json.dumps({"instances": ROWS[:1]})
    assert words.call("POST", "/v1/models/model/versions/1:predict", body)[0] == 200
    assert words.call("POST", "/v1/models/other:predict", body)[0] == 404


def test_the_newest_version_is_served_and_the_process_ends_with_its_input(saved_models, tmp_path):  # noqa: F811
    shutil.copytree(saved_models / "one" / "1", tmp_path / "9")
    shutil.copytree(saved_models / "two" / "1", tmp_path / "10")
    server = Server(tmp_path)
    assert server.predict({"instances": [{"a": 1, "b": 0}]}) == (200, {"predictions": [20.0]})
    assert server.process.poll() is None
    assert "version 10" in server.close()


def test_without_a_version_it_ends_with_a_reason(tmp_path):
    (tmp_path / "model").mkdir()
    server = Server(tmp_path)
    assert str(tmp_path) in server.close()
    assert server.process.returncode == 1
