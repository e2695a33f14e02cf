"""The pages in a real browser: of a road with two versions and one failure."""

import json
import re
import subprocess
import sys
import uuid

import pandas as pd
import pytest

import helpers
from helpers import storage
from helpers.cloud.names import number
from helpers.errors import CloudError
from tests import once
from tests.console.conftest import ended, follow, job, store, until

pytestmark = pytest.mark.long

EXAMPLES = [{"instance": {"size": 10.0 + n, "kind": "a"}, "truth": 100.0 + n} for n in range(3)]
PAGES = {
    "overview": "", "jobs": "jobs", "job": "jobs/training/{job}",
    "failed": "jobs/training/{failed}",
    "models": "models", "model": "models/{model}", "endpoints": "endpoints",
    "endpoint": "endpoints/{endpoint}", "test": "endpoints/{endpoint}/test", "buckets": "buckets",
    "bucket": "buckets/local-bucket", "text": "buckets/local-bucket/object?name=shown/a.txt",
    "table": "buckets/local-bucket/object?name=shown/a.csv", "costs": "costs",
    "notebook": "buckets/local-bucket/object?name=shown/a.ipynb",
    "image": "buckets/local-bucket/object?name=shown/a.png",
    "confirm": "endpoints/{endpoint}/undeploy?id={first}", "none": "models/none",
}  # fmt: skip
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6360"
    "f8cfc0f01f000501017f1ad2a5db0000000049454e44ae426082"
)


@pytest.fixture(scope="module")
def road(cloud, tmp_path_factory):
    """What `make run` leaves, made in seconds: jobs, two versions, their endpoint, files."""
    trained = once.made(tmp_path_factory, "tests.trained")
    versions = []
    for mae in (4000.0, 3400.0):
        base = f"gs://{cloud.bucket}/jobs/{uuid.uuid4().hex[:8]}"
        code = "print('Epoch 1/1\\n1/1 - 0s - loss: 2.5 - mae: 1.5')"
        number = job(cloud, code, name="rooms", base=base, labels={"phase": "test"})
        ended(cloud, number)
        artifact = once.stored(cloud, trained, base)
        measured = {"metrics": {"mae": mae, "r2": 0.9}, "unit": "$", "task": "regression",
                    "baselines": {"trivial": {"mae": 9000.0, "r2": 0.0}}, "epochs": 5}  # fmt: skip
        storage.write_bytes(cloud, json.dumps(measured).encode(), f"{base}/metrics.json")
        lines = "".join(json.dumps(one) + "\n" for one in EXAMPLES)
        storage.write_bytes(cloud, lines.encode(), f"{base}/examples.jsonl")
        card = f"# Rooms\n\n| {' | '.join(['a long word'] * 9)} |\n|{'---|' * 9}\n"
        storage.write_bytes(cloud, card.encode(), f"{base}/card.md")
        versions.append(helpers.register(cloud, artifact, name="rooms"))
        helpers.deploy(cloud, versions[-1], traffic_percent=20)
    failed = job(cloud, "raise SystemExit('the disk is made of cheese')", name="failing")
    ended(cloud, failed)
    store(cloud, "shown/a.txt", "some words")
    store(cloud, "shown/a.csv", "size;kind\n1,5;a\n2,5;b\n")
    store(cloud, "shown/a.png", PNG)
    store(cloud, "shown/a.ipynb", json.dumps({
        "cells": [{"cell_type": "markdown", "metadata": {}, "source": "# A notebook"}],
        "metadata": {"kernelspec": {"name": "python3", "display_name": "p", "language": "python"}},
        "nbformat": 4, "nbformat_minor": 5}))  # fmt: skip
    model = versions[0].resource_name.rsplit("/", 1)[-1].split("@")[0]
    endpoint = helpers.find_endpoint(cloud, "rooms").resource_name.rsplit("/", 1)[-1]
    first = next(key for key, (name, _) in on(cloud, endpoint).items() if name == f"{model} 1")
    return {"job": number, "failed": failed, "versions": versions, "model": model,
            "endpoint": endpoint, "first": first}  # fmt: skip


def on(session, endpoint: str) -> dict[str, tuple]:
    """What is deployed on an endpoint: id -> (model and version, share)."""
    name = f"{session.parent}/endpoints/{endpoint}"
    found = session.call(session.collection("endpoints").get(name=name))
    split = found["trafficSplit"]
    return {
        one["id"]: (f"{number(one['model'])} {one['modelVersionId']}", split.get(one["id"], 0))
        for one in found["deployedModels"]
    }


@pytest.fixture
def split(cloud, road):
    """The endpoint as the road left it: version 1 has 80 %, version 2 the rest."""
    endpoint = helpers.find_endpoint(cloud, "rooms")
    if endpoint.traffic != {"1": 80, "2": 20}:
        helpers.deploy(cloud, road["versions"][1], traffic_percent=20)
        helpers.promote(cloud, road["versions"][0])
        helpers.deploy(cloud, road["versions"][1], traffic_percent=20)
    return road["endpoint"]


@pytest.mark.parametrize("width", [1200, 390])
def test_every_page_is_quiet_fits_and_can_be_read(tab, road, width):
    """By day and by night: no word on the browser's console, nothing outside asked, no scrolling
    sideways, and axe-core finds neither weak contrast nor what a keyboard or a screen reader would
    miss (by night the contrasts alone, as nothing else differs)."""
    seen = tab(size=(width, 850))
    base = seen.page.url
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not here").Axe
    for name, path in PAGES.items():
        seen.page.emulate_media(color_scheme="light")
        seen.page.goto(base + path.format(**road))
        seen.page.wait_for_selector("h1")
        for scheme, rules in {"light": None, "dark": {"runOnly": ["color-contrast"]}}.items():
            seen.page.emulate_media(color_scheme=scheme)
            assert seen.page.evaluate("document.documentElement.scrollWidth") <= width, name
            # 404: of the page that is not there
            assert [line for line in seen.said if "404" not in line] == [], name
            found = axe().run(seen.page, options=rules).response["violations"]
            seen.said.clear()  # it complains of frames that it may not look into
            bad = [(v["id"], n["html"][:200]) for v in found for n in v["nodes"]]
            assert bad == [], (name, scheme, bad)
            back = seen.page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert (back != "rgb(255, 255, 255)") == (scheme == "dark")
    assert seen.outside() == []


def test_at_200_percent_nothing_is_lost(tab, road):
    seen = tab(size=(600, 425))  # what 1,200 points are at 200 %
    base = seen.page.url
    for name, path in PAGES.items():
        seen.page.goto(base + path.format(**road))
        seen.page.wait_for_selector("h1")
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= 600, name


def test_three_clicks_answer_what_people_come_for(tab, road):
    """Why a job failed, the error of version 2 against version 1, a changed row's answer."""
    page = tab().page
    assert "cheese" in page.inner_text("main")  # no click: the first page says it
    follow(page, "a:has-text('failing')")
    assert "cheese" in page.inner_text(".failure")

    follow(page, "nav a:has-text('Overview')")
    follow(page, ".road a:has-text('rooms')")
    row = page.inner_text("tr:has(th:has-text('mae'))").split("\t")
    assert row[:4] == ["mae", "$3,400", "$4,000", "15 % better"]

    follow(page, "nav a:has-text('Overview')")
    follow(page, "a:has-text('Test rooms')")
    page.fill("[name=in-size]", "33")
    follow(page, "button:has-text('Ask the endpoint')")
    assert float(page.get_attribute("#answer", "value"))


def test_the_form_answers_as_helpers_does(cloud, tab, split):
    page = tab(f"endpoints/{split}/test").page
    assert "Held-out example 1 of 3" in page.inner_text("form")
    endpoint = helpers.find_endpoint(cloud, "rooms")
    for size, kind in [("10.0", "a"), ("27.25", "b"), ("-3", "never seen")]:
        page.fill("[name=in-size]", size)
        page.locator("[name=in-kind]").fill(kind) if kind not in "abc" else _choose(page, kind)
        follow(page, "button:has-text('Ask')")
        answer = float(page.get_attribute("#answer", "value"))
        row = pd.DataFrame([{"size": float(size), "kind": page.input_value("[name=in-kind]")}])
        assert answer == pytest.approx(helpers.predict(endpoint, row)["price"].iloc[0], rel=1e-5)
        assert ("The truth is that of the example before" in page.inner_text("main")) == (
            (size, kind) != ("10.0", "a")
        )
        if kind == "b":
            break  # the other kind is a list of levels: nothing else can be chosen
    counted = tab(f"endpoints/{split}").page
    until(lambda: "requests, a minute" in counted.inner_text("main"))
    assert counted.locator(".chart").count() == 2
    page.fill("[name=in-size]", "a lot")
    follow(page, "button:has-text('Ask')")
    assert 'Input "size" holds "a lot"; expected a number.' in page.inner_text("main")
    assert page.input_value("[name=in-size]") == "a lot"
    answer = page.goto(f"{page.url.split('?')[0]}?example={'9' * 5000}")
    assert (answer.status, page.input_value("[name=in-size]")) == (200, "10.0")
    follow(page, "a:has-text('Another one')")
    assert page.input_value("[name=in-size]") == "11.0"


def _choose(page, kind: str) -> None:
    field = page.locator("[name=in-kind]")
    tag = field.evaluate("e => e.tagName")
    field.select_option(kind) if tag == "SELECT" else field.fill(kind)


def test_the_calls_to_copy_run(cloud, tab, split, tmp_path):
    page = tab(f"endpoints/{split}/test", permissions=["clipboard-read", "clipboard-write"]).page
    follow(page, "button:has-text('Ask')")
    expected = float(page.get_attribute("#answer", "value"))
    for n, name in enumerate(["curl", "Python, helpers", "Python, Google's SDK"]):
        page.locator("details", has_text=name).evaluate("e => e.open = true")
        page.locator("button.copy").nth(n).click()
        text = page.evaluate("navigator.clipboard.readText()")
        file = tmp_path / "call"
        file.write_text(text)
        command = ["bash", str(file)] if name == "curl" else [sys.executable, str(file)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        numbers = [float(n) for n in re.findall(r"-?\d+\.\d+", done.stdout)]
        assert any(n == pytest.approx(expected, rel=1e-3) for n in numbers), done.stdout


def test_promoting_and_rolling_back_moves_the_bar(cloud, tab, split):
    page = tab(f"endpoints/{split}").page
    wide = lambda: [round(float(r.get_attribute("width"))) for r in  # noqa: E731
                    page.locator(".bar rect").all()]  # fmt: skip
    assert wide() == [120, 480]
    follow(page, page.locator("tr", has_text="version 2").locator("a", has_text="Promote"))
    assert "Give rooms version 2 all the traffic of endpoint rooms?" in page.inner_text("h1")
    assert "version 2: 20 % → 100 % of the requests" in page.inner_text("main")
    assert helpers.find_endpoint(cloud, "rooms").traffic == {"1": 80, "2": 20}
    asked = page.url
    follow(page, "button:has-text('Promote rooms version 2')")
    assert "version 2 has all the traffic of rooms." in page.inner_text(".said")
    page.goto(asked)  # as a second click would
    assert "version 2 has all the traffic of rooms." in page.inner_text(".said")
    assert wide() == [600]
    assert helpers.find_endpoint(cloud, "rooms").traffic == {"1": 0, "2": 100}
    page.reload()
    assert page.locator(".said").count() == 0
    follow(page, "a:has-text('Roll back')")
    assert "Give rooms version 1 all the traffic" in page.inner_text("h1")
    follow(page, "a:has-text('Leave it as it is')")
    assert helpers.find_endpoint(cloud, "rooms").traffic == {"1": 0, "2": 100}
    follow(page, "a:has-text('Roll back')")
    follow(page, "button:has-text('Roll back rooms version 1')")
    assert helpers.find_endpoint(cloud, "rooms").traffic == {"1": 100, "2": 0}


def test_an_open_page_sees_what_others_change(cloud, tab, split):
    page = tab(f"endpoints/{split}").page
    helpers.promote(cloud, helpers.find_model(cloud, "rooms", "2"))
    page.wait_for_selector(".legend :text('100 %')")
    assert "version 2" in page.inner_text(".legend span:has-text('100 %')")


def test_a_version_is_taken_off_and_its_traffic_goes_on(cloud, tab, split, road):
    page = tab(f"endpoints/{road['endpoint']}").page
    follow(page, page.locator("tr", has_text="version 2").locator("a", has_text="Undeploy"))
    assert "Take rooms version 2 off endpoint rooms?" in page.inner_text("h1")
    assert "version 1: 80 % → 100 %" in page.inner_text("main")
    helpers.promote(cloud, road["versions"][1])
    with page.expect_response("**/undeploy?*") as answer:
        follow(page, "button:has-text('Undeploy rooms version 2')")
    assert answer.value.status == 409
    assert "changed meanwhile, so nothing was done" in page.inner_text("[role=alert]:visible")
    assert helpers.find_endpoint(cloud, "rooms").traffic == {"1": 0, "2": 100}
    assert "version 1: 0 % → 100 %" in page.inner_text("main")
    follow(page, "button:has-text('Undeploy rooms version 2')")
    page.wait_for_selector(".said:has-text('taken off')")
    assert helpers.find_endpoint(cloud, "rooms").traffic == {"1": 100}


def test_models_that_share_an_endpoint_are_told_apart(cloud, tab, split, road):
    """Two versions of one number: each link means what its row says."""
    other = [helpers.register(cloud, one.artifact_uri, name="other") for one in road["versions"]][1]
    body = {"deployedModel": {"model": other.resource_name, "displayName": "a name of its own",
            "dedicatedResources": {"machineSpec": {"machineType": "n1-standard-2"},
                                   "minReplicaCount": 1}}}  # fmt: skip
    name = f"{cloud.parent}/endpoints/{split}"
    deployed = cloud.collection("endpoints").deployModel(endpoint=name, body=body)
    cloud.wait(cloud.call(deployed))
    rooms, model = road["model"], number(other.resource_name.split("@")[0])
    page = tab(f"endpoints/{split}").page
    follow(page, page.locator("tr", has_text=f"{model} version 2").locator("text=Promote"))
    assert page.inner_text("h1") == f"Give {model} version 2 all the traffic of endpoint rooms?"
    follow(page, "button:has-text('Promote')")
    shares = dict(on(cloud, split).values())
    assert shares == {f"{rooms} 1": 0, f"{rooms} 2": 0, f"{model} 2": 100}
    assert page.locator("text=Roll back").count() == 0  # the model that serves has no older one
    follow(page, page.locator("tr", has_text="rooms version 2").locator("text=Promote"))
    follow(page, "button:has-text('Promote rooms version 2')")
    assert page.locator("text=Roll back").count() == 1
    follow(page, page.locator("tr", has_text=f"{model} version 2").locator("text=Undeploy"))
    assert page.inner_text("h1") == f"Take {model} version 2 off endpoint rooms?"
    old = page.url
    follow(page, "button:has-text('Undeploy')")
    assert dict(on(cloud, split).values()) == {f"{rooms} 1": 0, f"{rooms} 2": 100}
    page.goto(old)
    assert 'not on "rooms" any more (there: rooms version 2, rooms' in page.inner_text("main")


def test_a_job_is_cancelled(cloud, tab):
    number = job(cloud, "import time; print('up'); time.sleep(600)", name="endless")
    page = tab(f"jobs/training/{number}").page
    follow(page, "a:has-text('Cancel …')")
    assert page.inner_text("h1") == "Cancel the training job endless?"
    follow(page, "button:has-text('Cancel the job')")
    assert "endless was told to stop." in page.inner_text(".said")
    page.wait_for_selector("[data-part=state] :text('cancelled')")
    assert ended(cloud, number)["state"] == "JOB_STATE_CANCELLED"


def test_a_search_has_its_trials_and_the_best_marked(cloud, tab):
    trial = "import json, os, sys, time\nrate = float(sys.argv[1].split('=')[1])\n"
    trial += "line = {'timestamp': time.time(), 'trial': '0', 'mae': str((rate - 0.3) ** 2), "
    trial += "'global_step': '1'}\nopen(os.environ['CLOUD_ML_HP_METRIC_FILE'], 'w').write("
    trial += "json.dumps(line) + '\\n')"
    container = {"imageUri": "python:3.11", "command": ["python", "-c", trial]}
    pool = {"machineSpec": {"machineType": "n1-standard-4"}, "replicaCount": "1",
            "containerSpec": container}  # fmt: skip
    body = {
        "displayName": "search", "maxTrialCount": 3, "parallelTrialCount": 1,
        "studySpec": {
            "metrics": [{"metricId": "mae", "goal": "MINIMIZE"}],
            "parameters": [{"parameterId": "rate", "scaleType": "UNIT_LINEAR_SCALE",
                            "doubleValueSpec": {"minValue": 0.1, "maxValue": 0.9}}],
        },
        "trialJobSpec": {"workerPoolSpecs": [pool]},
    }  # fmt: skip
    collection = cloud.collection("hyperparameterTuningJobs")
    made = cloud.call(collection.create(parent=cloud.parent, body=body))["name"]
    page = tab(f"jobs/tuning/{made.rsplit('/', 1)[-1]}").page  # open while the trials run
    page.wait_for_selector("[data-part=state] :text('succeeded')")
    trials = cloud.call(collection.get(name=made))["trials"]
    best = min(trials, key=lambda t: float(t["finalMeasurement"]["metrics"][0]["value"]))
    assert page.locator("text=Cancel …").count() == 0
    assert page.inner_text("tr.best td >> nth=0") == best["id"]
    assert "✓ best" in page.inner_text("tr.best")
    assert page.locator("circle.dot").count() == 3
    assert page.locator("circle.mark").count() == 1


def test_jobs_are_filtered_and_counted(cloud, tab, road):
    step = {"name": "gcr.io/cloud-builders/docker", "args": ["build", "-t", "an-image", "."]}
    source = {"storageSource": {"bucket": cloud.bucket, "object": "not-there.tgz"}}
    builds = cloud.service("cloudbuild").projects().locations().builds()
    cloud.call(builds.create(parent=cloud.parent, body={"steps": [step], "source": source}))
    page = tab().page
    told = page.inner_text(".road a >> nth=0")
    follow(page, ".road a >> nth=0")
    count = page.locator("tbody tr").count()
    assert told == f"{count} jobs"
    assert f"{count} of {count}." in page.inner_text("main")
    page.fill("input[name=find]", "Phase=TEST")
    follow(page, "button:has-text('Show')")
    assert page.locator("tbody tr").count() == 2
    page.select_option("select[name=state]", "FAILED")
    follow(page, "button:has-text('Show')")
    assert "None of" in page.inner_text("main")
    page.go_back()
    assert page.locator("tbody tr").count() == 2


def test_a_model_tells_what_it_takes_who_made_it_and_where_it_is(tab, road):
    page = tab(f"models/{road['model']}").page
    said = page.inner_text("main")
    for words in ["size", "kind", "price", "Made by job rooms", "Predicts price from rooms", "v2"]:
        assert words in said, words
    assert page.locator(".tick").count() >= 1
    page.select_option("select[name=a]", "1")
    page.select_option("select[name=b]", "2")
    follow(page, "button:has-text('Compare')")
    assert "18 % worse" in page.inner_text("tr:has(th:has-text('mae'))")
    follow(page, "a:has-text('Made by') , p a:has-text('rooms')")
    page.wait_for_selector("h2:has-text('Log')")


def test_buckets_are_walked_looked_at_and_downloaded(cloud, tab, road):
    seen = tab("buckets")
    page = seen.page
    follow(page, "a:has-text('local-bucket')")
    follow(page, "a:has-text('shown/')")
    assert page.locator("tbody tr").count() == 4
    follow(page, "a:has-text('a.csv')")
    assert page.locator("td").all_inner_texts() == ["1,5", "a", "2,5", "b"]
    page.go_back()
    follow(page, "a:has-text('a.ipynb')")
    assert "A notebook" in page.frame_locator("iframe").locator("h1").inner_text()
    page.go_back()
    follow(page, "a:has-text('a.png')")
    image = page.locator("main img")  # waits for it, and then for its bytes
    assert image.evaluate("async one => { await one.decode(); return one.naturalWidth }") == 1
    with page.expect_download() as found:
        page.click("a:has-text('Download')")
    with open(found.value.path(), "rb") as file:
        assert file.read() == PNG
    assert seen.said == []


def test_an_image_is_dropped_into_a_form(tab, road, tmp_path):
    """Its bytes go as base64; the model here takes none, so only the field is looked at."""
    page = tab(f"endpoints/{road['endpoint']}/test").page
    page.evaluate("""() => { const area = document.createElement('textarea'); area.id = 'in';
        document.querySelector('form').append(area); takeImage(area) }""")
    (tmp_path / "a.png").write_bytes(PNG)
    page.set_input_files("input[type=file]", tmp_path / "a.png")
    until(lambda: page.input_value("#in").startswith("iVBORw0KGgo"))


def test_a_keyboard_reaches_everything_in_order(tab, road):
    page = tab("endpoints").page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "To the page"
    names = []
    for _ in range(6):
        page.keyboard.press("Tab")
        names.append(page.evaluate("document.activeElement.textContent"))
    assert names == ["Overview", "Jobs", "Models", "Endpoints", "Buckets", "Costs"]
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent").strip() == "rooms"
    width = page.evaluate("getComputedStyle(document.activeElement).outlineWidth")
    assert width == "3px"


def test_what_is_cleaned_up_is_listed_first(cloud, tab, split):
    helpers.deploy(cloud, helpers.find_model(cloud, "rooms", "1"), name="spare")
    page = tab("costs").page
    assert "spare" in page.inner_text("table")
    page.select_option("select[name=name]", "spare")
    follow(page, "button:has-text('List what goes')")
    assert page.inner_text("h1") == "Remove endpoint spare?"
    assert page.locator("main li").all_inner_texts() == ["endpoint spare is removed"]
    follow(page, "button:has-text('Remove')")
    page.wait_for_selector(".said:has-text('endpoint spare removed')")
    gone = cloud.collection("endpoints").get(name=f"{cloud.parent}/endpoints/spare")
    with pytest.raises(CloudError, match="404"):
        cloud.call(gone)
    assert helpers.find_endpoint(cloud, "rooms")


def test_empty_pages_say_what_to_do_next(cloud, tab):
    other = helpers.connect("local", project="nothing-yet")
    base = tab().page.url.replace("/local/", "/nothing-yet/")
    page = tab().page
    for path, words in [("", "Run 02_train.ipynb"), ("jobs", "There are no jobs yet"),
                        ("models", "No model is registered yet"), ("endpoints", "03_deploy.ipynb"),
                        ("buckets/nothing-yet-bucket", "This bucket is empty"),
                        ("costs", "Nothing that bills exists")]:  # fmt: skip
        page.goto(base + path)
        assert words in page.inner_text("main"), path
    assert other.project == "nothing-yet"
