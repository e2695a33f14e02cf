"""What a job finds of this machine, and who it is when it calls."""

import json
import os
import subprocess
import urllib.error
import urllib.request

import joblib
import pytest

from helpers.cloud import buckets, images
from tests.emulator.conftest import until
from tests.emulator.test_jobs import cloud, ended, lines, submit  # noqa: F401

pytestmark = pytest.mark.long

HIDES = subprocess.run(["unshare", "-Urm", "true"], capture_output=True).returncode == 0
VERTEX = "us-docker.pkg.dev/vertex-ai/training/tf-cpu.2-17.py310:latest"


def shell(text: str, image: str = "python:3.11") -> list[dict]:
    container = {"imageUri": image, "command": ["bash", "-c", text]}
    return [{"machineSpec": {"machineType": "n1-standard-4"}, "containerSpec": container}]


def run(cloud, code: str, image: str = "python:3.11", **specification) -> dict:  # noqa: F811
    """What a job that succeeds prints, as JSON on its last line."""
    pools = shell("true", image)
    pools[0]["containerSpec"]["command"] = ["python3", "-c", code]
    name = submit(cloud, pools=pools, **specification)
    job = ended(cloud, name)
    assert job["state"] == "JOB_STATE_SUCCEEDED", lines(cloud, name)
    return json.loads(lines(cloud, name)[-1])


# --- what it finds


def test_a_job_finds_what_its_image_names_and_nothing_else(cloud):  # noqa: F811
    code = """
import importlib.util, json
names = ("pip", "setuptools", "numpy", "pandas", "google.cloud.storage", "papermill", "helpers")
def there(name):
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False
print(json.dumps({name: there(name) for name in names}))
"""
    bare = run(cloud, code)
    assert bare["pip"]
    assert bare["setuptools"]
    assert not any(bare[name] for name in ("numpy", "pandas", "papermill", "helpers"))
    google = run(cloud, code, VERTEX)
    assert google["numpy"]
    assert google["google.cloud.storage"]
    assert not google["helpers"]


@pytest.mark.parametrize(
    "pip",
    ["pip", "python3 -m pip"]
    + [pytest.param(name, marks=pytest.mark.soak) for name in ("pip3", "python -m pip")],
)
def test_what_pip_installs_is_found_with_what_it_needs(cloud, pip):  # noqa: F811
    steps = f"! python -c 'import pandas' && {pip} install -q 'pandas>=2' && {pip} show pandas && "
    steps += "python3 -c 'import pandas, numpy, dateutil; print(pandas.__version__)' && "
    steps += "! python3 -c 'import sklearn'"
    name = submit(cloud, pools=shell(steps))
    assert ended(cloud, name)["state"] == "JOB_STATE_SUCCEEDED", lines(cloud, name)
    after = submit(cloud, "import pandas")  # another job's packages are its own
    assert ended(cloud, after)["state"] == "JOB_STATE_FAILED"


def test_folders_are_a_jobs_own(cloud, monkeypatch):  # noqa: F811
    code = """
import json, os, tempfile
open("left", "x").close()
open(os.path.join(tempfile.gettempdir(), "left"), "x").close()
open(os.path.expanduser("~/left"), "x").close()
print(json.dumps([os.getcwd(), tempfile.gettempdir(), os.path.expanduser("~")]))
"""
    first, second = run(cloud, code), run(cloud, code)  # the second finds nothing of the first
    assert first[0] != second[0]
    assert first[2] != second[2]


MAIN = """
import importlib.util, json, os, shutil
open("left", "x").close()  # the next job starts from the image as it was built
there = lambda name: importlib.util.find_spec(name) is not None
print(json.dumps([there("pandas"), there("dateutil"), os.environ["PATH"], shutil.which("sh")]))
"""


def test_a_built_image_has_what_it_installed(cloud):  # noqa: F811
    text = "FROM python:3.11\nWORKDIR /app\nENV PATH=/app/bin:$PATH\nCOPY . .\n"
    text += 'RUN pip install --no-deps -r r.txt\nENTRYPOINT ["python", "main.py"]\n'
    files = {"Dockerfile": text, "main.py": MAIN, "r.txt": "pandas\n", "bin/tool": ""}
    buckets.create_bucket(cloud.session)
    files = {name: content.encode() for name, content in files.items()}
    uri = images.ensure(cloud.session, "own", files)
    pool = {"machineSpec": {"machineType": "n1-standard-4"}, "containerSpec": {"imageUri": uri}}
    for _ in range(2):
        name = submit(cloud, pools=[pool])
        assert ended(cloud, name)["state"] == "JOB_STATE_SUCCEEDED", lines(cloud, name)
        named, unnamed, path, found = json.loads(lines(cloud, name)[-1])
        assert (named, unnamed) == (True, False)
        assert path.split(":")[0].endswith("/image/app/bin")
        assert found


@pytest.mark.skipif(not HIDES, reason="this system gives no user namespaces")
def test_files_of_this_machine_are_hidden(cloud, tmp_path):  # noqa: F811
    (tmp_path / "mine.csv").write_text("a,b")
    places = [str(tmp_path / "mine.csv"), str(cloud.folder / "emulator.json"),
              str(cloud.folder / "state.sqlite3"), __file__]  # fmt: skip
    (cloud.folder / "buckets" / "seen").mkdir(parents=True, exist_ok=True)
    (cloud.folder / "buckets" / "seen" / "a").write_text("text")
    code = f"""
import json, os
found = [path for path in {places!r} if os.path.exists(path)]
open("/gcs/" + "seen/b", "w").write("back")
packages = [path for path in __import__("sys").path if path.endswith("site-packages")]
try:
    open(os.path.realpath(packages[-1] + "/pip/__init__.py"), "a")
except OSError:
    pass
print(json.dumps([found, open("/gcs/" + "seen/a").read()]))
"""
    assert run(cloud, code) == [[], "text"]
    assert (cloud.folder / "buckets" / "seen" / "b").read_text() == "back"


# --- who it is


WHO = """
import json, os, urllib.request
import google.auth, google.auth.transport.requests
from google.cloud import storage
credentials, project = google.auth.default()
credentials.refresh(google.auth.transport.requests.Request())
bucket = storage.Client().bucket("identity")
bucket.blob("a/b.txt").upload_from_string("from the job")
host = os.environ["GCE_METADATA_HOST"]
def ask(path):
    request = urllib.request.Request(f"http://{host}/computeMetadata/v1/{path}",
                                     headers={"Metadata-Flavor": "Google"})
    return urllib.request.urlopen(request).read().decode()
print(json.dumps({
    "project": project, "email": credentials.service_account_email, "token": credentials.token,
    "number": ask("project/numeric-project-id"), "universe": ask("universe/universe-domain"),
    "own": os.environ["LOCAL_CLOUD_DIR"], "text": bucket.blob("a/b.txt").download_as_text(),
}))
"""


@pytest.fixture
def bucket(cloud):  # noqa: F811
    cloud.request("POST", "/storage/v1/b?project=local", json_body={"name": "identity"})
    return "identity"


def test_googles_libraries_find_the_jobs_account(cloud, bucket):  # noqa: F811
    who = run(cloud, WHO, VERTEX)
    assert who["project"] == "local"
    assert who["number"].isdecimal()
    assert who["email"] == f"service-{who['number']}@gcp-sa-aiplatform-cc.iam.gserviceaccount.com"
    assert who["universe"] == "googleapis.com"
    assert who["text"] == "from the job"
    assert who["token"] != cloud.token
    path = "/storage/v1/b/identity/o"  # the token has ended with the job
    assert cloud.request("GET", path, headers={"Authorization": f"Bearer {who['token']}"})[0] == 401


TRY = """
import json, os, urllib.error, urllib.request
known = json.load(open(os.path.join(os.environ["LOCAL_CLOUD_DIR"], "emulator.json")))
def status(method, path, body=None):
    request = urllib.request.Request(known["url"] + path, method=method, data=body)
    request.add_header("Authorization", "Bearer " + known["token"])
    request.add_header("Content-Type", "application/json")
    try:
        return urllib.request.urlopen(request).status
    except urllib.error.HTTPError as error:
        return error.code
upload = "/upload/storage/v1/b/identity/o?uploadType=media&name=c"
print(json.dumps([
    status("GET", "/storage/v1/b/identity/o"), status("POST", upload, b"x"),
    status("GET", "/v1/projects/local/locations/us-central1/endpoints"),
    status("POST", "/v1/projects/local/serviceAccounts", b'{"accountId": "another"}'),
    status("GET", "/v1/projects/other/locations/us-central1/endpoints"),
]))
"""


def test_a_job_may_do_what_its_account_may(cloud, bucket):  # noqa: F811
    assert run(cloud, TRY) == [200, 200, 200, 403, 403]  # the default account
    account = "reader@local.iam.gserviceaccount.com"
    assert run(cloud, TRY, serviceAccount=account) == [403, 403, 403, 403, 403]
    _, policy = cloud.request("GET", "/storage/v1/b/identity/iam")
    role = {"role": "roles/storage.objectViewer", "members": [f"serviceAccount:{account}"]}
    policy["bindings"] = [*policy.get("bindings", []), role]
    cloud.request("PUT", "/storage/v1/b/identity/iam", json_body=policy)
    assert run(cloud, TRY, serviceAccount=account) == [200, 403, 403, 403, 403]
    role["role"] = "roles/storage.objectUser"
    _, policy = cloud.request("GET", "/storage/v1/b/identity/iam")
    cloud.request("PUT", "/storage/v1/b/identity/iam", json_body=policy | {"bindings": [role]})
    assert run(cloud, TRY, serviceAccount=account) == [200, 200, 403, 403, 403]


def ask(url: str, path: str, **headers: str) -> int:
    request = urllib.request.Request(f"{url}/computeMetadata/v1/{path}", headers=headers)
    try:
        return urllib.request.urlopen(request).status
    except urllib.error.HTTPError as error:
        return error.code


TOKEN = "instance/service-accounts/default/token"  # noqa: S105


def test_nobody_but_a_jobs_processes_gets_its_token(cloud):  # noqa: F811
    shared = cloud.shared
    gate = shared / "gate"
    code = f"""
import json, os, subprocess, sys, time, urllib.error, urllib.request
def ask(path, **headers):
    url = "http://" + os.environ["GCE_METADATA_HOST"] + "/computeMetadata/v1/" + path
    try:
        return urllib.request.urlopen(urllib.request.Request(url, headers=headers)).read().decode()
    except urllib.error.HTTPError as error:
        return error.code
flavor = {{"Metadata-Flavor": "Google"}}
if len(sys.argv) < 2:  # asked by a process that the job started, in a session of its own
    words = [sys.executable, "-c", open("/proc/self/cmdline").read().split(chr(0))[2], "child"]
    inner = subprocess.run(words, start_new_session=True, capture_output=True, text=True).stdout
    print(json.dumps([
        json.loads(inner), ask({TOKEN!r}), ask({TOKEN!r}, **flavor, **{{"X-Forwarded-For": "x"}}),
        ask("instance/service-accounts/nobody@x.iam.gserviceaccount.com/token", **flavor),
    ]), flush=True)
    while not os.path.exists({str(gate)!r}): time.sleep(0.02)
else:
    print(json.dumps(ask({TOKEN!r}, **flavor)))
"""
    name = submit(cloud, code)
    first = json.loads(until(lambda: lines(cloud, name))[0])
    assert first[1:] == [403, 403, 404]
    token = json.loads(first[0])["access_token"]
    other = json.loads(run(cloud, code.replace("len(sys.argv) < 2", "False")))["access_token"]
    assert token not in (other, cloud.token)
    assert ask(cloud.url, TOKEN, **{"Metadata-Flavor": "Google"}) == 403  # this process is no job
    headers = {"Authorization": f"Bearer {token}"}
    assert cloud.request("GET", "/storage/v1/b?project=local", headers=headers)[0] == 200
    forged = {"Authorization": f"Bearer {token[:-1]}_"}
    assert cloud.request("GET", "/storage/v1/b?project=local", headers=forged)[0] == 401
    gate.touch()
    assert ended(cloud, name)["state"] == "JOB_STATE_SUCCEEDED"
    assert cloud.request("GET", "/storage/v1/b?project=local", headers=headers)[0] == 401


def test_a_token_holds_over_a_restart_of_the_local_cloud(start_emulator):
    first = start_emulator()
    gate = first.shared / "gate"
    name = submit(first, f"""
        import json, os, time
        print(open(os.environ["LOCAL_CLOUD_DIR"] + "/emulator.json").read(), flush=True)
        while not os.path.exists({str(gate)!r}): time.sleep(0.02)
    """)  # fmt: skip
    token = json.loads(until(lambda: lines(first, name))[0])["token"]
    first.kill()
    second = start_emulator()
    headers = {"Authorization": f"Bearer {token}"}
    assert second.request("GET", "/storage/v1/b?project=local", headers=headers)[0] == 200
    gate.touch()
    assert ended(second, name)["state"] == "JOB_STATE_SUCCEEDED"
    assert second.request("GET", "/storage/v1/b?project=local", headers=headers)[0] == 401


# --- served models


# What a model that looks around sees, as text.
LOOK = """__import__("types").SimpleNamespace(predict=lambda rows: __import__("numpy").array([
    __import__("json").dumps({
        "finds": [n for n in ("sklearn", "pandas", "papermill", "helpers", "tensorflow")
                  if __import__("importlib.util").util.find_spec(n)],
        "sees": [path for path in %r if __import__("os").path.exists(path)],
        "home": __import__("os").path.expanduser("~"),
        **{what: __import__("urllib.request").request.urlopen(
            __import__("urllib.request").request.Request(
                "http://" + __import__("os").environ["GCE_METADATA_HOST"]
                + "/computeMetadata/v1/instance/service-accounts/default/" + what,
                headers={"Metadata-Flavor": "Google"})).read().decode()
           for what in ("token", "email")},
    })]))"""


class Looker:
    """Pickled, it is an expression that makes the model."""

    def __init__(self, places: list[str]):
        self.places = places

    def __reduce__(self):
        return eval, (LOOK % self.places,)


def test_a_served_model_sees_what_its_image_has_and_has_an_identity(cloud, tmp_path):  # noqa: F811
    mine = tmp_path / "mine"
    mine.write_text("a file of the one who deploys")
    places = [str(mine), __file__, str(cloud.folder / "state.sqlite3")]
    cloud.request("POST", "/storage/v1/b?project=local", json_body={"name": "looker"})
    (cloud.folder / "buckets" / "looker" / "m").mkdir()
    joblib.dump(Looker(places), cloud.folder / "buckets" / "looker" / "m" / "model.joblib")
    image = "us-docker.pkg.dev/vertex-ai/prediction/sklearn-cpu.1-6:latest"
    model = {
        "displayName": "m",
        "artifactUri": "gs://looker/m",
        "containerSpec": {"imageUri": image},
    }
    place = f"/v1/{cloud.parent}"
    wait = cloud.session.wait
    _, upload = cloud.request("POST", f"{place}/models:upload", json_body={"model": model})
    name = wait(upload)["model"]
    _, made = cloud.request("POST", f"{place}/endpoints", json_body={"displayName": "looker"})
    endpoint = wait(made)["name"]
    resources = {"machineSpec": {"machineType": "n1-standard-2"}, "minReplicaCount": 1}
    body = {"deployedModel": {"model": name, "dedicatedResources": resources, "id": "1"},
            "trafficSplit": {"0": 100}}  # fmt: skip
    wait(cloud.request("POST", f"/v1/{endpoint}:deployModel", json_body=body)[1])
    _, answer = cloud.request("POST", f"/v1/{endpoint}:predict", json_body={"instances": [[1]]})
    seen = json.loads(answer["predictions"][0])
    assert seen["finds"] == ["sklearn", "pandas"]
    assert seen["home"] != os.path.expanduser("~")
    assert not HIDES or seen["sees"] == []
    assert seen["email"].endswith("@gcp-sa-aiplatform-cc.iam.gserviceaccount.com")
    headers = {"Authorization": f"Bearer {json.loads(seen['token'])['access_token']}"}
    assert cloud.request("GET", "/storage/v1/b/looker/o", headers=headers)[0] == 200
    undeploy = {"deployedModelId": "1"}
    wait(cloud.request("POST", f"/v1/{endpoint}:undeployModel", json_body=undeploy)[1])
    assert cloud.request("GET", "/storage/v1/b/looker/o", headers=headers)[0] == 401
    # As the account that a deployment or a batch prediction job names.
    account = {"serviceAccount": "mine@local.iam.gserviceaccount.com"}
    body["deployedModel"] |= account
    wait(cloud.request("POST", f"/v1/{endpoint}:deployModel", json_body=body)[1])
    _, answer = cloud.request("POST", f"/v1/{endpoint}:predict", json_body={"instances": [[1]]})
    assert json.loads(answer["predictions"][0])["email"] == account["serviceAccount"]
    (cloud.folder / "buckets" / "looker" / "rows.jsonl").write_text("[1]\n")
    job = {
        "displayName": "b", "model": name, "dedicatedResources": {
            "machineSpec": resources["machineSpec"]},
        "inputConfig": {"instancesFormat": "jsonl",
                        "gcsSource": {"uris": ["gs://looker/rows.jsonl"]}},
        "outputConfig": {"predictionsFormat": "jsonl",
                         "gcsDestination": {"outputUriPrefix": "gs://looker/out"}},
    }  # fmt: skip
    path = f"{place}/batchPredictionJobs"
    started = cloud.request("POST", path, json_body=job | account)[1]["name"]
    done = until(lambda: (j := cloud.request("GET", f"/v1/{started}")[1]).get("endTime") and j)
    folder = done["outputInfo"]["gcsOutputDirectory"].removeprefix("gs://")
    (line,) = (cloud.folder / "buckets" / folder).glob("prediction.results*")
    scored = json.loads(line.read_text())["prediction"]
    assert json.loads(scored)["email"] == account["serviceAccount"]
