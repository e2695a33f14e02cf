"""What no client should send: bodies, paths, headers and names drawn at random, and known bad ones.

Never a 500, never silence, never a file outside the buckets.
"""

import contextlib
import json
import os
import socket
import uuid
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers import storage
from helpers.cloud import buckets
from helpers.emulator.front import app, discovery
from tests.emulator.conftest import start

PARENT = "/v1/projects/local/locations/us-central1"
FORMS = [pytest.param(150, id="short"), pytest.param(3500, id="long", marks=pytest.mark.soak)]
ODD = [
    "..", "../x", "../../etc/passwd", "/etc/passwd", "a/../../x", "a//b", "./a", "a/.", "a/", "/",
    "", "%2e%2e/x", "..%2fx", "a\x00b", "a\nb", "x" * 255, "x/" * 500, "x" * 1025, "é" * 512,
    "ü/日本/🙂", "\ud800", "\u202e", "con", "a b", "a?b", "a#b", "~root/x", "$(x)", "`x`", "-rf",
    "*", "C:\\x", ".git/x", "gs://b/x", "\\..\\x", "@", "models/1@2", "0", "-1", "1e400", "NaN",
]  # fmt: skip
TEXTS = st.sampled_from(ODD) | st.text(max_size=30)
app.App(None)  # registers the methods
METHODS = {
    method.id: method for head in discovery.DOCUMENTS for method in discovery.methods(head)
    if method.id in discovery.HANDLERS and not method.id.startswith("cloudbuild")
}  # fmt: skip
KINDS = ("CustomJob", "CustomJobSpec", "WorkerPoolSpec", "Model", "Endpoint", "DeployedModel")
NAMES = sorted({
    name for document in {id(m.document): m.document for m in METHODS.values()}.values()
    for kind, schema in document["schemas"].items() if kind.endswith(KINDS)
    for name in schema["properties"]
} | {"model", "deployedModel", "trafficSplit", "bindings", "policy", "metadata"})  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(NAMES) | TEXTS, inner, max_size=4)
    ),
    max_leaves=12,
)
HEADERS = st.dictionaries(
    st.sampled_from(["Range", "Content-Range", "Content-Type", "X-Goog-Hash", "Accept-Encoding",
                     "X-Upload-Content-Type", "X-HTTP-Method-Override", "If-Match", "Cookie"]),
    st.sampled_from(["bytes=-1", "bytes=9-1", "bytes=a-b", "bytes */*", "bytes 0-9/5",
                     "bytes 5-1/*", "bytes 0-99999999999999999999/*", "multipart/related",
                     "text/\u00ff", "multipart/related; boundary=", "multipart/related; boundary=x",
                     "crc32c=AAAA", "md5=?", "gzip;q=x", "*"])
    | st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"),
              max_size=40),
    max_size=3,
)  # fmt: skip

HEADS = [
    "/v1", "/storage/v1/b", "/upload/storage/v1/b", "/v2", "/ui", "/", "", PARENT,
    f"{PARENT}/models", f"{PARENT}/endpoints/there", "/storage/v1/b/local-bucket/o/there",
    "/download/storage/v1/b/local-bucket/o/there", "/upload/storage/v1/b/local-bucket/o",
]  # fmt: skip
QUERY = st.sampled_from([
    "filter", "orderBy", "pageSize", "pageToken", "readMask", "uploadType", "updateMask", "prefix",
    "delimiter", "matchGlob", "maxResults", "alt", "generation", "ifGenerationMatch", "name",
    "upload_id", "startOffset",
])  # fmt: skip
VALUES = st.sampled_from([
    "media", "resumable", "multipart", "a=b", "a:*", "((", "[", "{a,", "**", "json;x",
    "displayName desc", "createTime>1",
])  # fmt: skip


@pytest.fixture(scope="module")
def cloud(tmp_path_factory):
    """A local cloud of its own, in a folder where nothing else may appear."""
    running = start(tmp_path_factory.mktemp("malformed") / "state")
    buckets.create_bucket(running.session)
    storage.write_bytes(running.session, b"content", "gs://local-bucket/there")
    for name in ("there", "kept"):  # calls that are drawn may delete the first
        path = f"{PARENT}/endpoints?endpointId={name}"
        running.request("POST", path, json_body={"displayName": "e"})
    before = {path.name for path in running.folder.iterdir()}
    yield running
    assert {path.name for path in running.folder.iterdir()} <= before | {"jobs", "logs", "batch"}
    assert {path.name for path in running.folder.parent.iterdir()} == {"state", "state.log"}
    status, _ = running.request("GET", "/storage/v1/b?project=local")
    assert status == 200
    assert "Traceback" not in running.folder.with_name("state.log").read_text()
    running.stop()


def send(cloud, verb: str, path: bytes, body: bytes = b"", headers: dict | None = None) -> int:
    """The status of a call made of these very bytes; silence is a failure."""
    sent = {"Host": "127.0.0.1", "Authorization": f"Bearer {cloud.token}", "Connection": "close",
            "Content-Length": str(len(body))} | (headers or {})  # fmt: skip
    lines = [f"{name}: {value}".encode("latin-1", "replace") for name, value in sent.items()]
    address = ("127.0.0.1", int(cloud.url.rsplit(":", 1)[1]))
    with socket.create_connection(address, timeout=60) as connection:
        head = b"%b %b HTTP/1.1\r\n%b\r\n\r\n" % (verb.encode(), path, b"\r\n".join(lines))
        with contextlib.suppress(OSError):  # refused while it was being sent
            connection.sendall(head + body)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    assert answer.startswith(b"HTTP/1.1 "), (path, answer[:100])
    status = int(answer[9:12])
    assert status < 500 or status == 501, (verb, path, body[:300], headers, answer[-600:])
    return status


def trying(examples: int, **strategies):
    """Run a function on that many examples; the same ones in the short form, others in the long."""

    def run(function) -> None:
        found = given(**strategies)(function)
        settings(
            max_examples=examples, deadline=None, database=None, derandomize=examples < 1000,
            suppress_health_check=list(HealthCheck),
        )(found)()  # fmt: skip

    return run


def raw(text: str) -> bytes:
    """A path or query as bytes, percent-encoded only where HTTP could not carry it."""
    return quote(text.encode("utf-8", "surrogatepass"), safe="/:@%?&=*").encode()


@pytest.mark.parametrize("examples", FORMS)
def test_bodies(cloud, examples):
    @trying(
        examples, method_id=st.sampled_from(sorted(METHODS)), name=TEXTS,
        body=JSON | st.binary(max_size=50),
    )  # fmt: skip
    def example(method_id, body, name) -> None:
        method = METHODS[method_id]
        content = body if isinstance(body, bytes) else dumps(body)
        path = method.document["servicePath"] + method.about["path"]
        for key, about in method.about.get("parameters", {}).items():
            given = {"bucket": "local-bucket"}.get(key) or plausible(about) or raw(name).decode()
            path = path.replace(f"{{+{key}}}", given).replace(f"{{{key}}}", given)
        send(cloud, method.about["httpMethod"], b"/" + path.encode(), content)


@pytest.mark.parametrize("examples", FORMS)
def test_paths_queries_and_headers(cloud, examples):
    @trying(
        examples, verb=st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "BREW"]),
        head=st.sampled_from(HEADS), parts=st.lists(TEXTS, max_size=3), headers=HEADERS,
        query=st.lists(st.tuples(QUERY | TEXTS, VALUES | TEXTS), max_size=3),
        body=st.binary(max_size=60),
    )  # fmt: skip
    def example(verb, head, parts, headers, query, body) -> None:
        path = "/".join([head, *parts]) if parts else head
        if query:
            path += "?" + "&".join(f"{name}={value}" for name, value in query)
        if verb == "DELETE" and "there" in path:
            verb = "GET"
        send(cloud, verb, raw(path if path.startswith("/") else f"/{path}"), body, headers)


@pytest.mark.parametrize("examples", FORMS)
def test_object_names(cloud, examples):
    outside = f"/tmp/{uuid.uuid4().hex}"

    @trying(
        examples, name=TEXTS | st.lists(TEXTS, max_size=4).map("/".join) | st.just(outside),
        how=st.sampled_from(["media", "multipart", "resumable", "rewrite"]), twice=st.booleans(),
    )  # fmt: skip
    def example(name, how, twice) -> None:
        quoted = quote(name.encode("utf-8", "surrogatepass"), safe="")
        quoted = quote(quoted, safe="") if twice else quoted
        path, headers, body = f"/upload/storage/v1/b/local-bucket/o?uploadType={how}", {}, b"x"
        if how == "multipart":
            about = dumps({"name": name})
            body = b"--b\r\n\r\n%b\r\n--b\r\nContent-Type: a/b\r\n\r\nx\r\n--b--" % about
            headers = {"Content-Type": "multipart/related; boundary=b"}
        elif how == "rewrite":
            path = f"/storage/v1/b/local-bucket/o/there/rewriteTo/b/local-bucket/o/{quoted}"
            body = b""
        else:
            path, body = f"{path}&name={quoted}", b"x" if how == "media" else b"{}"
        status = send(cloud, "POST", path.encode(), body, headers)
        place = f"/storage/v1/b/local-bucket/o/{quoted}".encode()
        found = send(cloud, "GET", place)
        if status == 200 and how in ("media", "rewrite") and name and (how == "media" or not twice):
            assert found == 200, name
        send(cloud, "GET", f"/storage/v1/b/local-bucket/o?prefix={quoted}".encode())
        if name != "there":
            send(cloud, "DELETE", place)
        assert not os.path.exists(outside)

    top = cloud.folder / "buckets" / "local-bucket"
    assert all(path.resolve().is_relative_to(top.resolve()) for path in top.rglob("*"))
    assert {path.name for path in top.parent.iterdir()} == {"local-bucket"}


@pytest.mark.parametrize(
    "path",
    [f"{PARENT}/customJobs", f"{PARENT}/endpoints/kept:predict",
     f"{PARENT}/endpoints/kept:rawPredict", "/storage/v1/b?project=local",
     "/upload/storage/v1/b/local-bucket/o?uploadType=resumable&name=x"],
)  # fmt: skip
@pytest.mark.parametrize("said", ["1000000000", "-1", "many", "9" * 30])
def test_a_body_too_large_for_its_route_is_refused_unread(cloud, path, said):
    assert send(cloud, "POST", path.encode(), headers={"Content-Length": said}) in (400, 413)


def plausible(about: dict) -> str:
    """A path parameter that its pattern accepts, where it has one."""
    pattern = about.get("pattern", "").strip("^$")
    return pattern.replace("[^/]+", "local", 1).replace("[^/]+", "us-central1", 1).replace(
        "[^/]+", "there").replace("/.*", "")  # fmt: skip


def dumps(value) -> bytes:
    return json.dumps(value).encode("utf-8", "surrogatepass")
