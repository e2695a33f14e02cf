"""Model servers are forks of one process: each is as alone as if it had been started by itself."""

import os
import signal

import psutil
import pytest

from tests.emulator.conftest import until
from tests.emulator.saved_models import register, saved_models  # noqa: F401
from tests.emulator.test_endpoints import Endpoint, servers_of, serving_image
from tests.emulator.test_isolation import HIDES

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="forks are for Linux")


@pytest.fixture(scope="module")
def image(emulator) -> str:
    return serving_image(emulator)


@pytest.fixture
def serve(emulator, image, saved_models):  # noqa: F811
    """Deploys a saved model by its name on an endpoint of its own; takes all off in the end."""
    made = []

    def deployed(name: str) -> Endpoint:
        endpoint = Endpoint(emulator)
        made.append(endpoint)
        about = register(emulator, saved_models / name, f"{name}-{endpoint.name[-8:]}", image=image)
        model = f"{about['model']}@{about['modelVersionId']}"
        endpoint.deploy(model, "1")
        return endpoint

    yield deployed
    for endpoint in made:
        endpoint.remove()


def server_of(endpoint: Endpoint) -> psutil.Process:
    name = endpoint.name.rsplit("/", 1)[-1]
    found = servers_of(endpoint.running, f"/served/{name}-1/")
    assert len(found) == 1
    return found[0]


def nursery_of(endpoint: Endpoint) -> psutil.Process:
    return server_of(endpoint).parent()


def gone(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_servers_are_forks_of_one_small_process(serve):
    one, two = serve("one"), serve("two")
    nursery = nursery_of(one)
    assert nursery == nursery_of(two)
    assert nursery.ppid() == one.running.process.pid
    assert nursery.memory_info().rss < 700 * 2**20
    assert nursery.num_threads() == 1  # a fork has this one alone, whatever others held
    for endpoint in (one, two):
        assert server_of(endpoint).memory_full_info().uss < 100 * 2**20  # their own share
    assert one.predict()[1]["predictions"] == [5.0]
    assert two.predict()[1]["predictions"] == [50.0]


def test_a_server_that_crashes_leaves_the_others(serve):
    one, two = serve("one"), serve("two")
    kept, lost = server_of(one), server_of(two)
    lost.send_signal(signal.SIGSEGV)
    until(lambda: gone(lost))
    assert one.predict()[1]["predictions"] == [5.0]
    assert server_of(one) == kept
    assert two.predict()[1]["predictions"] == [50.0]  # started again


def test_servers_outlive_the_process_they_come_from(serve):
    one = serve("one")
    kept, nursery = server_of(one), nursery_of(one)
    nursery.kill()
    until(lambda: gone(nursery))
    assert one.predict()[1]["predictions"] == [5.0]
    assert server_of(one) == kept
    two = serve("two")
    assert two.predict()[1]["predictions"] == [50.0]
    assert nursery_of(two) != nursery


def test_a_fork_has_its_own_identity_and_variables(serve):
    server = server_of(serve("one"))
    beside = server_of(serve("two"))
    with open(f"/proc/{server.pid}/stat") as file:
        session = int(file.read().rpartition(")")[2].split()[3])
    assert session == server.pid != os.getsid(beside.pid)
    assert server.cwd() != beside.cwd()


@pytest.mark.skipif(not HIDES, reason="this system gives no namespaces")
def test_a_fork_sees_its_model_and_no_other_files(serve, tmp_path):
    mine = tmp_path / "mine"
    mine.write_text("a file of the one who deploys")
    one, looker = serve("one"), serve("looker")
    folder = looker.running.folder
    words = dict(w.partition("=")[::2] for w in server_of(looker).cmdline() if "=" in w)
    places = [
        f"{words['--model_base_path']}/1/saved_model.pb", str(mine), f"{folder}/state.sqlite3",
        f"{folder}/served/{one.name.rsplit('/', 1)[-1]}-1/*", f"{folder}/emulator.json",
        f"{folder}/served/nursery/*", __file__,
    ]  # fmt: skip
    status, answer = looker.predict([{"path": place} for place in places])
    assert (status, answer["predictions"]) == (200, [1, *[0] * (len(places) - 1)])


def test_variables_of_the_container_are_there_as_tensorflow_is_imported(
    emulator, image, saved_models  # noqa: F811
):  # fmt: skip
    spec = {
        "imageUri": image, "command": ["/usr/bin/tensorflow_model_server"],
        "args": ["--model_name=model", "--model_base_path=$(AIP_STORAGE_URI)",
                 "--rest_api_port=8080"],
        "ports": [{"containerPort": 8080}], "predictRoute": "/v1/models/model:predict",
        "healthRoute": "/v1/models/model", "env": [{"name": "TF_ENABLE_ONEDNN_OPTS", "value": "0"}],
    }  # fmt: skip
    about = register(emulator, saved_models / "one", "with-variables", containerSpec=spec)
    endpoint = Endpoint(emulator)
    endpoint.deploy(about["model"], "1")
    assert endpoint.predict()[1]["predictions"] == [5.0]
    server = server_of(endpoint)
    assert server.ppid() == emulator.process.pid
    assert server.environ()["TF_ENABLE_ONEDNN_OPTS"] == "0"
    endpoint.remove()


def test_a_local_cloud_that_ends_leaves_no_process(start_emulator, saved_models):  # noqa: F811
    running = start_emulator()
    image = serving_image(running)
    model = register(running, saved_models / "one", "kept", image=image)["model"]
    endpoint = Endpoint(running, "kept")
    endpoint.deploy(model, "1")
    nursery = nursery_of(endpoint)
    running.kill()
    until(lambda: gone(nursery) and not servers_of(running))
