"""The short way of a plain prediction request: nobody can tell it from the ordinary one."""

import concurrent.futures
import contextlib
import json
import re
import signal
import socket
import time

import psutil
import pytest

from tests.emulator.conftest import start, until
from tests.emulator.saved_models import register, saved_models  # noqa: F401
from tests.emulator.test_endpoints import ROW, Endpoint, servers_of

pytestmark = pytest.mark.long

BODY = json.dumps({"instances": [ROW]}).encode()
ORDINARY = {"Connection": "keep-alive"}  # says nothing, and is not among the plain headers


class Line:
    """A client's connection, byte by byte."""

    def __init__(self, running):
        self.address = ("127.0.0.1", int(running.url.rsplit(":", 1)[1]))
        self.token, self.left = running.token, b""
        self.socket = socket.create_connection(self.address, timeout=60)

    def request(self, path: str, body: bytes = BODY, verb: str = "POST", **headers) -> bytes:
        """A request's bytes; a header of None is left out."""
        named = {
            "Host": "127.0.0.1", "Authorization": f"Bearer {self.token}",
            "Content-Type": "application/json", "Content-Length": len(body),
        }  # fmt: skip
        named |= {name.replace("_", "-"): value for name, value in headers.items()}
        lines = [f"{name}: {value}\r\n" for name, value in named.items() if value is not None]
        return f"{verb} {path} HTTP/1.1\r\n{''.join(lines)}\r\n".encode() + body

    def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.socket.sendall(piece)

    def answer(self) -> tuple[bytes, bytes]:
        """The next answer's head without its date, and its body."""
        head = self._until(lambda: b"\r\n\r\n" in self.left and self.left.index(b"\r\n\r\n") + 4)
        size = re.search(rb"content-length: (\d+)", head)
        body = self._until(lambda: len(self.left) >= int(size[1]) and int(size[1])) if size else b""
        return re.sub(rb"date: .*\r\n", b"date\r\n", head), body

    def ask(self, path: str, *arguments, **headers) -> tuple[bytes, bytes]:
        self.send(self.request(path, *arguments, **headers))
        return self.answer()

    def _until(self, size) -> bytes:
        while not size():
            got = self.socket.recv(65536)
            if not got:
                raise EOFError(self.left)
            self.left += got
        part, self.left = self.left[: size()], self.left[size() :]
        return part


@pytest.fixture(scope="module")
def cloud(tmp_path_factory, saved_models):  # noqa: F811
    """A local cloud of their own, for tests that count, kill and time, with models registered."""
    running = start(tmp_path_factory.mktemp("cloud") / "state")
    for name in ("one", "two", "slow"):
        register(running, saved_models / name, name)
    yield running
    if running.process.poll() is None:
        running.stop()


def model(name: str) -> str:
    return f"projects/local/locations/us-central1/models/{name}"


@pytest.fixture(scope="module")
def shared(cloud) -> Endpoint:
    endpoint = Endpoint(cloud, "shared")
    endpoint.deploy(model("one"), "1")
    return endpoint


@pytest.fixture(scope="module")
def slow(cloud) -> Endpoint:
    endpoint = Endpoint(cloud, "slow", clientConnectionConfig={"inferenceTimeout": "5s"})
    endpoint.deploy(model("slow"), "1")
    return endpoint


@pytest.fixture
def line(cloud, shared):
    """A connection on which a plain request was answered."""
    made = Line(cloud)
    for _ in range(2):
        head, body = made.ask(f"/v1/{shared.name}:rawPredict")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n"), body
    yield made
    made.socket.close()


BODIES = [
    BODY, b"", b"{", b"[]", b"{}", b'{"instances": []}', b'{"instances": [{"a": 1, "b": "no"}]}',
    b'{"instances": [{"a": 1}]}', json.dumps({"instances": [ROW], "labels": {"x": "y"}}).encode(),
    b'{"instances": [{"a": 1, "b": 1}], "signature_name": "serving_default"}', b"\xff\x00", b"NaN",
    json.dumps({"instances": [ROW] * 20_000}).encode(), b'{"instances": [' + b"1," * 800_000,
]  # fmt: skip


@pytest.mark.parametrize("verb", ["predict", "rawPredict"])
@pytest.mark.parametrize("body", BODIES, ids=range(len(BODIES)))
def test_both_ways_answer_the_same(shared, line, verb, body):
    path = f"/v1/{shared.name}:{verb}"
    wanted = line.ask(path, body, **ORDINARY)
    for _ in range(3):
        assert line.ask(path, body) == wanted
    assert line.ask(path.replace("v1", "v1beta1"), body) == wanted


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200), ({"Authorization": "Bearer wrong"}, 401), ({"Authorization": None}, 401),
        ({"Authorization": "Basic x"}, 401), ({"Host": "evil.example"}, 403), ({"Host": None}, 403),
        ({"Host": "x.prediction.vertexai.goog"}, 404), ({"Origin": "http://127.0.0.1"}, 403),
        ({"Host": "LOCALHOST:80"}, 200), ({"Sec_Fetch_Site": "cross-site"}, 403),
        ({"X_HTTP_Method_Override": "GET"}, 400), ({"Content_Type": None}, 200),
        ({"Content_Type": "text/plain"}, 200), ({"X_Own": "ü ".strip()}, 200), ({"X_Own": ""}, 200),
        ({"X_Own": "a  b\tc"}, 200), ({"Accept": "*/*", "User_Agent": "x/1 (y)"}, 200),
    ],
)  # fmt: skip
def test_a_head_means_the_same_both_ways(shared, line, headers, status):
    path = f"/v1/{shared.name}:rawPredict"
    wanted = line.ask(path, BODY, **(ORDINARY | headers))
    assert int(wanted[0].split()[1]) == status
    for _ in range(2):
        assert line.ask(path, BODY, **headers) == wanted
        assert line.ask(path)[1] == b'{"predictions":[5.0]}'


@pytest.mark.parametrize(
    "change",
    [("shared", "none"), ("raw", "xraw"), ("v1", "v7"), ("us", "u"), (":raw", "?x=1:raw"),
     (":raw", "%3Araw"), ("/v1", "//v1")],
)  # fmt: skip
def test_an_address_means_the_same_both_ways(shared, line, change):
    path = f"/v1/{shared.name}:rawPredict".replace(*change, 1)
    wanted = line.ask(path, BODY, **ORDINARY)
    assert line.ask(path) == line.ask(path) == wanted


def test_a_request_may_come_in_any_pieces(shared, line):
    path = f"/v1/{shared.name}:predict"
    whole, wanted = line.request(path), line.ask(path, BODY, **ORDINARY)
    line.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    ends = whole.index(b"\r\n\r\n")
    for cut in (1, 8, ends, ends + 2, ends + 4, ends + 5, len(whole) - 1):
        line.send(whole[:cut], whole[cut:])
        assert line.answer() == wanted
    line.send(*(whole[i : i + 1] for i in range(len(whole))))
    assert line.answer() == wanted


def test_requests_may_come_before_their_turn(shared, line):
    """All in one piece, and each before the answer to the one before it."""
    asked = [json.dumps({"instances": [{"a": n, "b": 0}]}).encode() for n in range(40)]
    raw, plain = (f"/v1/{shared.name}:{verb}" for verb in ("rawPredict", "predict"))
    requests = [line.request(plain if n % 3 else raw, body) for n, body in enumerate(asked)]
    requests[7] = line.request(f"/v1/{shared.name}", b"", "GET")
    for pieces in ([b"".join(requests)], requests):
        line.send(*pieces)
        for n in range(40):
            said = json.loads(line.answer()[1])
            assert said["displayName" if n == 7 else "predictions"] == (
                "e" if n == 7 else [2.0 * n]
            )


def test_other_forms_of_requests_go_on_between_plain_ones(shared, line):
    path = f"/v1/{shared.name}:rawPredict"
    wanted = line.ask(path)
    head = line.request(path, b"", Content_Length=None, Transfer_Encoding="chunked")
    line.send(head, b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY))
    assert line.answer() == line.ask(path) == wanted
    whole = line.request(path, Expect="100-continue")
    line.send(whole[: -len(BODY)])
    assert line.answer() == (b"HTTP/1.1 100 Continue\r\n\r\n", b"")
    line.send(BODY)
    assert line.answer() == line.ask(path) == wanted
    assert line.ask(path, BODY, Connection="close")[0].endswith(b"\r\nconnection: close\r\n\r\n")
    assert line.socket.recv(1) == b""


def test_a_client_that_leaves_harms_nobody(cloud, shared, line):
    path = f"/v1/{shared.name}:rawPredict"
    for ended in (socket.SHUT_WR, socket.SHUT_RDWR):
        for part in (slice(None), slice(-5)):
            other = Line(cloud)
            other.send(other.request(path)[part])
            other.socket.shutdown(ended)
            other.socket.close()
    assert line.ask(path) == line.ask(path, BODY, **ORDINARY)


def test_answers_are_counted_both_ways(cloud, shared, line):
    def counted() -> dict[str, int]:
        series = cloud.session.service("monitoring", "v3").projects().timeSeries()
        kind = 'metric.type="aiplatform.googleapis.com/prediction/online/response_count"'
        moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 60))
        begun = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 1800))
        found = series.list(name="projects/local", filter=kind, interval_startTime=begun,
                            interval_endTime=moment).execute()["timeSeries"]  # fmt: skip
        mine = [s for s in found if s["resource"]["labels"]["endpoint_id"] == "shared"]
        return {
            s["metric"]["labels"]["response_code"]: sum(int(p["value"]["int64Value"])
                                                        for p in s["points"])
            for s in mine
        }  # fmt: skip

    before, path = counted(), f"/v1/{shared.name}:rawPredict"
    for headers in ({}, ORDINARY):
        for body in (BODY, BODY, b"{}"):
            line.ask(path, body, **headers)
    after = counted()
    assert after["200"] - before["200"] == 4
    assert after["400"] - before.get("400", 0) == 2


def test_the_short_way_is_short(cloud, shared, line):
    """By the processor's time of the local cloud: a third of the ordinary way's."""
    process, took = psutil.Process(cloud.process.pid), {}
    for way, headers in (("short", {}), ("ordinary", ORDINARY)):
        request, before = (
            line.request(f"/v1/{shared.name}:rawPredict", **headers),
            process.cpu_times(),
        )
        for _ in range(3000):
            line.send(request)
            line.answer()
        after = process.cpu_times()
        took[way] = after.user + after.system - before.user - before.system
    assert took["short"] < 0.75 * took["ordinary"], took


def test_the_share_of_each_model_is_drawn_for_every_request(cloud, line):
    endpoint = Endpoint(cloud)
    endpoint.deploy(model("one"), "1")
    endpoint.deploy(model("two"), "2", {"0": 30, "1": 70})
    path = f"/v1/{endpoint.name}:rawPredict"
    said = [line.ask(path)[1] for _ in range(400)]
    assert set(said) == {b'{"predictions":[5.0]}', b'{"predictions":[50.0]}'}
    assert 75 <= said.count(b'{"predictions":[50.0]}') <= 165  # 5 standard deviations around 120
    endpoint.share({"1": 100})
    assert {line.ask(path)[1] for _ in range(20)} == {b'{"predictions":[5.0]}'}
    endpoint.remove()
    assert line.ask(path)[0].startswith(b"HTTP/1.1 404")


def test_a_dedicated_endpoint_has_its_host_and_its_limit_both_ways(cloud, line):
    endpoint = Endpoint(cloud, dedicatedEndpointEnabled=True)
    endpoint.deploy(model("one"), "1")
    path, host = f"/v1/{endpoint.name}:rawPredict", endpoint.get()["dedicatedEndpointDns"]
    large = json.dumps({"instances": [ROW] * 80_000}).encode()
    for body, said in ((BODY, b"200"), (large, b"200"), (b" " * 10_000_001, b"400")):
        wanted = line.ask(path, body, Host=host, **ORDINARY)
        assert wanted[0].split()[1] == said
        for name in (host, host.upper(), f"{host}:80"):
            assert line.ask(path, body, Host=name) == wanted
    wanted = line.ask(path, BODY, **ORDINARY)
    assert wanted[0].startswith(b"HTTP/1.1 400")
    assert line.ask(path) == line.ask(path) == wanted
    endpoint.remove()


@pytest.mark.parametrize("headers", [{}, ORDINARY], ids=["short", "ordinary"])
def test_a_killed_model_server_is_started_again(cloud, shared, line, headers):
    """Between two requests of a connection, before and after its end is seen, and under one."""
    path, lines = f"/v1/{shared.name}:rawPredict", [Line(cloud) for _ in range(8)]
    wanted = line.ask(path, BODY, **headers)
    for wait in (False, True):
        for other in lines:  # so that several connections to the model server are open
            other.send(other.request(path))
        assert [other.answer() for other in lines] == [wanted] * 8
        killed = servers_of(cloud)
        for process in killed:
            process.kill()
        if wait:
            psutil.wait_procs(killed, timeout=60)
        assert line.ask(path, BODY, **headers) == wanted
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        asked = pool.submit(lambda: [line.ask(path, BODY, **headers) for _ in range(300)])
        for process in servers_of(cloud):
            process.kill()
        assert asked.result() == [wanted] * 300


@contextlib.contextmanager
def held(running, part: str = ""):
    """The model servers answer nothing meanwhile."""
    processes = servers_of(running, part)
    assert processes
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        for process in processes:
            process.resume()


def test_a_model_that_takes_too_long_is_told(cloud, slow, line):
    path = f"/v1/{slow.name}:rawPredict"
    quick = line.ask(path, b'{"instances": [1]}')
    assert quick[0].startswith(b"HTTP/1.1 200")
    with held(cloud, "slow"):
        wanted = line.ask(path, b'{"instances": [1]}', **ORDINARY)
    assert wanted[0].startswith(b"HTTP/1.1 504")
    assert b"did not answer in 5 s" in wanted[1]
    assert line.ask(path, b'{"instances": [1]}') == quick
    with held(cloud, "slow"):
        assert line.ask(path, b'{"instances": [1]}') == wanted
    assert line.ask(path, b'{"instances": [1]}') == quick


def test_a_request_under_way_is_answered_when_the_local_cloud_leaves(start_emulator, saved_models):  # noqa: F811
    """And the next one meets the faults that are asked for."""
    running = start_emulator()
    register(running, saved_models / "one", "one")
    endpoint = Endpoint(running, "kept")
    endpoint.deploy(model("one"), "1")
    path, one = f"/v1/{endpoint.name}:rawPredict", Line(running)
    assert one.ask(path) == one.ask(path)
    with contextlib.closing(Line(running).socket):  # one that asks for nothing
        with held(running):
            one.send(one.request(path))
            endpoint.get()  # what was sent before has been read
            running.process.send_signal(signal.SIGTERM)
            until(lambda: not (running.folder / "emulator.json").exists())
        head, body = one.answer()
        assert body == b'{"predictions":[5.0]}'
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert head.endswith(b"\r\nconnection: close\r\n\r\n")
        assert one.socket.recv(1) == b""
    running.process.wait(timeout=60)
    fault = '{"aiplatform.projects.locations.endpoints.rawPredict": {"503": 1}}'
    other = Line(start_emulator("state", LOCAL_CLOUD_FAULTS=fault))
    for _ in range(3):
        assert other.ask(path)[0].startswith(b"HTTP/1.1 503")
        assert other.ask(path.replace("rawP", "p"))[0].startswith(b"HTTP/1.1 200")
