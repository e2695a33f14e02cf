"""What the local cloud takes from the discovery documents agrees with Google's own proto types."""

import re

import pytest
from google.cloud.aiplatform_v1 import types

from helpers.emulator.front import app, calls, discovery
from helpers.emulator.front.filters import compile_filter
from helpers.emulator.front.rules import ENUM_NUMBERS

AIPLATFORM = discovery._documents("v1")[0]
REQUESTS = {
    "customJobs.create": types.CustomJob,
    "models.upload": types.UploadModelRequest,
    "models.patch": types.Model,
    "models.mergeVersionAliases": types.MergeVersionAliasesRequest,
    "endpoints.create": types.Endpoint,
    "endpoints.deployModel": types.DeployModelRequest,
    "endpoints.undeployModel": types.UndeployModelRequest,
    "endpoints.predict": types.PredictRequest,
    "batchPredictionJobs.create": types.BatchPredictionJob,
    "hyperparameterTuningJobs.create": types.HyperparameterTuningJob,
}


def messages() -> dict[str, tuple[dict, type]]:
    """Every schema reachable from a request's body, with its proto type."""
    found: dict[str, tuple[dict, type]] = {}
    methods = {method.id: method for method in discovery.methods("v1")}

    def walk(reference: str, message) -> None:
        if reference in found:
            return
        schema = AIPLATFORM["schemas"][reference]
        found[reference] = (schema, message)
        for name, about in schema.get("properties", {}).items():
            inner = about.get("items", about.get("additionalProperties", about))
            field = message.fields_by_camelcase_name.get(name)
            if "$ref" in inner and field is not None and field.message_type is not None:
                kind = field.message_type
                if kind.GetOptions().map_entry:
                    kind = kind.fields_by_name["value"].message_type
                walk(inner["$ref"], kind)

    for name, kind in REQUESTS.items():
        reference = methods[f"aiplatform.projects.locations.{name}"].about["request"]["$ref"]
        walk(reference, kind.pb().DESCRIPTOR)
    return found


MESSAGES = messages()


def test_required_fields_are_the_protos_required_fields():
    """proto-plus keeps the field comments in the class's docstring."""
    compared = 0
    for reference, (schema, message) in MESSAGES.items():
        kind = types
        for part in message.full_name.removeprefix("google.cloud.aiplatform.v1.").split("."):
            kind = getattr(kind, part, None)
        if kind is None or not kind.__doc__:
            continue
        for name, about in schema.get("properties", {}).items():
            if name not in message.fields_by_camelcase_name:
                continue  # newer than the installed types
            field = message.fields_by_camelcase_name[name].name
            comment = re.search(rf"\n\s+{field} \(.*?\):\n\s+(\w+\.?)", kind.__doc__)
            if comment:
                says_so = about.get("description", "").startswith("Required.")
                assert (comment[1] == "Required.") == says_so, f"{reference}.{name}"
                compared += 1
    assert compared > 200


def test_enum_numbers_are_the_protos_numbers():
    seen = 0
    for reference, (schema, message) in MESSAGES.items():
        for name, about in schema.get("properties", {}).items():
            names = about.get("enum") or about.get("items", {}).get("enum")
            if not names:
                continue
            values = message.fields_by_camelcase_name[name].enum_type.values_by_name
            numbers = ENUM_NUMBERS.get(names[0], {})
            for i, value in enumerate(names):
                assert numbers.get(value, i) == values[value].number, f"{reference}.{name}: {value}"
                seen += 1
    assert seen > 100


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ('displayName="a"', ["a"]),
        ("display_name=a", ["a"]),
        ('state="RUNNING" AND labels.phase=test', ["a"]),
        ("labels.phase:*", ["a", "b"]),
        ("NOT labels.phase=test", ["b", "c"]),
        ("displayName=a OR displayName=c", ["a", "c"]),
        ('(displayName="a" OR displayName="b") AND state!="RUNNING"', ["b"]),
        ("count>=2", ["b", "c"]),
        ('createTime>"2026-01-02"', ["c"]),
        ("-displayName=a", ["b", "c"]),
    ],
)
def test_filters(text, chosen):
    items = [
        {"displayName": "a", "state": "RUNNING", "labels": {"phase": "test"}, "count": 1,
         "createTime": "2026-01-01T00:00:00Z"},
        {"displayName": "b", "state": "DONE", "labels": {"phase": "live"}, "count": 2,
         "createTime": "2026-01-02"},
        {"displayName": "c", "state": "DONE", "count": 3, "createTime": "2026-01-03T00:00:00Z"},
    ]  # fmt: skip
    assert [item["displayName"] for item in items if compile_filter(text)(item)] == chosen


@pytest.mark.parametrize("text", ["(a=1", "a=", "=1", "a b", "a=1)", "AND", 'a="x'])
def test_what_is_not_a_filter_is_refused(text):
    with pytest.raises(ValueError, match=r".+"):
        compile_filter(text)


def test_every_method_with_a_handler_is_in_the_documents():
    app.App(None)
    known = {m.id for head in discovery.DOCUMENTS for m in discovery.methods(head)}
    handled = {name for name in discovery.HANDLERS if not name.startswith("operations.")}
    assert handled <= known, handled - known


def test_shared_paths_reach_the_emulated_service():
    """aiplatform, cloudbuild and artifactregistry answer at the same operations path."""
    app.App(None)
    method, values = discovery.find("GET", "v1/projects/p/locations/us-central1/operations/7")
    assert values == {"name": "projects/p/locations/us-central1/operations/7"}
    assert discovery.handler(method.id) is discovery.HANDLERS["operations.get"]
    alias, same = discovery.find("GET", "ui/projects/p/locations/us-central1/operations/7")
    assert (alias.id, same) == (method.id, values)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('displayName:"my_job_*"', True),
        ("displayName:job", True),
        ('displayName:"job_*"', False),
        ("labels:phase", True),
        ("labels:test", False),
        ('labels."phase"=test', True),
        ("versionAliases:default", True),
        ("versionAliases:def", False),
        ('createTime>"2026-01-02T03:04:05Z"', True),
        ('createTime>="2026-01-02T04:04:05.1234+01:00"', True),
        ('createTime<"2026-01-02"', False),
    ],
)
def test_filters_on_texts_maps_lists_and_times(text, found):
    item = {
        "displayName": "my_job_1", "labels": {"phase": "test"}, "versionAliases": ["default"],
        "createTime": "2026-01-02T03:04:05.1234Z",
    }  # fmt: skip
    assert compile_filter(text)(item) is found


@pytest.mark.parametrize(
    ("method", "query", "said"),
    [
        ("customJobs.list", "filter=state%3DX+AND+NOT+display_name%3D%22a%3Db%22", None),
        ("customJobs.list", "filter=startTime%3E1", "startTime|start_time"),
        ("models.list", "filter=model%3D1&orderBy=create_time+desc,displayName", None),
        ("models.list", "orderBy=versionId", "version_id; supported: create_time"),
        ("endpoints.list", 'filter=display_name%3D"a%3Db+c%3Dd"', None),
    ],
)
def test_lists_take_the_fields_their_documentation_names(method, query, said):
    methods = {m.id: m for m in discovery.methods("v1")}
    asked = methods[f"aiplatform.projects.locations.{method}"]
    if said is None:
        assert discovery.check_query(asked, query)
    else:
        with pytest.raises(calls.ApiError, match=said):
            discovery.check_query(asked, query)
