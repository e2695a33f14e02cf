"""Which strategy is chosen, and several workers for real: processes that train one model."""

import contextlib
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading

import numpy as np
import pytest

import helpers
from helpers import storage
from helpers.emulator.services.ports import free
from helpers.errors import ClusterError
from tests.emulator.conftest import until
from tests.lazily import tf
from tests.several import Member, begin, train, work_early


def config(**cluster) -> str:
    return json.dumps({"cluster": cluster, "task": {"type": "chief", "index": 0}})


def ports(count: int) -> list[str]:
    return [f"127.0.0.1:{port}" for port in free(count)]


@pytest.mark.parametrize(
    "setting", ["", "{}", config(chief=["127.0.0.1:1"]), config(chief=["a:1"], evaluator=["b:1"])]
)
def test_one_process_uses_tensorflows_default(setting, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", setting)
    assert helpers.strategy() is tf.distribute.get_strategy()


def test_members_that_do_not_find_each_other_say_so(monkeypatch):
    chief, gone = ports(2)
    monkeypatch.setenv("TF_CONFIG", config(chief=[chief], worker=[gone]))
    with pytest.raises(ClusterError, match=f"Member 1 of 2, {gone}, did not answer within 0.2 s"):
        helpers.strategy(timeout_s=0.2)


def test_a_chief_that_is_not_there_or_trains_already_is_named(monkeypatch):
    """The second as a worker meets it that starts again alone."""
    chief, mine = ports(2)
    about = {"cluster": {"chief": [chief], "worker": [mine]}, "task": {"type": "worker"}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(about))
    with pytest.raises(ClusterError, match=f"Member 0 of 2, {chief}, .* 0.2 s .*refused"):
        helpers.strategy(timeout_s=0.2)
    with socket.create_server(("127.0.0.1", int(chief.split(":")[1]))) as server:
        threading.Thread(target=lambda: server.accept()[0].sendall(b"HTTP/2"), daemon=True).start()
        with pytest.raises(
            ClusterError, match=f"Member 0 of 2, {chief}, did not answer within 1 s"
        ):
            helpers.strategy(timeout_s=1)


def test_a_member_lost_while_tensorflow_starts_ends_the_others(tmp_path):
    """It says that it is there, and is never heard of again."""
    chief, gone = ports(2)
    about = {"cluster": {"chief": [chief], "worker": [gone]}, "task": {"type": "chief", "index": 0}}
    with running(begin(tmp_path / "chief", train, 5.0, TF_CONFIG=json.dumps(about))) as (started,):

        def told() -> bytes:
            with contextlib.suppress(OSError), socket.create_connection(chief.split(":")) as here:
                here.sendall(b"1")
                return here.recv(8)
            return b""

        assert until(told) == b"go"
        assert started.ended() == 1
    out, err = started.out.read_text(), started.err.read_text()
    assert "All 2 are here. TensorFlow joins them in 5 s, or this ends." in out
    assert "in _meet" in err


@pytest.mark.parametrize(
    ("place", "how"),
    [
        (1, signal.SIGKILL),
        *(pytest.param(n, signal.SIGSTOP, marks=pytest.mark.soak) for n in (0, 1)),
    ],
)
def test_a_member_lost_in_training_ends_the_others(tmp_path, place, how):
    """Killed, or (stopped) without a sign of life."""
    with running(*members(tmp_path, 2, 60.0, 1_000_000)) as started:
        until(lambda: "trains" in started[place].out.read_text(), 120)
        os.kill(started[place].process.pid, how)
        assert started[1 - place].ended() == 1
        err = started[1 - place].err.read_text()
        assert "UnavailableError" in err or "DeadlineExceededError" in err


@pytest.mark.long
@pytest.mark.parametrize("place", [pytest.param(0, marks=pytest.mark.soak), 1])
def test_one_told_to_stop_stops_all_after_the_same_step(
    session, local_cloud_folder, tmp_path, place
):
    """So that nothing since the last epoch is lost; the chief keeps the checkpoint."""
    where = f"gs://{session.bucket}/together-{place}/checkpoints/"
    about = {"AIP_CHECKPOINT_DIR": where, "LOCAL_CLOUD_DIR": str(local_cloud_folder)}
    with running(*members(tmp_path, 2, 60.0, 1_000_000, **about)) as started:
        until(lambda: "trains" in started[place].out.read_text(), 120)
        os.kill(started[place].process.pid, signal.SIGTERM)
        for each in started:
            each.ended()
            said = "StoppedError: Told to stop; the checkpoint is in"
            assert said in each.err.read_text()
        steps = {each.out.read_text().count("trains") for each in started}
        assert len(steps) == 1
        assert len(storage.list_uris(session, where)) == 1


def test_a_member_its_cluster_does_not_know(monkeypatch):
    cluster = {"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "chief", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(cluster))
    with pytest.raises(ClusterError, match="expected one of its cluster's"):
        helpers.strategy()


def test_several_gpus_share_the_work(monkeypatch):
    importlib.import_module("helpers.learning.strategy")
    monkeypatch.delenv("TF_CONFIG", raising=False)
    monkeypatch.setattr(sys.modules["helpers.learning.strategy"], "_all_gpus", lambda: "mirrored")
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [kind, kind])
    assert helpers.strategy() == "mirrored"


def members(folder, count: int, *arguments, **environment: str) -> list[Member]:
    """Starts every member of a cluster of that size; they train."""
    chief, *others = ports(count)
    tasks = [("chief", 0), *(("worker", i) for i in range(count - 1))]
    started = []
    for kind, index in tasks:
        cluster = {"chief": [chief]} | ({"worker": others} if others else {})
        config = {"cluster": cluster, "task": {"type": kind, "index": index}}
        about = {"TF_CONFIG": json.dumps(config)} | environment
        started.append(begin(folder / f"{kind}-{index}", train, *arguments, **about))
    return started


@contextlib.contextmanager
def running(*started: Member):
    """Members that are ended in any case."""
    try:
        yield started
    finally:
        for each in started:
            each.process.kill()
            each.process.join()


def together(folder, count: int) -> list[dict]:
    """What every member says of its training."""
    with running(*members(folder, count, 60.0)) as started:
        for each in started:
            assert each.ended() == 0, each.err.read_text()
        return [json.loads(each.out.read_text().splitlines()[-1]) for each in started]


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> dict:
    return together(tmp_path_factory.mktemp("alone"), 1)[0]


@pytest.mark.long
@pytest.mark.parametrize("count", [2, pytest.param(3, marks=pytest.mark.soak)])
def test_several_workers_are_as_one(alone, tmp_path, count):
    """Same answers on all, and those of one process with the same global batch."""
    every = together(tmp_path, count)
    assert all(member == every[0] for member in every)
    said = every[0]
    assert said["seen"] == [0, 1, 2]
    for name in ("weights", "evaluate", "predict", "scores"):
        np.testing.assert_allclose(said[name], alone[name], rtol=1e-4, atol=1e-5)
    for name in ("mae", "val_mae", "val_loss"):
        np.testing.assert_allclose(said["history"][name], alone["history"][name], rtol=1e-4)
    # weights of the last, uneven batch are in the logged training loss
    np.testing.assert_allclose(said["history"]["loss"], alone["history"]["loss"], rtol=0.05)


def test_the_name_is_there_without_tensorflow():
    code = "import sys, helpers; 'strategy' in dir(helpers); print('tensorflow' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"


def test_work_done_before_the_machines_are_joined_is_said_in_our_words(tmp_path):
    members = ports(2)
    cluster = {"chief": members[:1], "worker": members[1:]}
    about = [{"cluster": cluster, "task": {"type": kind, "index": 0}} for kind in cluster]
    started = [
        begin(tmp_path / one["task"]["type"], work_early, TF_CONFIG=json.dumps(one))
        for one in about
    ]
    with running(*started):
        for each in started:
            assert each.ended() == 1
            last = each.err.read_text().splitlines()[-1]
            assert "TensorFlow had begun its work before helpers.strategy()" in last
            assert "in the first cell" in last
