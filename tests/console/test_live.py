"""A job's page while the job runs: its log, its curves, ten tabs, a cloud that goes and comes."""

import json
import os
import re
import signal
import uuid
from pathlib import Path
from urllib.parse import urlencode

import pytest

import helpers
from helpers.looks.amounts import money, read_money
from helpers.pages import logs
from tests.console.conftest import Visitor, ended, follow, job, opened, store, until, words

pytestmark = pytest.mark.long

# These wait, at a point, for a file that the test makes: a gate.
EPOCHS = r"""
import os, time
for epoch in range(1, 9):
    print(f"Epoch {epoch}/8")
    print(f"32/32 - 0s - 9ms/step - loss: {9 / epoch:.4f} - mae: {3 / epoch:.4f}"
          f" - val_loss: {10 / epoch:.4f} - val_mae: {4 / epoch:.4f}")
    while epoch == 3 and GATE and not os.path.exists(GATE): time.sleep(0.02)
print("after the last epoch")
"""
FAST = """
import os, time
start, n = time.monotonic(), 0
while n < 8000 or n < 12_000 and not os.path.exists(GATE):
    lines = int(1000 * (time.monotonic() - start)) - n
    print("".join(f"line {n + i} of many\\n" for i in range(lines)), end="", flush=True)
    n += lines
    time.sleep(0.01)
print(f"{n} lines in all")
"""
TICKS = """
import os, time
n = 0
while not os.path.exists(GATE):
    print("tick", n)
    n += 1
    time.sleep(0.05)
"""
# A job ends with its chief: this one ends when the others have said their line.
TOGETHER = """
import json, os, socket, time
spec = json.loads(os.environ["CLUSTER_SPEC"])
print("I am", spec["task"], flush=True)
if spec["task"]["type"] != "workerpool0":
    host, port = spec["cluster"][spec["task"]["type"]][spec["task"]["index"]].rsplit(":", 1)
    with socket.create_server((host, int(port))) as server:
        server.accept()
else:
    for address in spec["cluster"]["workerpool1"]:
        host, port = address.rsplit(":", 1)
        while True:
            try:
                socket.create_connection((host, int(port))).close()
                break
            except ConnectionRefusedError:
                time.sleep(0.05)
"""


@pytest.fixture
def gate(cloud) -> Path:
    """A file that is not there yet, where jobs see it."""
    folder = Path(os.environ["LOCAL_CLOUD_DIR"], "buckets", cloud.bucket)
    folder.mkdir(parents=True, exist_ok=True)
    return folder / uuid.uuid4().hex


def waiting(code: str, gate: Path | str) -> str:
    return code.replace("GATE", repr(str(gate)))


def test_a_running_job_is_followed_to_its_end(cloud, tab, gate):
    base = f"gs://{cloud.bucket}/followed"
    number = job(cloud, waiting(EPOCHS, gate), name="epochs", base=base)
    seen = tab(f"jobs/training/{number}")
    page = seen.page
    page.fill("[name=find]", "half a wo")
    page.wait_for_selector("#log div:has-text('Epoch 2/8')")
    page.wait_for_selector("progress")
    few = len(page.get_attribute("polyline.line", "points").split())
    assert page.locator("text=Cancel …").count() == 1
    assert "What it left" not in page.inner_text("main")
    store(cloud, "followed/report.html", "<h1>What was run</h1>")
    gate.touch()
    page.wait_for_selector("#log div:has-text('after the last epoch')")
    page.wait_for_selector("[data-part=state] .good:has-text('succeeded')")
    page.wait_for_selector("[data-part=progress] :text('epoch 8 of 8')")
    assert len(page.get_attribute("polyline.line", "points").split()) == 8 > few
    page.wait_for_selector("text=Cancel …", state="detached")
    assert page.locator("ul.files li").all_inner_texts() == ["report.html 21 Bytes"]
    assert page.frame_locator("iframe.report").locator("h1").inner_text() == "What was run"
    assert page.input_value("[name=find]") == "half a wo"
    assert page.locator(".chart").count() == 2
    assert page.locator("#log div").count() == len(set(page.locator("#log div").all_inner_texts()))
    assert seen.said == []
    assert seen.outside() == []


def test_without_scripts_the_page_says_the_same(cloud, tab):
    number = job(cloud, waiting(EPOCHS, ""), name="epochs")
    ended(cloud, number)
    page = tab(f"jobs/training/{number}", java_script_enabled=False).page
    said = page.inner_text("main")
    assert "epoch 8 of 8" in said
    assert "after the last epoch" in said
    assert page.locator("polyline.line").count() == 4
    page.fill("input[name=find]", "Val_Loss: 5")
    follow(page, "button:has-text('Filter')")
    assert page.locator("#log div").all_inner_texts() == [
        text for text in page.locator("#log div").all_inner_texts() if "val_loss: 5" in text
    ]
    assert page.locator("#log div").count() == 1


def test_the_curves_of_what_helpers_prints_are_drawn(cloud, visitor):
    """`helpers.progress` has few lines, for people: amounts with their unit."""
    code = """
    for epoch, error in [(5, "$19.2 k"), (10, "$7.4 k"), (15, "$950")]:
        print(f"Epoch {epoch}/20: mean error on training rows {error}, on test rows $9.2 k")
    """
    number = job(cloud, code, name="told")
    ended(cloud, number)
    said = until(lambda: (page := visitor.get(f"jobs/training/{number}")[1]).count("9.2 k") > 2
                 and page)  # fmt: skip
    assert "epoch 15 of 20" in words(said)
    assert said.count('class="line') == 2
    assert "mean error" in words(said.split('id="log"')[0])
    (drawn,) = logs.epochs(cloud, "training", number)["curves"].values()
    assert drawn == {
        "training rows": [(5, 19200.0), (10, 7400.0), (15, 950.0)],
        "test rows": [(5, 9200.0), (10, 9200.0), (15, 9200.0)],
    }


@pytest.mark.parametrize("unit", ["", "$", "kg", "k€"])
@pytest.mark.parametrize("value", [0, 0.00012, -3.25, 950, 1e3, -45_600, 2.5e6, 7e12, 1e-9])
def test_amounts_are_read_as_they_were_written(value, unit):
    assert read_money(money(value, unit)) == pytest.approx(value, rel=0.05)


def test_a_log_is_filtered_by_replica_and_text(cloud, tab):
    number = job(cloud, TOGETHER, replicas=2)
    ended(cloud, number)
    page = tab(f"jobs/training/{number}").page
    names = page.locator("select[name=replica] option").all_inner_texts()
    assert {"workerpool0-0", "workerpool1-0", "workerpool1-1"} <= set(names)
    page.select_option("select[name=replica]", "workerpool1-1")
    page.fill("input[name=find]", "I am")
    follow(page, "button:has-text('Filter')")
    page.wait_for_url("**replica=workerpool1-1*")
    assert page.locator("#log div b").all_inner_texts() == ["workerpool1-1"]
    page.go_back()
    page.wait_for_selector("#log div:has-text('workerpool0-0')")


def test_ten_tabs_follow_a_thousand_lines_a_second(cloud, browser, gate):
    """Each keeps the last 5,000 lines and says how many it left out; a click still works."""
    number = job(cloud, waiting(FAST, gate), name="fast")
    context = browser.new_context()
    tabs = [opened(context, cloud, f"jobs/training/{number}") for _ in range(10)]
    last = tabs[-1].page
    follow(last, "nav a:has-text('Models')")
    last.wait_for_selector("h1:has-text('Models')")
    gate.touch()
    job_ended = ended(cloud, number)
    assert job_ended["state"] == "JOB_STATE_SUCCEEDED"
    for each in tabs[:-1]:
        each.page.wait_for_selector("#log div:has-text('lines in all')", timeout=120_000)
        texts = each.page.locator("#log div").all_inner_texts()
        assert len(texts) == 5000
        total = int(re.search(r"(\d+) lines in all", texts[-1])[1])
        left = each.page.inner_text("#left-out")
        # all that were printed, the last one and what the service itself said
        said = int(re.search(r"([\d,]+) earlier lines", left)[1].replace(",", "")) + 5000
        assert total < said < total + 10
        assert each.said == []
    context.close()


def test_who_reads_just_before_a_jobs_end_gets_its_last_lines(cloud, visitor, gate):
    """A reading shared by all tabs must not stand for the one after the job's end."""
    wait = "import os, time\nwhile not os.path.exists(GATE): time.sleep(0.005)\nprint('the end')"
    number = job(cloud, waiting(wait, gate), name="short")
    until(lambda: helpers.connect("local").call(
        cloud.collection("customJobs").get(name=f"{cloud.parent}/customJobs/{number}")
    )["state"] == "JOB_STATE_RUNNING")  # fmt: skip
    lines, news = [], {"cursor": "", "ended": False}

    def read():
        nonlocal news
        asked = urlencode({"poll": 1, "after": news["cursor"]})
        news = json.loads(visitor.get(f"jobs/training/{number}/live?{asked}")[1])
        lines.extend(line[4] for line in news["lines"])

    read()
    gate.touch()
    ended(cloud, number)
    until(lambda: read() or news["ended"])
    assert "the end" in lines


def test_opened_late_a_long_log_is_counted(cloud, visitor):
    number = job(cloud, "print('\\n'.join(f'row {n}' for n in range(12_345)))", name="long")
    ended(cloud, number)
    path = f"jobs/training/{number}"
    found = until(lambda: re.search(r"([\d,]+) earlier lines", visitor.get(path)[1]))
    assert visitor.get(path)[1].count("<div class=") > 5000
    assert 7345 <= int(found[1].replace(",", "")) < 7360
    reader = re.search(r'data-after="(\w+):', visitor.get(path)[1])[1]
    for odd in ("9" * 5000, "-1", "²", "x"):  # no place in the log: as from its beginning
        asked = urlencode({"poll": 1, "after": f"{reader}:{odd}"})
        assert len(json.loads(visitor.get(f"{path}/live?{asked}")[1])["lines"]) == 5000


def test_a_reader_who_scrolled_up_keeps_the_place(cloud, tab):
    slow = "import time\nfor n in range(400):\n    print('row', n)\n    time.sleep(0.02)"
    number = job(cloud, slow, name="slow")
    page = tab(f"jobs/training/{number}").page
    page.wait_for_selector("#log div:has-text('row 60')")

    def scrolled_up() -> bool:
        """Lines that come at the same moment may take the reader down again."""
        page.evaluate("document.getElementById('log').scrollTop = 100")
        return not page.is_checked("#follow")

    until(scrolled_up)
    place = page.evaluate("document.getElementById('log').scrollTop")
    page.wait_for_selector("#log div:has-text('row 399')", state="attached")
    assert page.evaluate("document.getElementById('log').scrollTop") == place
    page.check("#follow")
    assert page.evaluate("(e => e.scrollHeight - e.scrollTop - e.clientHeight)"
                         "(document.getElementById('log'))") < 5  # fmt: skip


def test_a_proxy_that_holds_events_back_is_polled_around(cloud, tab, gate):
    number = job(cloud, waiting(EPOCHS, gate) + "raise SystemExit('of cheese')", name="epochs")
    seen = tab()
    page = seen.page
    page.route("**/live?*", lambda route: (
        route.continue_() if "poll=1" in route.request.url else route.abort()))  # fmt: skip
    page.goto(f"{page.url}jobs/training/{number}")
    page.wait_for_selector("#log div:has-text('Epoch 3/8')")
    page.focus("text=Cancel …")
    gate.touch()
    page.wait_for_selector("#log div:has-text('after the last epoch')")
    assert ended(cloud, number)  # the cloud itself answers; only the stream is cut
    page.wait_for_selector("[data-part=state] .failure:has-text('of cheese')")
    assert page.evaluate("document.activeElement.textContent") == "Cancel …"  # kept where it was
    page.evaluate("document.activeElement.blur()")
    page.wait_for_selector("text=Cancel …", state="detached")
    assert any("poll=1" in url for url in seen.asked)


def test_the_cloud_killed_and_started_again_under_an_open_page(cloud, tab, gate):
    number = job(cloud, waiting(TICKS, gate), name="ticks")
    page = tab(f"jobs/training/{number}").page
    overview = tab().page
    page.wait_for_selector("#log div:has-text('tick 20')")
    folder = Path(os.environ["LOCAL_CLOUD_DIR"])
    os.kill(json.loads((folder / "emulator.json").read_text())["pid"], signal.SIGKILL)
    page.wait_for_selector("#problem:not([hidden])")
    assert "no answer" in page.inner_text("#problem")
    overview.wait_for_selector("#problem:not([hidden])")
    status, said = Visitor(cloud).enter().get("models")
    assert status == 502
    assert 'http-equiv="refresh"' in said
    helpers.connect("local")
    page.wait_for_selector("#problem", state="hidden")
    overview.wait_for_selector("#problem", state="hidden")
    known = page.locator("#log div").count()
    until(lambda: page.locator("#log div").count() > known)
    gate.touch()
    ended(cloud, number)
