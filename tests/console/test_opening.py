"""How the console is found, started and ended, and from where it can be reached."""

import http.client
import http.server
import json
import os
import re
import subprocess
import sys
import threading
import time
import types
from pathlib import Path
from urllib.parse import urlsplit

import httplib2
import psutil
import pytest
from google.oauth2.credentials import Credentials

import helpers
from helpers.cloud import console, links
from helpers.cloud.client import Session
from helpers.pages import process
from tests.console.conftest import (
    Tab,
    Visitor,
    console_pid,
    ended,
    follow,
    job,
    opened,
    until,
    zombie,
)

pytestmark = pytest.mark.long

KINDS = {
    "job": "jobs/training", "tuning": "jobs/tuning", "batch": "jobs/batch", "build": "jobs/build",
    "model": "models", "endpoint": "endpoints", "bucket": "buckets",
}  # fmt: skip


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or zombie(pid)


def test_a_notebook_opens_it_by_name(cloud, capsys, monkeypatch):
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)  # as in a terminal
    opened_page = helpers.console(cloud, page="jobs")
    assert capsys.readouterr().out.strip() == repr(opened_page)
    assert opened_page.url.endswith("to=p/local/us-central1/jobs")
    assert "Open the console</a>" in opened_page._repr_html_()
    assert repr(helpers.console()).startswith("Console: http://127.0.0.1:")


def test_one_console_serves_all(cloud):
    helpers.console(cloud)
    pid = console_pid()
    for _ in range(3):
        helpers.console(cloud)
    assert console_pid() == pid


def test_it_is_small_and_without_tensorflow(cloud):
    visitor = Visitor(cloud).enter()
    for path in ("", "jobs", "models", "endpoints", "buckets", "costs"):
        assert visitor.get(path)[0] == 200
    process = psutil.Process(console_pid())
    assert process.memory_info().rss < 80e6
    maps = Path(f"/proc/{process.pid}/maps")
    if maps.exists():
        assert not re.search(r"tensorflow|pandas|matplotlib", maps.read_text())


def test_a_terminal_prints_the_address(cloud):
    command = [sys.executable, "-m", "helpers.console", "--page", "models"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    address = re.fullmatch(r"Console: (http://127\.0\.0\.1:\d+/enter\S+)\n", done.stdout)[1]
    answer, page = httplib2.Http().request(address)
    assert (answer.status, b"url=p/local/us-central1/models" in page) == (200, True)


def test_a_terminal_says_what_is_wrong():
    command = [sys.executable, "-m", "helpers.console", "--cloud", "google"]
    environment = {k: v for k, v in os.environ.items() if k != "GOOGLE_CLOUD_PROJECT"}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, env=environment
    )
    assert (done.returncode, "needs a project" in done.stderr) == (1, True)


@pytest.mark.parametrize("kind", KINDS)
def test_links_lead_to_its_pages_and_on_google_to_googles(cloud, kind):
    address = links.console(cloud, kind, "x1")
    assert address.endswith(f"&to=p/local/us-central1/{KINDS[kind]}/x1")
    google = Session("google", "my-project", "us-central1", "b", cloud.endpoint, cloud.credentials)
    assert links.console(google, kind, "x1").startswith("https://console.cloud.google.com/")


def test_a_printed_link_opens_the_job(cloud, browser):
    number = job(cloud, "print('hello from the job')", name="linked")
    ended(cloud, number)
    page = browser.new_page()
    page.goto(links.console(cloud, "job", number))
    page.wait_for_selector("#log div:has-text('hello from the job')")
    page.close()


def test_a_link_on_another_site_opens_for_who_is_in(cloud, browser):
    """A Strict cookie does not come along from elsewhere; the page leads there once more itself."""
    context = browser.new_context()
    seen = opened(context, cloud)
    deep = seen.page.url + "models"
    seen.page.route("http://elsewhere.test/", lambda r: r.fulfill(
        body=f"<a href='{deep}'>link</a>", content_type="text/html"))  # fmt: skip
    seen.page.goto("http://elsewhere.test/")
    follow(seen.page, "a")
    seen.page.wait_for_selector("h1:has-text('Models')")
    used = console.address(cloud, "jobs")
    for _ in range(2):  # the second time it has been used, by this very browser
        seen.page.goto("http://elsewhere.test/")
        seen.page.evaluate("address => document.links[0].href = address", used)
        follow(seen.page, "a")
        seen.page.wait_for_selector("h1:has-text('Jobs')")
    context.close()


def test_it_ends_with_its_cloud(tmp_path, monkeypatch):
    monkeypatch.setenv("LOCAL_CLOUD_DIR", str(tmp_path / "state"))
    helpers.console(helpers.connect("local"))
    pid = console_pid()
    command = [sys.executable, "-m", "helpers.emulator", "stop", "--state", str(tmp_path / "state")]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    until(lambda: gone(pid))
    assert not (tmp_path / "state" / console.FILE).exists()
    helpers.connect("local")
    helpers.console()
    assert console_pid() != pid
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    until(lambda: gone(console_pid_of(tmp_path)))


def test_one_console_stays_where_the_cloud_is_stopped_and_started_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("LOCAL_CLOUD_DIR", str(tmp_path / "state"))
    command = [sys.executable, "-m", "helpers.emulator", "stop", "--state", str(tmp_path / "state")]
    begun = set()
    for _ in range(3):
        session = helpers.connect("local")
        visitor = Visitor(session).enter()
        assert visitor.get("")[0] == 200
        begun.add(console_pid())
        subprocess.run(command, check=True, capture_output=True, timeout=60)
    until(lambda: all(map(gone, begun)))


def test_a_signal_to_end_is_not_forgotten(tmp_path, monkeypatch):
    """It may come while the console looks whether its cloud is there."""
    (tmp_path / "emulator.json").write_text(json.dumps({"pid": os.getpid()}))
    server = types.SimpleNamespace(should_exit=False)
    looks = []

    def told_meanwhile(_: float) -> None:
        looks.append(server.should_exit)
        assert len(looks) < 3
        server.should_exit = True

    clock = types.SimpleNamespace(sleep=told_meanwhile, monotonic=time.monotonic)
    monkeypatch.setattr(process, "time", clock)
    process._until_cloud_ends(server, tmp_path)
    assert (looks, server.should_exit) == ([False], True)


def console_pid_of(folder: Path) -> int:
    file = folder / "state" / console.FILE
    return json.loads(file.read_text())["pid"] if file.exists() else 2**22 + 1


ON_GOOGLE = """
import sys
from google.oauth2.credentials import Credentials
from helpers.cloud.client import Session
from helpers.pages import process
from helpers.cloud import console
given = Credentials(token=sys.argv[2])
session = Session("google", "local", "us-central1", "local-bucket", sys.argv[1], given)
print(console.address(session), flush=True)
print(next(iter(console._ours.values()))[1].pid, flush=True)
sys.stdin.read()
"""


def test_a_console_on_google_belongs_to_who_opened_it(cloud):
    """The same pages over the same API; a cloud is only an address here."""
    number = job(cloud, "print('seen through google')", name="google")
    ended(cloud, number)
    process = subprocess.Popen(
        [sys.executable, "-c", ON_GOOGLE, cloud.endpoint, cloud.credentials.token],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    address, pid = process.stdout.readline().strip(), int(process.stdout.readline())
    answer, _ = httplib2.Http().request(address)
    cookie = {"Cookie": answer["set-cookie"].split(";")[0]}
    base = address.split("/enter")[0] + "/p/local/us-central1/"
    for path in ("", "jobs", f"jobs/training/{number}", "models", "endpoints", "buckets"):
        answer, page = httplib2.Http().request(base + path, headers=cookie)
        assert answer.status == 200, page
        assert b"Google Cloud" in page
    assert answer.status == 200
    process.communicate(timeout=60)
    until(lambda: gone(pid))


class Proxy(http.server.BaseHTTPRequestHandler):
    """Colab's port proxy, as far as the console can tell: a prefix, another host, no streams."""

    target, keeps_prefix, prefix = ("127.0.0.1", 0), False, "/proxy/colab"

    def forward(self):
        if not self.path.startswith(self.prefix + "/"):
            self.send_error(404)
            return
        path = self.path if self.keeps_prefix else self.path.removeprefix(self.prefix)
        if "/live?" in path and "poll=1" not in path:
            self.send_error(502)  # it waits for an end that does not come
            return
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        upstream = http.client.HTTPConnection(*self.target, timeout=30)
        upstream.request(self.command, path, body, dict(self.headers.items()))
        answer = upstream.getresponse()
        content = answer.read()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        upstream.close()

    do_GET = do_POST = forward  # noqa: N815

    def log_message(self, *_):
        pass


@pytest.mark.parametrize("keeps_prefix", [False, True])
def test_all_of_it_works_behind_a_prefix(cloud, browser, keeps_prefix):
    helpers.console(cloud)
    address = urlsplit(console.address(cloud))
    handler = type("Here", (Proxy,), {"target": ("127.0.0.1", address.port),
                                      "keeps_prefix": keeps_prefix})  # fmt: skip
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    root = f"http://127.0.0.1:{server.server_port}{Proxy.prefix}"
    context = browser.new_context()
    seen = Tab(context.new_page())
    page = seen.page
    page.on("request", lambda request: seen.asked.append(request.url))
    slow = "import time\nfor n in range(5):\n    print('step', n)\n    time.sleep(1)"
    number = job(cloud, slow, name="proxied")
    page.goto(f"{root}{address.path}?{address.query}")
    page.wait_for_selector("h1:has-text('Overview')")
    follow(page, "a:has-text('proxied')")
    page.wait_for_selector("#log div:has-text('step 4')")
    page.wait_for_selector("[data-part=state] :text('succeeded')")
    for name in ("Jobs", "Models", "Endpoints", "Buckets", "Costs", "Overview"):
        follow(page, f"nav a:has-text('{name}')")
        page.wait_for_selector(f"h1:has-text('{name}')")
    endless = job(cloud, "import time; time.sleep(600)", name="stopped")
    page.goto(f"{page.url}jobs/training/{endless}")
    follow(page, "a:has-text('Cancel …')")
    follow(page, "button:has-text('Cancel the job')")
    page.wait_for_selector(".said:has-text('stopped was told to stop')")
    assert page.url == f"{root}/p/local/us-central1/jobs/training/{endless}"
    assert [url for url in seen.asked if not url.startswith(root)] == []
    assert ended(cloud, number)
    assert ended(cloud, endless)
    context.close()
    server.shutdown()
    server.server_close()


@pytest.fixture
def colab(monkeypatch):
    """Colab's front end: it opens windows on ports, and knows their addresses."""
    windows = []
    module, output = types.ModuleType("google.colab"), types.ModuleType("google.colab.output")
    output.serve_kernel_port_as_window = lambda port, path="/", anchor_text="": windows.append(
        (port, path)
    )
    output.eval_js = lambda text, **_: "https://x-8080-colab.googleusercontent.com/" + text[-6:-1]
    module.output = output
    monkeypatch.setitem(sys.modules, "google.colab", module)
    monkeypatch.setitem(sys.modules, "google.colab.output", output)
    console._root.cache_clear()
    yield windows
    console._root.cache_clear()


def test_in_colab_a_window_opens_and_links_go_through_its_proxy(cloud, colab):
    shown = helpers.console(cloud, page="jobs")
    ((port, path),) = colab
    assert path.startswith("/enter?code=")
    answer, _ = httplib2.Http().request(f"http://127.0.0.1:{port}{path}")
    assert answer.status == 200
    assert shown.url.startswith("https://x-8080-colab.googleusercontent.com/")
    link = links.console(cloud, "model", "m")
    assert re.match(rf"https://x-8080-colab.googleusercontent.com/{port}/enter\?", link)


def test_it_is_up_in_a_moment(tmp_path, monkeypatch):
    """Processor time is what a busy machine changes least; it is that of start and first page."""
    monkeypatch.setenv("LOCAL_CLOUD_DIR", str(tmp_path / "state"))
    session = helpers.connect("local")
    start_s = time.monotonic()
    visitor = Visitor(session).enter()
    assert visitor.get("")[0] == 200
    used = psutil.Process(console_pid()).cpu_times()
    took_s = min(time.monotonic() - start_s, used.user + used.system)
    command = [sys.executable, "-m", "helpers.emulator", "stop", "--state", str(tmp_path / "state")]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    assert took_s < 2
    assert type(session.credentials) is Credentials
