"""Who is let in, what a form needs, what a page may do: the console holds the token's power."""

import json
import os
import re
import socket
import stat
import uuid
from pathlib import Path
from urllib.parse import quote, urlsplit

import httplib2
import psutil
import pytest

from helpers import storage
from helpers.cloud import console
from helpers.cloud.names import LABELS
from tests.console.conftest import NASTY, Visitor, console_pid, ended, job, store, words

PAGES = ["", "jobs", "models", "endpoints", "buckets", "costs"]


def test_an_address_opens_once(cloud):
    address = console.address(cloud, "jobs")
    answer, page = httplib2.Http().request(address)
    cookie = answer["set-cookie"]
    assert "HttpOnly" in cookie
    assert "samesite=strict" in cookie.lower()
    assert b"url=p/local/us-central1/jobs" in page
    answer, page = httplib2.Http().request(address)
    assert (answer.status, "set-cookie" in answer) == (401, False)
    assert b"has been used" in page
    kept = {"Cookie": cookie.split(";")[0]}
    answer, page = httplib2.Http().request(address, headers=kept)  # whoever is in may come again
    assert (answer.status, "set-cookie" in answer) == (200, False)


@pytest.mark.parametrize("change", ["code", "signature", "age"])
def test_an_address_that_was_not_given_opens_nothing(cloud, change):
    address = console.address(cloud)
    code = re.search(r"code=([^&]+)", address)[1]
    forged = {
        "code": "6b0a0cdf-00000000." + code.split(".")[1],
        "signature": code.split(".")[0] + "." + "0" * 32,
        "age": "00000001-" + code.split("-", 1)[1],
    }[change]
    answer, _ = httplib2.Http().request(address.replace(code, forged))
    assert (answer.status, "set-cookie" in answer) == (401, False)


@pytest.mark.parametrize("to", ["https://example.com/", "//example.com", "javascript:alert(1)",
                                'p/local/us-central1/"><script>', "../../x"])  # fmt: skip
def test_an_address_leads_only_to_the_console(cloud, to):
    address = console.address(cloud).split("&to=")[0]
    _, page = httplib2.Http().request(f"{address}&to={quote(to)}")
    assert b'url=p/local/us-central1/"' in page


@pytest.mark.parametrize("path", [*PAGES, "jobs/training/1/live", "buckets/b/raw?name=x"])
@pytest.mark.parametrize("cookie", [None, "console-x=y", "old"])
def test_nobody_looks_without_the_cookie(cloud, visitor, path, cookie):
    sent = visitor.headers["Cookie"].partition("=")[0] + "=old" if cookie == "old" else cookie
    status, page = visitor.get(path, Cookie=sent)
    assert status == 401
    assert "helpers.console(session)" in page


@pytest.mark.parametrize("host", ["example.com", "127.0.0.1.example.com", "169.254.169.254", ""])
def test_other_hosts_are_refused(visitor, host):
    address = urlsplit(visitor.base)
    with socket.create_connection((address.hostname, address.port)) as raw:
        cookie = visitor.headers["Cookie"]
        raw.sendall(f"GET {address.path} HTTP/1.1\r\nHost: {host}\r\nCookie: {cookie}\r\n"
                    "Connection: close\r\n\r\n".encode())  # fmt: skip
        assert b" 421 " in raw.makefile("rb").readline()


def test_it_listens_on_loopback_alone_and_keeps_its_secret_to_its_owner(visitor):
    process = psutil.Process(console_pid())
    places = {c.laddr.ip for c in process.net_connections() if c.status == psutil.CONN_LISTEN}
    assert places == {"127.0.0.1"}
    file = Path(os.environ["LOCAL_CLOUD_DIR"], console.FILE)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize("path", PAGES)
def test_a_page_can_run_and_fetch_nothing_of_others(visitor, path):
    answer, content = visitor.ask("GET", path)
    policy = answer["content-security-policy"]
    assert answer.status == 200
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert answer["x-content-type-options"] == "nosniff"
    page = content.decode()
    assert not re.search(r"<script(?![^>]*\bsrc=)", page)
    assert not re.search(r"<[^>]* (on\w+|style)=", re.sub(r'"[^"]*"', '""', page))
    found = re.findall(r'(?:src|href|action)="([^"]*)"', page)
    assert found
    assert not [url for url in found if url.startswith(("/", "http"))], "every link is relative"


def test_the_token_never_reaches_the_browser(cloud, visitor):
    token = json.loads(Path(os.environ["LOCAL_CLOUD_DIR"], "emulator.json").read_text())["token"]
    secret = json.loads(Path(os.environ["LOCAL_CLOUD_DIR"], console.FILE).read_text())["secret"]
    for path in PAGES:
        answer, content = visitor.ask("GET", path)
        said = content.decode() + str(answer)
        assert token not in said
        assert secret not in said


def forms(session) -> dict:
    """A change, what it asks for, and the job it would change."""
    number = job(session, "import time; time.sleep(600)", name="kept")
    return {"path": f"jobs/training/{number}/cancel", "number": number}


@pytest.fixture(scope="module")
def change(cloud):
    made = forms(cloud)
    yield made
    collection = cloud.collection("customJobs")
    name = f"{cloud.parent}/customJobs/{made['number']}"
    cloud.call(collection.cancel(name=name), repeatable=True)
    ended(cloud, made["number"])


@pytest.mark.parametrize(
    ("spoil", "status"),
    [
        ({"headers": {"Origin": "http://example.com"}}, 403),
        ({"headers": {"Sec-Fetch-Site": "cross-site"}}, 403),
        ({"headers": {"Sec-Fetch-Site": "same-site"}}, 403),
        ({"headers": {"Origin": "null"}}, 403),
        ({"token": ""}, 403),
        ({"token": "0" * 32}, 403),
        ({"shown": "0" * 64}, 409),
        ({"shown": None}, 409),
        ({"cookie": "old"}, 401),
    ],
)
def test_a_change_needs_our_own_form(cloud, visitor, change, spoil, status):
    form = visitor.form(change["path"])
    form |= {k: v for k, v in spoil.items() if k in form}
    headers = dict(spoil.get("headers", {}))
    if "cookie" in spoil:
        headers["Cookie"] = visitor.headers["Cookie"].partition("=")[0] + "=old"
    form = {k: v for k, v in form.items() if v is not None}
    answer, _ = visitor.post(change["path"], form, **headers)
    assert answer.status == status
    about = cloud.collection("customJobs").get(name=f"{cloud.parent}/customJobs/{change['number']}")
    assert cloud.call(about)["state"] in ("JOB_STATE_RUNNING", "JOB_STATE_PENDING")


def test_a_form_of_another_visitor_is_none_of_ours(cloud, visitor, change):
    other = Visitor(cloud).enter()
    form = other.form(change["path"])
    assert visitor.post(change["path"], form)[0].status == 403


def test_looking_at_a_change_makes_none(cloud, visitor, change):
    status, page = visitor.get(change["path"])
    assert status == 200
    assert "Cancel the training job kept? It is told to stop" in words(page)
    for verb in ("PUT", "DELETE", "PATCH"):
        assert visitor.ask(verb, change["path"])[0].status == 405
    about = cloud.collection("customJobs").get(name=f"{cloud.parent}/customJobs/{change['number']}")
    assert cloud.call(about)["state"] in ("JOB_STATE_RUNNING", "JOB_STATE_PENDING")


def test_nothing_is_removed_that_was_not_listed(cloud, visitor):
    endpoints = cloud.collection("endpoints")

    def make(name: str) -> None:
        body = {"displayName": name, "labels": LABELS}
        made = endpoints.create(parent=cloud.parent, endpointId=name, body=body)
        cloud.wait(cloud.call(made))

    make("listed")
    form = visitor.form("costs/clean-up")
    make("meanwhile")
    answer, page = visitor.post("costs/clean-up", form)
    assert answer.status == 409
    assert "changed meanwhile, so nothing was done" in words(page.decode())
    there = {
        item["displayName"] for item in cloud.list(endpoints, "endpoints", parent=cloud.parent)
    }
    assert {"listed", "meanwhile"} <= there
    assert "endpoint meanwhile is removed" in words(page.decode())
    assert visitor.post("costs/clean-up", visitor.form("costs/clean-up"))[0].status == 303
    assert "is removed" not in visitor.get("costs/clean-up")[1]


TRICKS = ["../secret", "..%2f..%2femulator.json", "/etc/passwd", "a/../../emulator.json", "a\0b",
          "....//....//emulator.json", "%2e%2e/emulator.json"]  # fmt: skip


@pytest.mark.parametrize("name", TRICKS)
@pytest.mark.parametrize("page", ["object", "raw"])
def test_no_path_leads_out_of_a_bucket(cloud, visitor, name, page):
    status, content = visitor.get(f"buckets/{cloud.bucket}/{page}?name={quote(name, safe='')}")
    assert status in (400, 404, 502)
    assert "token" not in content.lower() or page == "object"
    assert "root:" not in content
    status, _ = visitor.get(f"buckets/{quote('../..', safe='')}/object?name=emulator.json")
    assert status in (400, 404, 502)


def test_what_a_bucket_holds_is_boxed(cloud, visitor):
    store(cloud, "page.html", "<script>top.document.title='ran'</script><h1>Page</h1>")
    store(cloud, "drawn.svg", "<svg xmlns='http://www.w3.org/2000/svg'><script>1</script></svg>")
    for name in ("page.html", "drawn.svg"):
        answer, _ = visitor.ask("GET", f"buckets/{cloud.bucket}/raw?name={name}&as=page")
        assert answer["content-security-policy"].startswith("sandbox; default-src 'none'")
        answer, _ = visitor.ask("GET", f"buckets/{cloud.bucket}/raw?name={name}")
        assert answer["content-disposition"].startswith("attachment")
        assert answer["content-type"] == "application/octet-stream"
        _, page = visitor.get(f"buckets/{cloud.bucket}/object?name={name}")
        assert re.search(r'<iframe class="report" sandbox title=', page)


def test_names_labels_and_logs_are_text(cloud, visitor):
    """Everything that a user can name holds markup, and 10,000 characters where they are taken."""
    number = job(cloud, f"print({NASTY!r}); print('x' * 10_000)", name=NASTY[:120])
    ended(cloud, number)
    long = "n" * 230 + "/" + "m" * 230
    store(cloud, f"nasty/{NASTY.replace('/', '_')}.txt", NASTY)
    store(cloud, f"nasty/{long}.csv", f"a,b\n{NASTY.replace(',', '')},{'y' * 10_000}\n")
    store(cloud, "nasty/card.json", json.dumps({NASTY: NASTY * 100}))
    shown = [f"jobs/training/{number}", "jobs", f"buckets/{cloud.bucket}?prefix=nasty/",
             f"buckets/{cloud.bucket}/object?name=nasty/card.json",
             f"buckets/{cloud.bucket}/object?name=nasty/{long}.csv",
             f"jobs?find={quote(NASTY)}&kind={quote(NASTY)}",
             f"jobs/training/{number}?find={quote(NASTY)}&replica={quote(NASTY)}"]  # fmt: skip
    for path in shown:
        status, page = visitor.get(path)
        assert status == 200, path
        assert "<script>document" not in page, path
        assert "<img src=x" not in page, path
    _, page = visitor.get(f"jobs/training/{number}")
    assert NASTY in words(page)
    assert "… (10,000 characters)" in words(page)


def test_a_line_of_a_megabyte_and_one_of_bytes(cloud, visitor):
    number = job(cloud, r"""
        import sys
        print("begin", "z" * 2**20)
        sys.stdout.buffer.write(bytes(range(256)) * 20 + b"\n")
        sys.stdout.buffer.write("\u202e turned, \x1b[31mred\x1b[0m\n".encode())
        print("after")
    """)  # fmt: skip
    ended(cloud, number)
    status, page = visitor.get(f"jobs/training/{number}")
    assert status == 200
    assert len(page) < 60_000
    said = words(page)
    assert re.search(r"zzz … \([\d,]{5,} characters\)", said)
    assert "after" in said
    assert not re.search(r"[\x00-\x08\x0e-\x1f\u202e]", page)
    assert "turned, red" in said


def test_a_message_of_the_cloud_is_shown_as_text(visitor):
    for path in ("jobs/training/404", "models/none", "endpoints/none", "buckets/no-such-bucket"):
        status, page = visitor.get(path)
        assert status == 404, path
        assert "This did not work" in page
    assert visitor.get(f"models/{quote('<b>x')}")[0] in (400, 404, 502)
    assert visitor.get("nothing")[0] == 404


def test_reading_a_bucket_stores_nothing(cloud, visitor, change):
    store(cloud, "kept.txt", "as it was")
    before = storage.sizes(cloud, f"gs://{cloud.bucket}/kept.txt")
    for verb in ("POST", "PUT", "DELETE"):
        form = f"token={visitor.form(change['path'])['token']}" if verb == "POST" else None
        visitor.ask(verb, f"buckets/{cloud.bucket}/object?name=kept.txt", form)
    assert storage.sizes(cloud, f"gs://{cloud.bucket}/kept.txt") == before


SPOILT = [
    "[]", "3", "{", '{"metrics": [1]}', '{"metrics": {"mae": "<b>", "x": {}}, "baselines": 3}',
    '{"metrics": {"mae": 1e999, "r2": NaN}, "baselines": {"a": [], "b": {"mae": "x"}}}',
    '{"properties": [1]}', '{"properties": {"x": 3}}', '{"instance": 1}', "\x00\xff",
]  # fmt: skip


@pytest.mark.parametrize("content", SPOILT)
def test_whatever_a_job_left_the_pages_go_on(cloud, visitor, content):
    """Metrics, schema, examples and card of a model may be anything."""
    base = f"odd/{uuid.uuid4().hex[:8]}"
    for name in ("metrics.json", "examples.jsonl", "card.md", "model/1/assets.extra/instance.yaml",
                 "model/1/assets.extra/prediction.yaml", "model/1/saved_model.pb"):  # fmt: skip
        store(cloud, f"{base}/{name}", content)
    body = {"modelId": f"m{uuid.uuid4().hex[:8]}", "model": {
        "displayName": NASTY[:100], "artifactUri": f"gs://{cloud.bucket}/{base}/model/",
        "containerSpec": {"imageUri": "us-docker.pkg.dev/vertex-ai/prediction/tf2-cpu.2-15:latest"},
    }}  # fmt: skip
    collection = cloud.collection("models")
    cloud.wait(cloud.call(collection.upload(parent=cloud.parent, body=body)))
    status, page = visitor.get(f"models/{body['modelId']}")
    assert status == 200, words(page)
    assert "<script>document" not in page
    assert visitor.get("")[0] == visitor.get("models")[0] == 200
