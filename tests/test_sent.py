"""Every aiplatform call our helpers send, and every answer to it, fits the official types."""

import json
import re
import uuid
from urllib.parse import urlsplit

import google_auth_httplib2
import pytest
from google.cloud import aiplatform_v1, aiplatform_v1beta1
from google.protobuf import json_format

import helpers
from helpers.emulator.front import app, discovery
from tests.test_train import SMALL, notebook

SINGULAR = {
    "customJobs": "CustomJob", "models": "Model", "endpoints": "Endpoint",
    "batchPredictionJobs": "BatchPredictionJob",
    "hyperparameterTuningJobs": "HyperparameterTuningJob",
}  # fmt: skip
VERBS = {
    "create": "Create{0}", "get": "Get{0}", "list": "List{0}s", "delete": "Delete{0}",
    "patch": "Update{0}", "cancel": "Cancel{0}", "upload": "Upload{0}",
    "listVersions": "List{0}Versions", "deleteVersion": "Delete{0}Version",
}  # fmt: skip
TYPES = {"v1": aiplatform_v1.types, "v1beta1": aiplatform_v1beta1.types}


def as_proto(method: str, path: str, query: str, body: dict):
    """A call as the message Google's own clients would send; strict in every name and type.

    Raises:
        json_format.ParseError: a name or a value that is none of the message's.
    """
    found, values = discovery.find(method, path)
    asked = discovery.check_query(found, query)
    *_, collection, verb = found.id.split(".")
    kind = SINGULAR[collection]
    name = VERBS.get(verb, verb[0].upper() + verb[1:]).format(kind) + "Request"
    given = values | {key: value for key, value in asked.items() if key not in ("alt", "$alt")}
    if verb in ("create", "patch"):
        field = kind[0].lower() + kind[1:]
        own = {"name": given.pop("name")} if verb == "patch" else {}
        given[field] = body | own
    else:
        given |= body
    message = getattr(TYPES[path.split("/")[0]], name).pb()()
    return json_format.ParseDict(given, message, ignore_unknown_fields=False)


def answer_as_proto(method_id: str, answer: dict, version: str):
    """An answer as the message Google's own clients would read; as strict."""
    *_, collection, verb = method_id.split(".")
    kind = SINGULAR.get(collection, "")
    if "done" in answer or collection == "operations":  # the operation holds a message of its own
        known = {"name", "metadata", "done", "response", "error"}
        assert set(answer) <= known, set(answer) - known
        answer = dict(answer.get("response", {"@type": "google.protobuf.Empty"}))
        name = answer.pop("@type").rsplit(".", 1)[-1]
        if name == "Empty":
            assert answer == {}
            return None
    elif verb in ("list", "listVersions"):
        name = f"{VERBS[verb].format(kind)}Response"
    elif verb == "predict":
        name = "PredictResponse"
    elif verb == "cancel":
        assert answer == {}
        return None
    else:
        name = kind
    message = getattr(TYPES[version], name).pb()()
    return json_format.ParseDict(answer, message, ignore_unknown_fields=False)


def unknown_names(document: dict, schema: dict, value, where: str = "") -> list[str]:
    """Fields of an answer that its service's discovery document does not have."""
    schema = document["schemas"][schema["$ref"]] if "$ref" in schema else schema
    if isinstance(value, list):
        parts = [(schema.get("items", {}), item, where) for item in value]
    elif isinstance(value, dict) and ("properties" in schema or "additionalProperties" in schema):
        known, free = schema.get("properties", {}), schema.get("additionalProperties")
        parts = [(known.get(k, free), v, f"{where}.{k}") for k, v in value.items()]
    else:
        return []
    unknown = [place for part, _, place in parts if part is None]
    inner = [unknown_names(document, *part) for part in parts if part[0] is not None]
    return sum(inner, unknown)


def fits(method: str, place: str, query: str, body, answer: bytes) -> tuple[str, str]:
    """Asserts that a call and its answer are of the official types.

    Returns:
        the service, and the method without it, such as `models.upload`.
    """
    (found, *_), known = discovery.find(method, re.sub(r"^(resumable/)?upload/", "", place)), {}
    service, *_, collection, verb = found.id.split(".")
    if answer.startswith(b"{") and "alt=media" not in query and verb != "rawPredict":
        known = json.loads(answer)
        assert unknown_names(found.document, found.about["response"], known) == []
    if service == "aiplatform" and verb != "rawPredict":  # its bodies are the model server's own
        if collection != "operations":
            assert as_proto(method, place, query, json.loads(body) if body else {})
        answer_as_proto(found.id, known, place.split("/")[0])
    return service, f"{collection}.{verb}"


@pytest.fixture
def sent(monkeypatch):
    """(HTTP method, path, query, body, answer) of every call that succeeded."""
    calls, plain = [], google_auth_httplib2.AuthorizedHttp.request

    def request(self, uri, method="GET", body=None, *arguments, **named):
        place = urlsplit(uri)
        answer, content = plain(self, uri, method, body, *arguments, **named)
        if answer.status == 200:
            calls.append((method, place.path.lstrip("/"), place.query, body, content))
        return answer, content

    monkeypatch.setattr(google_auth_httplib2.AuthorizedHttp, "request", request)
    return calls


def test_jobs_and_their_ends_in_the_official_types(session, sent, tmp_path):
    """With all that a job may be asked for; the rest of the road is looked at in
    tests/test_google.py."""
    app.App(None)
    path = notebook(tmp_path, f"sent-{uuid.uuid4().hex[:6]}.ipynb", SMALL)
    settings = {"machine_type": "n1-standard-8", "accelerator": "NVIDIA_TESLA_T4", "spot": True}
    about = {"labels": {"phase": "test"}, "timeout_s": 600, "wait": False}
    job = helpers.train(session, str(path), **about, **settings)
    helpers.find_job(session, job.number).cancel()
    assert job.resource()["labels"]["phase"] == "test"
    search = {"EPOCHS": (1, 9)}
    helpers.tune(session, str(path), search=search, metric="epochs", trials=1).cancel()
    seen = {called for service, called in (fits(*call) for call in sent) if service == "aiplatform"}
    assert seen >= {
        "customJobs.create", "customJobs.get", "customJobs.cancel",
        "hyperparameterTuningJobs.create", "hyperparameterTuningJobs.cancel",
    }  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"displayname": "x"},
        {"jobSpec": {"scheduling": {"timeout": 60}}},
        {"jobSpec": {"workerPoolSpecs": [{"replicaCount": "one"}]}},
        {"jobSpec": {"workerPoolSpecs": [{"machineSpec": {"acceleratorType": "T4"}}]}},
    ],
)
def test_a_body_with_a_mistake_is_noticed(change):
    path = "v1/projects/local/locations/us-central1/customJobs"
    assert as_proto("POST", path, "", {"displayName": "x"})
    with pytest.raises(json_format.ParseError):
        as_proto("POST", path, "", change)
