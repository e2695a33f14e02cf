"""Every field, parameter and header that a client may send to Cloud Storage is sent: it is kept and
honoured, or kept and listed as without effect, or the service's own, or refused with 501.
"""

import base64
import functools
import hashlib
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import google_crc32c
import httplib2
import orjson
import pytest

from helpers.emulator.front import app, discovery
from helpers.emulator.services import storage_fields as tables
from tests.emulator.conftest import Emulator

app.App(None)
METHODS = {m.id: m for m in discovery.methods("storage") if m.id in discovery.HANDLERS}
SCHEMAS = METHODS["storage.buckets.get"].document["schemas"]
FIDELITY = Path(__file__).parents[2] / "docs" / "fidelity.md"
CONTENT = b"x"
CRC32C = base64.b64encode(google_crc32c.Checksum(CONTENT).digest()).decode()
MD5 = base64.b64encode(hashlib.md5(CONTENT, usedforsecurity=False).digest()).decode()
# Values that a field takes, where any other of its type is refused.
SAMPLES = {
    "storageClass": "NEARLINE", "rpo": "ASYNC_TURBO", "location": "EU", "crc32c": CRC32C,
    "publicAccessPrevention": "enforced", "customTime": "2026-01-02T03:04:05.000000Z",
    "md5Hash": MD5, "version": 3,
}  # fmt: skip
PLACEMENT = {"dataLocations": ["x"]}
# Which tests show what honoured parameters do; fields are shown by the tests below.
SHOWN = {
    "test_sdk_storage.py::test_lists_by_prefix_delimiter_glob_and_page":
        "prefix delimiter maxResults pageToken startOffset endOffset matchGlob fields",
    "test_sdk_storage.py::test_policies_are_kept": "permissions",
    "test_sdk_objects.py::test_conditions_of_policies": "optionsRequestedPolicyVersion",
    "test_sdk_storage.py::test_buckets_are_made_found_changed_and_deleted_with_what_is_in_them":
        "project",
    "test_sdk_objects.py::test_placeholders_of_folders": "includeTrailingDelimiter",
    "test_sdk_objects.py::test_what_was_replaced_is_a_version": "versions generation",
    "test_sdk_objects.py::test_the_query_names_the_encoding_of_a_simple_upload":
        "contentEncoding name uploadType",
    "test_sdk_objects.py::test_compressed_objects_are_read_as_they_were_before": "alt",
    "test_buckets.py::test_a_resumable_upload_continues_where_it_stopped": "upload_id",
    "test_sdk_objects.py::test_copies_keep_settings_unless_told_otherwise":
        "sourceGeneration ifSourceGenerationMatch ifSourceGenerationNotMatch "
        "ifSourceMetagenerationMatch ifSourceMetagenerationNotMatch ifGenerationMatch",
    "test_sdk_objects.py::test_a_read_of_what_is_as_before_answers_304_a_write_412":
        "ifGenerationNotMatch ifMetagenerationNotMatch ifMetagenerationMatch",
}  # fmt: skip
SHOWN_HEADERS = {
    "test_sdk_objects.py::test_compressed_objects_are_read_as_they_were_before":
        "accept-encoding range",
    "test_buckets.py::test_a_wrong_checksum_stores_nothing": "x-goog-hash content-md5",
    "test_buckets.py::test_a_resumable_upload_continues_where_it_stopped": "content-range",
    "test_sdk_storage.py::test_blobs_with_metadata": "content-type",
    "test_sdk_objects.py::test_settings_of_an_upload_are_kept": "x-upload-content-type",
    "test_sdk_objects.py::test_etags_guard_changes": "if-match if-none-match",
}  # fmt: skip


def leaves(schema: dict, at: str = "") -> Iterator[tuple[str, dict]]:
    """(place, schema) of every field of a message; lists end in [], maps in .k"""
    schema = SCHEMAS[schema["$ref"]] if "$ref" in schema else schema
    if schema.get("type") == "object":
        for name, inner in schema.get("properties", {}).items():
            yield from leaves(inner, f"{at}.{name}" if at else name)
        if "additionalProperties" in schema:
            yield from leaves(schema["additionalProperties"], f"{at}.k")
    elif schema.get("type") == "array":
        yield from leaves(schema["items"], f"{at}[]")
    else:
        yield at, schema


def sample(place: str, schema: dict) -> Any:
    name = place.rsplit(".", 1)[-1]
    if name in SAMPLES:
        return SAMPLES[name]
    if "enum" in schema:
        return schema["enum"][-1]
    by_format = {"date-time": "2026-01-02T03:04:05Z", "date": "2026-01-02", "int32": 7,
                 "int64": "7", "uint64": "7", "byte": "eA=="}  # fmt: skip
    by_type = {"boolean": True, "integer": 7, "string": "x"}
    return by_format.get(schema.get("format"), by_type[schema["type"]])


def nested(place: str, value: Any) -> dict:
    """A message with one field set."""
    for part in reversed(place.split(".")):
        value = {part.removesuffix("[]"): [value] if part.endswith("[]") else value}
    return value


def at(message: Any, place: str) -> Any:
    for part in place.split("."):
        message = (message or {}).get(part.removesuffix("[]"))
        if part.endswith("[]"):
            message = message[0] if message else None
    return message


def listed(schema: str, place: str) -> str:
    """What the tables say of a field."""
    plain = re.sub(r"\[\]|\.k$", "", place)
    above = [plain.rsplit(".", i)[0] for i in range(plain.count(".") + 1)]
    if set(above) & tables.ASSIGNED[schema]:
        return "ignored"
    kept = tables.HONOURED[schema] | set(tables.WITHOUT_EFFECT[schema])
    return "kept" if set(above) & kept else "refused"


class Storage:
    """A bucket and an object, and one call with one field set."""

    def __init__(self, emulator: Emulator):
        self.emulator = emulator
        self.bucket = self.new_bucket()["name"]
        self.insert("source", {"storageClass": "NEARLINE"})

    def request(self, verb: str, path: str, body: Any = None) -> dict:
        status, answer = self.emulator.request(verb, f"/storage/v1/{path}", json_body=body)
        return answer | {"status": status}

    def new_bucket(self, body: dict | None = None) -> dict:
        made = {"name": f"b-{uuid.uuid4().hex[:12]}", "location": "EU"} | (body or {})
        return self.request("POST", "b?project=local", made)

    def insert(self, name: str, body: dict) -> dict:
        """A resumable upload, whose first call takes the fields."""
        path = f"/upload/storage/v1/b/{self.bucket}/o?uploadType=resumable&name={name}"
        answer, content = httplib2.Http().request(
            f"{self.emulator.url}{path}", "POST", orjson.dumps(body),
            {"Authorization": f"Bearer {self.emulator.token}"},
        )  # fmt: skip
        if answer.status != 200:
            return orjson.loads(content) | {"status": answer.status}
        address = answer["location"].removeprefix(self.emulator.url)
        status, made = self.emulator.request("PUT", address, body=CONTENT)
        return made | {"status": status}

    def send(self, method: str, body: dict, name: str) -> dict:
        """The resource after a call, and the call's status."""
        resource, verb = method.split(".")[1:]
        object_path = f"b/{self.bucket}/o/source"
        if resource == "buckets":
            if verb == "insert":
                return self.new_bucket(body)
            named = {"name": body["name"]} if "name" in body else {}
            bucket = self.new_bucket({"customPlacementConfig": PLACEMENT} | named)["name"]
            return self.request({"patch": "PATCH", "update": "PUT"}[verb], f"b/{bucket}", body)
        if verb == "insert":
            return self.insert(name, body)
        if verb in ("patch", "update"):
            self.insert(name, {"storageClass": "NEARLINE"})
            path = f"b/{self.bucket}/o/{name}"
            return self.request({"patch": "PATCH", "update": "PUT"}[verb], path, body)
        if verb == "compose":
            path = f"b/{self.bucket}/o/{name}/compose"
            asked = {"sourceObjects": [{"name": "source"}], "destination": body}
            return self.request("POST", path, asked)
        path = f"{object_path}/{verb}To/b/{self.bucket}/o/{name}"
        made = self.request("POST", path, body)
        return made if verb == "copy" else made | made.get("resource", {})


WITH_BODY = {
    name: method.about["request"]["$ref"] for name, method in METHODS.items()
    if "request" in method.about and name != "storage.buckets.setIamPolicy"
}  # fmt: skip


@pytest.mark.parametrize("method", WITH_BODY)
def test_every_field_is_kept_or_refused(emulator, method):
    storage, wrong = Storage(emulator), []
    schema = WITH_BODY[method].replace("ComposeRequest", "Object")
    for number, (place, about) in enumerate(leaves({"$ref": schema})):
        value = sample(place, about)
        if schema == "Bucket" and place == "name":
            value = f"b-{uuid.uuid4().hex[:12]}"
        body = nested(place, value)
        answer = storage.send(method, body, f"n{number}")
        found = {501: "refused", 200: "ignored"}.get(answer["status"], answer)
        if found == "ignored" and at(answer, place) == value:
            found = "kept"
        expected = listed(schema, place)
        if place == "name" and not isinstance(found, dict) and schema == "Object":
            continue  # the path's counts
        if method.endswith("compose") and place in ("md5Hash", "crc32c"):
            continue  # of what comes out
        if found != expected:
            wrong.append((place, value, expected, found))
    assert not wrong, "\n".join(map(str, wrong))


def test_every_field_of_a_policy_is_kept_or_the_services_own(emulator):
    storage = Storage(emulator)
    bucket = storage.new_bucket(
        {"iamConfiguration": {"uniformBucketLevelAccess": {"enabled": True}}}
    )["name"]
    condition = {"title": "t", "expression": "true", "description": "d", "location": "l"}
    binding = {"role": "roles/x", "members": ["user:a@example.com"], "condition": condition}
    body = {"version": 3, "bindings": [binding], "kind": "x", "resourceId": "x"}
    places = {place for place, _ in leaves({"$ref": "Policy"})}
    sent = {p for p in places if at(body, p) is not None}
    assert places - sent == {"etag"}  # test_sdk_storage.py::test_policies_are_kept
    made = storage.request("PUT", f"b/{bucket}/iam", body)
    for place in sent:
        kept = at(made, place) == at(body, place)
        assert kept == (listed("Policy", place) == "kept"), place


def parameters(method: str) -> dict[str, dict]:
    """Those of a method's query, with those of every method."""
    about = METHODS[method].about.get("parameters", {})
    own = {name: p for name, p in about.items() if p["location"] == "query"}
    return own | METHODS[method].document["parameters"]


@pytest.mark.parametrize("method", METHODS)
def test_parameters_that_are_in_no_list_are_refused(emulator, method):
    known = tables.HONOURED_QUERY | set(tables.QUERY_WITHOUT_EFFECT)
    about = METHODS[method].about
    path = re.sub(r"{\+?\w+}", "nothing", about["path"])
    verb, upload = about["httpMethod"], "/upload" * method.endswith("objects.insert")
    for name in parameters(method).keys() - known:
        value = sample(name, parameters(method)[name])
        project = "project=p&" * ("project" in parameters(method))
        query = f"?{project}{name}={str(value).lower() if value is True else value}"
        status, error = emulator.request(verb, f"{upload}/storage/v1/{path}{query}")
        assert (status, name in error["error"]["message"]) == (501, True), (name, error)


def test_parameters_without_effect_have_none(emulator):
    storage = Storage(emulator)
    samples = {name: about for method in METHODS for name, about in parameters(method).items()}
    path = f"b/{storage.bucket}"
    plain = {p: storage.request("GET", p) for p in (path, f"{path}/o", f"{path}/o/source")}
    for p, answer in plain.items():
        kind = {path: "buckets.get", f"{path}/o": "objects.list"}.get(p, "objects.get")
        for name in tables.QUERY_WITHOUT_EFFECT.keys() & parameters(f"storage.{kind}").keys():
            value = str(sample(name, samples[name])).lower()
            value = "full" if name == "projection" else value
            assert storage.request("GET", f"{p}?{name}={value}") == answer, name
    names = {name for method in METHODS for name in parameters(method)}
    assert set(tables.QUERY_WITHOUT_EFFECT) <= names | discovery.COMMON_QUERY
    assert names | discovery.COMMON_QUERY >= tables.HONOURED_QUERY


def test_every_honoured_parameter_and_header_is_shown_by_a_test():
    assert set(" ".join(SHOWN.values()).split()) == tables.HONOURED_QUERY
    assert set(" ".join(SHOWN_HEADERS.values()).split()) == tables.HONOURED_HEADERS
    for place in [*SHOWN, *SHOWN_HEADERS]:
        file, test = place.split("::")
        assert f"def {test}(" in _text(file), place


@functools.cache
def _text(file: str) -> str:
    return (Path(__file__).parent / file).read_text()


@pytest.mark.parametrize(
    "header", ["x-goog-encryption-algorithm", "x-goog-copy-source-encryption-key"]
)
def test_keys_of_customers_are_refused(emulator, header):
    storage = Storage(emulator)
    top = f"/storage/v1/b/{storage.bucket}/o"
    for verb, path in (
        ("GET", f"{top}/source"), ("GET", f"{top}/source?alt=media"), ("PATCH", f"{top}/source"),
        ("POST", f"{top}/source/rewriteTo/b/{storage.bucket}/o/two"),
        ("POST", f"/upload{top}?uploadType=media&name=two"),
    ):  # fmt: skip
        status, error = emulator.request(verb, path, body="", headers={header: "AES256"})
        assert (status, header in error["error"]["message"]) == (501, True), (verb, path)


def test_places_in_the_tables_exist_and_are_in_one_of_them():
    for schema, honoured in tables.HONOURED.items():
        places = {re.sub(r"\.k$", "", place) for place, _ in leaves({"$ref": schema})}
        other = tables.ASSIGNED[schema], set(tables.WITHOUT_EFFECT[schema])
        assert not honoured & (other[0] | other[1])
        for place in honoured | other[0] | other[1]:
            below = f"{place}."
            assert any(f"{p}.".startswith((below, f"{place}[]")) for p in places), (schema, place)


def test_the_page_lists_what_has_no_effect():
    names = [f"{s}.{n}" for s, table in tables.WITHOUT_EFFECT.items() for n in table]
    text = FIDELITY.read_text()
    section = text.split("\n## google-cloud-storage\n")[1].split("\n## ")[0]
    rows = re.findall(r"(?m)^\| (?:the header )?`([^`]+)`(?: in the query)? \| ", section)
    every = [*names, *tables.QUERY_WITHOUT_EFFECT, *tables.HEADERS_WITHOUT_EFFECT]
    assert [name for name in rows if name in every] == every
