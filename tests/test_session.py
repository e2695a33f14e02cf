"""connect() chooses the cloud, once; nothing after it asks."""

import builtins
import http.server
import json
import os
import socket
import subprocess
import sys
import threading
import types

import google.auth
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from google.auth.exceptions import DefaultCredentialsError
from google.oauth2.credentials import Credentials

import helpers
from helpers.cloud.client import Session
from helpers.cloud.links import console
from helpers.cloud.pages import CONSOLE
from helpers.errors import CloudError, LocalCloudError, SettingError


def run(code: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=240,
        env=os.environ | environment,
    )  # fmt: skip


def test_local_needs_nothing_else(session):
    assert (session.cloud, session.project, session.location) == ("local", "local", "us-central1")
    assert session.bucket == "local-bucket"
    assert helpers.storage.list_uris(session, "gs://local-bucket/nothing/") == []


# What http.client says of its own half-made answer.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupted_call_leaves_its_answer_to_nobody(session, monkeypatch):
    first, second = (f"gs://{session.bucket}/interrupted/{name}" for name in "ab")
    for uri in (first, second):
        helpers.storage.write_bytes(session, uri.encode(), uri)

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(socket.socket, "makefile", interrupted)  # the request has been sent
        with pytest.raises(KeyboardInterrupt):
            helpers.storage.read_bytes(session, first)
    assert helpers.storage.read_bytes(session, second) == second.encode()


def test_a_second_connect_reuses_the_running_cloud(session):
    assert helpers.connect("local").endpoint == session.endpoint


def test_notebooks_that_connect_at_the_same_moment_share_one_cloud(empty_cloud):
    code = "import sys, helpers; sys.stdin.read(); print(helpers.connect('local').endpoint)"
    begun = [
        subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]  # fmt: skip
    for process in begun:
        process.stdin.close()
        process.stdin = None
    said = [process.communicate(timeout=120) for process in begun]
    assert len({out for out, _ in said}) == 1, said
    assert said[0][0].startswith("http"), said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"cloud": "locla"}, 'Did you mean "local"'),
        ({"cloud": "google", "bucket": "b-b"}, "needs a project"),
        ({"cloud": "google", "project": "my-project"}, "needs a bucket"),
        ({"cloud": "google", "project": "P", "bucket": "b-b"}, 'PROJECT="P" is not usable'),
        ({"cloud": "local", "location": "us"}, 'LOCATION="us" is not usable'),
        ({"cloud": "local", "bucket": "Bad_Bucket"}, 'BUCKET="Bad_Bucket" is not usable'),
    ],
)
def test_settings_that_cannot_work_are_refused(arguments, said, monkeypatch):
    monkeypatch.delenv("GOOGLE_CLOUD_PROJECT", raising=False)
    token = {"credentials": Credentials(token="t")} if arguments["cloud"] == "google" else {}
    with pytest.raises(SettingError, match=said):
        helpers.connect(**arguments, **token)


def test_empty_strings_mean_the_default(monkeypatch):
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "my-project")
    made = helpers.connect("google", bucket="", credentials=Credentials(token="t"))
    assert (made.project, made.bucket) == ("my-project", "my-project-bucket")
    assert made.root("aiplatform") == "https://us-central1-aiplatform.googleapis.com"
    assert made.root("storage") == "https://storage.googleapis.com"


def test_google_without_anybody_signed_in_says_how(tmp_path):
    code = "import helpers; helpers.connect('google', project='my-project', bucket='my-bucket')"
    said = run(code, HOME=str(tmp_path), GOOGLE_APPLICATION_CREDENTIALS="", NO_GCE_CHECK="True")
    assert "SettingError" in said.stderr
    assert "gcloud auth application-default login" in said.stderr


PLACES = {  # environment, whether google.colab is there, whether Colab asks, what to do otherwise
    "Colab": ({}, True, True, "allow Colab's question"),
    "Colab Enterprise": (
        {"VERTEX_PRODUCT": "COLAB_ENTERPRISE"}, True, False, "runtime with end-user credentials"
    ),
    "Workbench": (
        {"VERTEX_PRODUCT": "WORKBENCH_INSTANCE"}, False, False, "service account to the instance"
    ),
    "Jupyter": ({"JPY_SESSION_NAME": "a.ipynb"}, False, False, "application-default login"),
    "papermill": ({"PAPERMILL_OUTPUT_PATH": "a"}, False, False, "application-default login"),
    "a training job": ({"CLOUD_ML_JOB_ID": "1"}, True, False, "Give the job a run-as account"),
}  # fmt: skip


@pytest.fixture
def place(request, monkeypatch):
    """One of PLACES, with a stand-in of google.colab where that has one; whom Colab asked."""
    environment, colab, *_ = PLACES[request.param]
    asked: list[str] = []
    for name in ("VERTEX_PRODUCT", "CLOUD_ML_JOB_ID", "GOOGLE_APPLICATION_CREDENTIALS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    if colab:
        module = types.ModuleType("google.colab")
        module.auth = types.SimpleNamespace(
            authenticate_user=lambda *, project_id: asked.append(project_id)
        )
        monkeypatch.setitem(sys.modules, "google.colab", module)
    return request.param, asked


@pytest.mark.parametrize("place", PLACES, indirect=True)
def test_each_place_has_its_sign_in(place, monkeypatch):
    name, asked = place
    _, _, asks, todo = PLACES[name]
    signed_in = Credentials(token="t")
    monkeypatch.setattr(google.auth, "default", lambda scopes: (signed_in, None))
    made = helpers.connect("google", project="my-project", bucket="")
    assert made.credentials is signed_in
    assert asked == (["my-project"] if asks else [])

    def nobody(scopes):
        raise DefaultCredentialsError("none")

    monkeypatch.setattr(google.auth, "default", nobody)
    with pytest.raises(SettingError, match=f"nobody signed in.*{todo}"):
        helpers.connect("google", project="my-project", bucket="")


@pytest.mark.parametrize("said", ["Error: credential propagation was unsuccessful", ""])
def test_colabs_question_refused_is_one_sentence_and_sets_nothing(monkeypatch, tmp_path, said):
    class MessageError(Exception):
        pass

    settings = tmp_path / "configurations"
    settings.mkdir()
    (settings / "config_default").write_text("[core]\nproject = mine\n")

    def refused(*, project_id):
        os.environ["GOOGLE_CLOUD_PROJECT"] = project_id
        for name in ("config_default", "config_colab"):
            (settings / name).write_text(f"[core]\nproject = {project_id}\n")
        os.environ.pop("GOOGLE_CLOUD_QUOTA_PROJECT", None)
        raise MessageError(said)

    module = types.ModuleType("google.colab")
    module.auth = types.SimpleNamespace(authenticate_user=refused)
    monkeypatch.setitem(sys.modules, "google.colab", module)
    for name in ("VERTEX_PRODUCT", "CLOUD_ML_JOB_ID", "GOOGLE_CLOUD_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GOOGLE_CLOUD_QUOTA_PROJECT", "mine")
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    before = dict(os.environ)
    with pytest.raises(SettingError) as caught:
        helpers.connect("google", project="my-project", bucket="")
    assert f"refused or did not end ({said or 'MessageError'})" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert dict(os.environ) == before
    kept = {path.name: path.read_text() for path in settings.iterdir()}
    assert kept == {"config_default": "[core]\nproject = mine\n"}


def test_a_key_file_is_refused(tmp_path, monkeypatch):
    """A service account's key; a person's sign-in and a federation's settings are none."""
    number = rsa.generate_private_key(65537, 2048)
    pem = number.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    path = tmp_path / "credentials.json"
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
    key = {
        "type": "service_account", "private_key": pem, "token_uri": "https://example.com",
        "client_email": "a@my-project.iam.gserviceaccount.com", "project_id": "my-project",
    }  # fmt: skip
    path.write_text(json.dumps(key))
    with pytest.raises(SettingError, match="key file.*Unset it and delete the key"):
        helpers.connect("google", project="my-project", bucket="")
    person = {"type": "authorized_user", "client_id": "i", "client_secret": "s"}
    path.write_text(json.dumps(person | {"refresh_token": "r"}))
    assert helpers.connect("google", project="my-project", bucket="").project == "my-project"


@pytest.mark.parametrize("kind", CONSOLE)
def test_links_to_the_console_name_the_project_and_the_thing(kind):
    made = helpers.connect(
        "google", project="my-project", bucket="", credentials=Credentials(token="t")
    )
    link = console(made, kind, "12345")
    assert link.startswith("https://console.cloud.google.com/")
    assert ("project=my-project" in link) == (kind != "project")  # the list of all projects
    assert ("12345" in link) == (kind not in ("billing", "project", "quota"))
    assert ("us-central1" in link) == (kind not in ("bucket", "billing", "project", "quota"))
    assert not set(link) & set("{}<> ")


def test_the_google_path_never_imports_the_emulator(session, monkeypatch):
    """The same calls, in google mode, with the local cloud's package out of reach."""
    real = builtins.__import__

    def guarded(name, *arguments, **options):
        assert not name.startswith("helpers.emulator"), name
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", guarded)
    made = helpers.connect(
        "google", project="local", bucket="local-bucket", endpoint=session.endpoint,
        credentials=session.credentials,
    )  # fmt: skip
    uri = helpers.storage.write_bytes(made, b"x", "gs://local-bucket/google-path")
    assert helpers.storage.read_bytes(made, uri) == b"x"


def test_import_is_light():
    code = (
        "import sys, time; start = time.perf_counter(); import helpers; "
        "took = time.perf_counter() - start; "
        "print('tensorflow' in sys.modules, 'pandas' in sys.modules, took < 0.3)"
    )
    assert run(code).stdout.split() == ["False", "False", "True"]


def test_the_public_names_are_all_there_and_sorted():
    assert helpers.__all__ == sorted(helpers.__all__)
    code = "import helpers\nfor name in helpers.__all__: getattr(helpers, name)\nprint('ok')"
    assert run(code).stdout.strip() == "ok"


def test_a_verb_stays_the_verb_when_its_file_is_imported():
    code = (
        "import helpers.training, helpers; print(callable(helpers.train), callable(helpers.deploy))"
    )
    assert run(code).stdout.split() == ["True", "True"]


def test_refusals_carry_the_services_words(session):
    jobs = session.service("aiplatform").projects().locations().customJobs()
    with pytest.raises(CloudError, match="does not exist") as caught:
        session.call(jobs.get(name=f"{session.parent}/customJobs/1"))
    assert caught.value.status == 404
    assert caught.value.method == "aiplatform.projects.locations.customJobs.get"


def test_a_state_folder_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LOCAL_CLOUD_DIR", str(tmp_path / "file" / "state"))
    with pytest.raises(LocalCloudError, match="can't write its state folder"):
        helpers.connect("local")


def test_a_state_folder_of_a_newer_version(tmp_path, monkeypatch):
    import sqlite3

    database = sqlite3.connect(tmp_path / "state.sqlite3")
    database.execute("PRAGMA user_version=99")
    database.close()
    monkeypatch.setenv("LOCAL_CLOUD_DIR", str(tmp_path))
    with pytest.raises(LocalCloudError, match="newer version"):
        helpers.connect("local")


def test_retries_what_may_be_repeated_and_nothing_else(session, monkeypatch):
    """A server that fails twice, then answers."""
    import http.server
    import threading

    seen: list[str] = []

    class Flaky(http.server.BaseHTTPRequestHandler):
        def answer(self):
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            seen.append(self.command)
            ok = len(seen) > 2
            body = json.dumps({"name": "b"} if ok else {"error": {"message": "busy"}}).encode()
            self.send_response(200 if ok else 503)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = answer  # noqa: N815

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Flaky)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr("helpers.cloud.client.time.sleep", lambda s: None)
    flaky = helpers.connect(
        "google", project="my-project", bucket="my-bucket", credentials=Credentials(token="t"),
        endpoint=f"http://127.0.0.1:{server.server_port}",
    )  # fmt: skip
    buckets = flaky.service("storage").buckets()
    try:
        assert flaky.call(buckets.get(bucket="b"))["name"] == "b"
        assert seen == ["GET"] * 3
        seen.clear()
        with pytest.raises(CloudError, match="busy"):
            flaky.call(buckets.insert(project="p", body={"name": "b"}))
        assert seen == ["POST"]
    finally:
        server.shutdown()
        server.server_close()


class Slow(http.server.BaseHTTPRequestHandler):
    """Answers at once, or only after the server's `held` is set; the connection is kept."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/slow":
            self.server.held.wait(30)
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_): ...


def test_a_timeout_is_that_of_one_request_also_on_a_kept_connection():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    server.held, server.daemon_threads = threading.Event(), True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    session = Session("google", "p", "l", "b", url, Credentials(token="t"))
    try:
        assert session.http().request(f"{url}/fast")[0].status == 200
        with pytest.raises(TimeoutError):
            session.http(1).request(f"{url}/slow")
        session.renew()
        assert session.http(1).request(f"{url}/fast")[0].status == 200
        threading.Timer(1.5, server.held.set).start()
        assert session.http().request(f"{url}/slow")[0].status == 200  # longer than one before it
    finally:
        server.held.set()
        server.shutdown()
        server.server_close()
        session.renew()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, None),
        ({"CLUSTER_SPEC": {"cluster": {"workerpool0": ["a:1"]}, "task": {}}}, None),
        (
            {"CLUSTER_SPEC": {
                "cluster": {"workerpool0": ["a:1"], "workerpool1": ["b:1", "c:1"]},
                "task": {"type": "workerpool1", "index": 1, "trial": ""},
            }},
            {"cluster": {"chief": ["a:1"], "worker": ["b:1", "c:1"]},
             "task": {"type": "worker", "index": 1}},
        ),
    ],
)  # fmt: skip
def test_a_cluster_that_only_cluster_spec_names_is_known_to_tensorflow(
    monkeypatch, given, expected
):
    from helpers.cloud.environment import complete_cluster

    monkeypatch.setattr(os, "environ", {key: json.dumps(spec) for key, spec in given.items()})
    complete_cluster()
    assert json.loads(os.environ.get("TF_CONFIG", "null")) == expected
