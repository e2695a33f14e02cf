"""A local cloud with its console, and who visits it: a plain HTTP client, a real browser."""

import html
import json
import os
import re
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import httplib2
import psutil
import pytest

import helpers
from helpers import storage
from helpers.cloud import console, jobs
from helpers.cloud.names import LABELS

NASTY = "<script>document.title='ran'</script>\"'><img src=x onerror=alert(1)>"


def until(true: Callable, timeout_s: float = 60):
    """What `true` gives once that is true."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        found = true()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"not true within {timeout_s} s: {true}")


@pytest.fixture(scope="module")
def cloud(tmp_path_factory):
    """A session on a local cloud of this module's own; its console ends with it."""
    folder = tmp_path_factory.mktemp("console") / "state"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOCAL_CLOUD_DIR", str(folder))
        yield helpers.connect("local")
        known = folder / console.FILE
        pid = json.loads(known.read_text())["pid"] if known.exists() else 0
        command = [sys.executable, "-m", "helpers.emulator", "stop", "--state", str(folder)]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        until(lambda: not pid or not psutil.pid_exists(pid) or zombie(pid))


def zombie(pid: int) -> bool:
    return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def job(session, code: str, *, name: str = "job", replicas: int = 0, labels=None, base="") -> str:
    """Start a training job that runs a script; its number."""
    container = {"imageUri": "python:3.11", "command": ["python", "-u", "-c"]}
    container["args"] = [textwrap.dedent(code)]
    pool = {"machineSpec": {"machineType": "n1-standard-4"}, "containerSpec": container}
    pools = [pool | {"replicaCount": "1"}]
    pools += [pool | {"replicaCount": str(replicas)}] if replicas else []
    spec = {"workerPoolSpecs": pools}
    if base:
        spec["baseOutputDirectory"] = {"outputUriPrefix": base}
    body = {"displayName": name, "jobSpec": spec, "labels": LABELS | (labels or {})}
    return jobs.create(session, "customJobs", body).rsplit("/", 1)[-1]


def ended(session, number: str) -> dict:
    """The job once it has ended."""
    collection = session.collection("customJobs")
    name = f"{session.parent}/customJobs/{number}"

    def look():
        found = session.call(collection.get(name=name))
        return found["state"] in jobs.ENDED and found

    return until(look)


@dataclass
class Visitor:
    """A client that was let in, without a browser's manners."""

    session: object
    base: str = ""
    root: str = ""
    headers: dict = field(default_factory=dict)

    def enter(self) -> "Visitor":
        address = console.address(self.session)
        answer, _ = httplib2.Http(timeout=60).request(address)
        self.headers = {"Cookie": answer["set-cookie"].split(";")[0]}
        self.root = address.split("/enter")[0]
        self.base = f"{self.root}/p/{self.session.project}/{self.session.location}/"
        return self

    def get(self, path: str, **headers) -> tuple[int, str]:
        answer, content = self.ask("GET", path, **headers)
        return answer.status, content.decode()

    def ask(self, verb: str, path: str, body=None, **headers):
        http = httplib2.Http(timeout=60)
        http.follow_redirects = False
        sent = {k: v for k, v in (self.headers | headers).items() if v is not None}
        return http.request(self.base + path, verb, body, sent)

    def form(self, path: str) -> dict:
        """What the form of a page sends along, unseen."""
        found = re.findall(r'type="hidden" name="([^"]+)" value="([^"]*)"', self.get(path)[1])
        return {name: html.unescape(value) for name, value in found}

    def post(self, path: str, form: dict, **headers):
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        return self.ask("POST", path, urlencode(form), **kind, **headers)


@pytest.fixture
def visitor(cloud) -> Visitor:
    return Visitor(cloud).enter()


def words(page: str) -> str:
    """What a page says, without its markup."""
    body = re.sub(r"(?s)<(script|style).*?</\1>", " ", page.split("<body>", 1)[-1])
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", body)).split())


@dataclass
class Tab:
    """A page of the browser, what its console said, and whom it asked."""

    page: object
    said: list = field(default_factory=list)
    asked: list = field(default_factory=list)

    def outside(self) -> list[str]:
        own = urlsplit(self.page.url).netloc
        kept = ("data:", "blob:", "about:")
        return [
            url for url in self.asked if urlsplit(url).netloc != own and not url.startswith(kept)
        ]


@pytest.fixture
def tab(cloud, browser):
    """Opens a tab on the console; `tab(path, scheme=…, size=…)`."""
    contexts = []

    def go(path: str = "", scheme: str = "light", size: tuple = (1200, 900), **options) -> Tab:
        shape = {"width": size[0], "height": size[1]}
        context = browser.new_context(color_scheme=scheme, viewport=shape, **options)
        contexts.append(context)
        return opened(context, cloud, path)

    yield go
    for context in contexts:
        context.close()


def opened(context, session, path: str = "") -> Tab:
    page = context.new_page()
    page.set_default_timeout(60_000)
    made = Tab(page)
    page.on("console", lambda message: made.said.append(
        f"{message.text} {message.location.get('url', '')}".strip()))  # fmt: skip
    page.on("pageerror", lambda error: made.said.append(str(error)))
    page.on("request", lambda request: made.asked.append(request.url))
    page.goto(console.address(session, path))
    page.wait_for_selector("h1")  # the entrance has none, and leads on
    page.wait_for_load_state()
    return made


def follow(page, what) -> None:
    """Click, and wait until the page that comes of it is there as a whole."""
    with page.expect_navigation():
        page.click(what) if isinstance(what, str) else what.click()


def store(session, name: str, content: bytes | str) -> str:
    """Put an object into the session's bucket."""
    raw = content.encode() if isinstance(content, str) else content
    return storage.write_bytes(session, raw, f"gs://{session.bucket}/{name}")


def console_pid() -> int:
    return json.loads(Path(os.environ["LOCAL_CLOUD_DIR"], console.FILE).read_text())["pid"]
