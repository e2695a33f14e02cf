"""Who may call, which method it is, whether the request is sound."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import httplib2
import psutil
import pytest

JOBS = "/v1/projects/local/locations/us-central1/customJobs"
POOL = {
    "machineSpec": {"machineType": "n1-standard-4"},
    "replicaCount": "1",
    "containerSpec": {"imageUri": "python:3.11", "command": ["true"]},
}
PACKAGE = {"executorImageUri": "i", "packageUris": ["gs://b/p.tar.gz"], "pythonModule": "m"}
PACKAGED = {"pythonPackageSpec": PACKAGE}
JOB = {"displayName": "j", "jobSpec": {"workerPoolSpecs": [POOL]}}


def job(**changes) -> dict:
    return json.loads(json.dumps(JOB)) | changes


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Authorization": ""}, 401),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Host": "evil.example"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
    ],
)
def test_closed_to_others(emulator, headers, expected):
    status, answer = emulator.request("GET", JOBS, headers=headers)
    assert (status, answer["error"]["code"]) == (expected, expected)


def test_listens_on_loopback_alone_and_keeps_its_folder_private(emulator):
    listening = [
        c for c in psutil.Process(emulator.process.pid).net_connections() if c.status == "LISTEN"
    ]
    assert {c.laddr.ip for c in listening} == {"127.0.0.1"}
    assert stat.S_IMODE(emulator.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((emulator.folder / "emulator.json").stat().st_mode) == 0o600


def test_a_method_that_is_not_emulated_is_named(emulator):
    status, answer = emulator.request(
        "POST", "/v1/projects/local/locations/us-central1/studies", json_body={}
    )
    assert status == 501
    assert (
        "aiplatform.projects.locations.studies.create is not emulated" in answer["error"]["message"]
    )
    assert emulator.request("GET", "/v1/nonsense")[0] == 404


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (job(colour="red"), 'Unknown name "colour": Cannot find field.'),
        ({"displayName": "j"}, "job_spec; Message: Required field is not set"),
        (job(displayName=3), "Invalid value at 'display_name' (TYPE_STRING), 3"),
        (job(displayName="x" * 129), "at most 128 characters"),
        (job(labels={"Upper": "x"}), "Label keys"),
        (job(labels={"ok": "Not Ok"}), "Label value"),
        (job(labels={f"k{i}": "v" for i in range(65)}), "64 labels"),
        (job(jobSpec={"workerPoolSpecs": [POOL | {"replicaCount": "2"}]}), "exactly one replica"),
        (job(jobSpec={"workerPoolSpecs": [POOL | {"replicaCount": "1.5"}]}), "TYPE_INT64"),
        (job(jobSpec={"workerPoolSpecs": [POOL | PACKAGED]}), "Exactly one of"),
        (job(jobSpec=JOB["jobSpec"] | {"scheduling": {"strategy": "CHEAP"}}), "TYPE_ENUM"),
        (job(jobSpec=JOB["jobSpec"] | {"scheduling": {"strategy": 99}}), "TYPE_ENUM"),
        (job(jobSpec=JOB["jobSpec"] | {"scheduling": {"timeout": "3600"}}), "protobuf.duration"),
        (
            job(jobSpec={"workerPoolSpecs": [POOL | {"machineSpec": {
                "machineType": "n1-standard-4", "acceleratorType": "NVIDIA_L4"}}]}),
            "go together",
        ),
        ("[]", "Root element must be a message"),
        ("{", "Invalid JSON payload"),
    ],
)  # fmt: skip
def test_unsound_bodies_are_refused_in_googles_words(emulator, body, said):
    raw = body if isinstance(body, str) else json.dumps(body)
    status, answer = emulator.request("POST", JOBS, body=raw)
    assert status == 400
    assert said in answer["error"]["message"]
    assert answer["error"]["status"] == "INVALID_ARGUMENT"


@pytest.mark.parametrize(
    ("path", "said"),
    [
        (JOBS + "?colour=red", 'Unknown name "colour"'),
        (JOBS + "?pageSize=many", "TYPE_INT32"),
        (JOBS + "?filter=(((", "Invalid filter"),
        (JOBS.replace("us-central1", "mars-north1"), "Unsupported region: mars-north1"),
        (JOBS.replace("local/", "Bad_Project/", 1), "Invalid resource name"),
    ],
)
def test_unsound_paths_and_queries_are_refused(emulator, path, said):
    status, answer = emulator.request("GET", path)
    assert status == 400
    assert said in answer["error"]["message"]


def test_a_get_with_a_long_address_is_a_post_of_its_query(emulator):
    """google-api-python-client turns it into one, by X-HTTP-Method-Override."""
    jobs = emulator.api("aiplatform").projects().locations().customJobs()
    name = "x" * 3000
    request = jobs.list(parent=emulator.parent, filter=f'displayName="{name}" OR displayName="y"')
    assert len(request.uri) > 2048
    assert request.execute() == {}
    objects = emulator.api("storage").objects()
    assert emulator.request("POST", "/storage/v1/b?project=local", json_body={"name": "long"})[0]
    assert "items" not in objects.list(bucket="long", matchGlob=name).execute()
    status, answer = emulator.request(
        "POST", JOBS, body="filter=(((", headers={"X-HTTP-Method-Override": "GET"}
    )
    assert (status, "Invalid filter" in answer["error"]["message"]) == (400, True)
    override = {"X-HTTP-Method-Override": "PATCH"}
    path = f"/v1/{emulator.parent}/endpoints/none?updateMask=description"
    assert emulator.request("POST", path, json_body={}, headers=override)[0] == 404


def test_a_large_body_is_refused_unread(emulator):
    import http.client

    connection = http.client.HTTPConnection(emulator.url.removeprefix("http://"), timeout=30)
    connection.putrequest("POST", JOBS)
    connection.putheader("Authorization", f"Bearer {emulator.token}")
    connection.putheader("Content-Length", str(10**9))
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()


def command(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "helpers.emulator", *arguments],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def test_status_and_stop(start_emulator):
    running = start_emulator()
    said = command("status", "--state", str(running.folder))
    assert said.returncode == 0
    assert running.url in said.stdout
    assert command("stop", "--state", str(running.folder)).returncode == 0
    running.process.wait(timeout=30)
    assert command("status", "--state", str(running.folder)).returncode == 3
    assert command("stop", "--state", str(running.folder)).returncode == 0


def test_one_local_cloud_a_folder(emulator):
    said = command("serve", "--state", str(emulator.folder))
    assert said.returncode == 1
    assert "Another local cloud runs" in said.stderr
    assert emulator.request("GET", JOBS)[0] == 200


def test_a_taken_port_is_named(emulator, tmp_path):
    port = emulator.url.rsplit(":", 1)[1]
    said = command("serve", "--state", str(tmp_path / "other"), "--port", port)
    assert said.returncode == 1
    assert f"Port {port} is taken" in said.stderr


def test_a_state_folder_that_is_not_writable(tmp_path):
    (tmp_path / "file").write_text("")
    said = command("serve", "--state", str(tmp_path / "file" / "state"))
    assert said.returncode == 1
    assert "can't write its state folder" in said.stderr


def test_a_newer_or_damaged_state_is_left_alone(tmp_path):
    import sqlite3

    newer = tmp_path / "newer"
    newer.mkdir()
    database = sqlite3.connect(newer / "state.sqlite3")
    database.execute("PRAGMA user_version=99")
    database.close()
    said = command("serve", "--state", str(newer))
    assert said.returncode == 1
    assert "newer version" in said.stderr
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "state.sqlite3").write_bytes(b"not a database" * 100)
    said = command("serve", "--state", str(damaged))
    assert said.returncode == 1
    assert "can't use" in said.stderr
    assert (damaged / "state.sqlite3").read_bytes() == b"not a database" * 100


def test_it_is_small_and_has_no_tensorflow(emulator):
    emulator.request("GET", JOBS)
    process = psutil.Process(emulator.process.pid)
    assert process.memory_info().rss < 120e6
    if os.path.exists(f"/proc/{process.pid}/maps"):
        assert "tensorflow" not in Path(f"/proc/{process.pid}/maps").read_text()


def test_many_clients_at_once(emulator):
    from concurrent.futures import ThreadPoolExecutor

    def call(i: int) -> int:
        answer, _ = httplib2.Http(timeout=60).request(
            emulator.url + JOBS, headers={"Authorization": f"Bearer {emulator.token}"}
        )
        return answer.status

    with ThreadPoolExecutor(64) as pool:
        assert set(pool.map(call, range(256))) == {200}
