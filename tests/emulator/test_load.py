"""Many clients at once: no call fails, and neither memory nor open files grow."""

import itertools
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from helpers import storage
from tests.emulator.conftest import Emulator, until
from tests.emulator.saved_models import register, saved_models  # noqa: F401

CLIENTS = 64
PARENT = "/v1/projects/local/locations/us-central1"


@pytest.fixture
def busy(start_emulator, saved_models) -> Emulator:  # noqa: F811
    """A local cloud with a deployed model and a few objects."""
    running = start_emulator()
    register(running, saved_models / "one", "one")
    running.request("POST", f"{PARENT}/endpoints?endpointId=e", json_body={"displayName": "e"})
    machine = {"machineSpec": {"machineType": "n1-standard-2"}, "minReplicaCount": 1}
    deployed = {"model": f"{running.parent}/models/one", "dedicatedResources": machine}
    endpoints = running.api("aiplatform").projects().locations().endpoints()
    body = {"deployedModel": deployed, "trafficSplit": {"0": 100}}
    request = endpoints.deployModel(endpoint=f"{running.parent}/endpoints/e", body=body)
    running.session.wait(running.session.call(request))
    for i in range(20):
        storage.write_bytes(running.session, b"x" * 1000 * i, f"gs://local-bucket/kept/{i}")
    return running


@pytest.mark.parametrize(
    "duration_s", [pytest.param(3, id="short"), pytest.param(30, marks=pytest.mark.soak, id="long")]
)
def test_mixed_calls_of_many_clients(busy, duration_s):
    session, process = busy.session, psutil.Process(busy.process.pid)
    services = session.service("aiplatform").projects().locations()
    objects = session.service("storage").objects()
    instances = {"instances": [{"a": 1.0, "b": 1.0}]}
    endpoint, bucket = f"{busy.parent}/endpoints/e", {"bucket": "local-bucket"}

    def write(client: int) -> None:
        uri = f"gs://local-bucket/own/{client}"
        storage.write_bytes(session, bytes([client]) * 1000, uri)
        assert storage.read_bytes(session, uri) == bytes([client]) * 1000

    def label(client: int) -> None:
        body = {"metadata": {"client": str(client)}}
        session.call(objects.patch(**bucket, object=f"kept/{client % 20}", body=body))

    def predict(client: int) -> None:
        answer = session.call(services.endpoints().predict(endpoint=endpoint, body=instances))
        assert answer["predictions"] == [5.0]

    calls = [
        write, label, predict, predict,
        lambda client: session.call(services.endpoints().get(name=endpoint)),
        lambda client: session.call(services.models().list(parent=busy.parent)),
        lambda client: session.call(services.customJobs().list(parent=busy.parent)),
        lambda client: session.call(objects.list(**bucket, prefix="kept/")),
    ]  # fmt: skip

    def run(client: int, until_s: float, at_start: threading.Barrier) -> int:
        draw = random.Random(client)
        at_start.wait()
        for count in itertools.count():
            if time.monotonic() > until_s:
                return count
            draw.choice(calls)(client)

    def connected() -> int:
        port = int(busy.url.rsplit(":", 1)[1])
        return sum(c.laddr.port == port and bool(c.raddr) for c in process.net_connections())

    def load(seconds: float) -> tuple[int, int, int]:
        """Calls answered; memory in bytes and open files when all clients are gone."""
        at_start, before = threading.Barrier(CLIENTS), connected()
        with ThreadPoolExecutor(CLIENTS) as pool:
            until_s = time.monotonic() + seconds
            done = [pool.submit(run, n, until_s, at_start) for n in range(CLIENTS)]
            count = sum(future.result() for future in done)
        until(lambda: connected() <= before)  # the clients' farewells have arrived
        return count, process.memory_info().rss, process.num_fds()

    retries = pytest.MonkeyPatch()
    with retries.context() as patched:  # every call succeeds by itself
        patched.setattr("helpers.cloud.client.RETRIES", 0)
        warm = load(duration_s)
        after = load(duration_s)
    assert after[0] > CLIENTS
    assert after[1] < 1.1 * warm[1] + 10e6, (warm, after)
    assert after[2] <= warm[2] + CLIENTS, (warm, after)
