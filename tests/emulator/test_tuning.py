"""Tuning jobs on the local cloud: trials are real processes, each follows from the last."""

import os

import pytest
from googleapiclient.errors import HttpError

from helpers.emulator.services.tuning import suggest
from tests.emulator.conftest import Emulator, until
from tests.emulator.test_jobs import ENDED

# Reports (x - 3)² + 1 twice, the second time half of it, as cloudml-hypertune writes it.
REPORT = """\
import json, os, sys, time
given = dict(word[2:].split("=") for word in sys.argv[1:])
with open(os.environ["CLOUD_ML_HP_METRIC_FILE"], "w") as file:
    for step in (1, 2):
        value = ((float(given["x"]) - 3) ** 2 + 1) / step
        line = {"timestamp": time.time(), "trial": os.environ["CLOUD_ML_TRIAL_ID"]}
        file.write(json.dumps(line | {"loss": str(value), "global_step": str(step)}) + "\\n")
"""
WRONG = """\
import os
lines = ["loss", "3", "[]", "{}", '{"loss": "low"}', '{"loss": "1"}']
open(os.environ["CLOUD_ML_HP_METRIC_FILE"], "w").write("\\n".join(lines))
"""
DOUBLE = {"parameterId": "x", "doubleValueSpec": {"minValue": 0.5, "maxValue": 8.0}}
LOG = DOUBLE | {"scaleType": "UNIT_LOG_SCALE"}
INTEGER = {"parameterId": "x", "integerValueSpec": {"minValue": "2", "maxValue": "4"}}
DISCRETE = {"parameterId": "y", "discreteValueSpec": {"values": [0.5, 32.0]}}
CATEGORY = {"parameterId": "z", "categoricalValueSpec": {"values": ["relu", "tanh"]}}


def jobs(cloud: Emulator):
    return cloud.api("aiplatform").projects().locations().hyperparameterTuningJobs()


def submit(cloud: Emulator, code: str, *parameters: dict, study: dict | None = None, **job) -> str:
    container = {"imageUri": "python:3.11", "command": ["python", "-c", code]}
    pool = {"machineSpec": {"machineType": "n1-standard-4"}, "containerSpec": container}
    metrics = [{"metricId": "loss", "goal": "MINIMIZE"}]
    body = {
        "displayName": "search", "maxTrialCount": 3, "parallelTrialCount": 2,
        "studySpec": {"metrics": metrics, "parameters": parameters or [LOG]} | (study or {}),
        "trialJobSpec": {"workerPoolSpecs": [pool | {"replicaCount": "1"}]},
    } | job  # fmt: skip
    return jobs(cloud).create(parent=cloud.parent, body=body).execute()["name"]


def get(cloud: Emulator, name: str) -> dict:
    return jobs(cloud).get(name=name).execute()


def ended(cloud: Emulator, name: str) -> dict:
    return until(lambda: (job := get(cloud, name))["state"] in ENDED and job)


def values(trial: dict) -> dict:
    return {given["parameterId"]: given["value"] for given in trial["parameters"]}


def test_trials_get_their_values_and_what_they_report_is_measured(emulator):
    base = {"outputUriPrefix": "gs://local-bucket/tuned/"}
    code = REPORT + "print(os.environ['AIP_MODEL_DIR'], sys.argv[1:])"
    name = submit(emulator, code, INTEGER, DISCRETE, CATEGORY, study={"algorithm": "RANDOM_SEARCH"})
    job = get(emulator, name)
    assert job["state"] in ("JOB_STATE_PENDING", "JOB_STATE_RUNNING")
    job = ended(emulator, name)
    assert "KeyError: 'AIP_MODEL_DIR'" in job["error"]["message"]  # no folder was named
    spec = job["trialJobSpec"] | {"baseOutputDirectory": base}
    name = submit(emulator, code, INTEGER, DISCRETE, CATEGORY, trialJobSpec=spec)
    job = ended(emulator, name)
    assert job["state"] == "JOB_STATE_SUCCEEDED", job
    assert job["createTime"] <= job["startTime"] <= job["endTime"] <= job["updateTime"]
    assert [trial["id"] for trial in job["trials"]] == ["1", "2", "3"]
    for trial in job["trials"]:
        given = values(trial)
        assert trial["state"] == "SUCCEEDED"
        assert given["x"] in (2, 3, 4)
        assert given["y"] in (0.5, 32.0)
        expected = ((given["x"] - 3) ** 2 + 1) / 2
        assert trial["finalMeasurement"]["metrics"] == [{"metricId": "loss", "value": expected}]
        assert [m["stepCount"] for m in trial["measurements"]] == ["1", "2"]
        assert job["startTime"] <= trial["startTime"] <= trial["endTime"] <= job["endTime"]
        work = emulator.request("GET", f"/v1/{trial['customJob']}")[1]
        prefix = work["jobSpec"]["baseOutputDirectory"]["outputUriPrefix"]
        assert prefix == f"gs://local-bucket/tuned/{trial['id']}"
        sent = work["jobSpec"]["workerPoolSpecs"][0]["containerSpec"]["args"]
        y = "32" if given["y"] == 32 else "0.5"
        assert sent == [f"--x={given['x']}", f"--y={y}", f"--z={given['z']}"]


def test_the_best_measurement_counts_when_asked_for(emulator):
    worse = REPORT.replace("/ step", "* step")
    study = {"measurementSelectionType": "BEST_MEASUREMENT"}
    last = submit(emulator, worse, maxTrialCount=1)
    best = submit(emulator, worse, maxTrialCount=1, study=study)
    for name, step in ((last, "2"), (best, "1")):
        assert ended(emulator, name)["trials"][0]["finalMeasurement"]["stepCount"] == step


def test_no_more_at_once_than_asked_for_and_than_cores(emulator):
    shared = emulator.shared
    code = f"""
import os, time
open(os.path.join({str(shared)!r}, os.environ["CLOUD_ML_TRIAL_ID"]), "w").close()
while not os.path.exists({str(shared / "gate")!r}): time.sleep(0.02)
"""
    room = min(2, os.cpu_count())
    name = submit(emulator, code + REPORT)
    until(lambda: len(list(shared.iterdir())) == room)
    job = get(emulator, name)
    assert job["state"] == "JOB_STATE_RUNNING"
    assert len(job["trials"]) == room
    assert (
        "trials"
        not in jobs(emulator)
        .list(parent=emulator.parent, filter='displayName="search"')
        .execute()["hyperparameterTuningJobs"][0]
    )
    with pytest.raises(HttpError, match="cancel it"):
        jobs(emulator).delete(name=name).execute()
    (shared / "gate").touch()
    assert len(ended(emulator, name)["trials"]) == 3
    assert jobs(emulator).delete(name=name).execute()["done"]
    for gone in (name, job["trials"][0]["customJob"]):
        assert emulator.request("GET", f"/v1/{gone}")[0] == 404


def test_a_failed_trial_is_marked_and_does_not_stop_the_others(emulator):
    code = "import os\nassert os.environ['CLOUD_ML_TRIAL_ID'] != '2', 'of two minds'\n" + REPORT
    job = ended(emulator, submit(emulator, code))
    assert job["state"] == "JOB_STATE_SUCCEEDED"
    assert [t["state"] for t in job["trials"]] == ["SUCCEEDED", "INFEASIBLE", "SUCCEEDED"]
    assert "of two minds" in job["trials"][1]["infeasibleReason"]
    assert "finalMeasurement" not in job["trials"][1]


@pytest.mark.parametrize(
    ("code", "limit", "count", "said"),
    [
        ("raise ValueError('boom')", 2, 2, "2 trials failed. The last: ValueError: boom"),
        ("print('nothing')", 0, 3, "3 trials failed. The last: The trial reported no finite"),
        (REPORT.replace("str(value)", "'nan'"), 1, 1, "no finite value of the metric loss"),
        (WRONG, 1, 1, "no finite value of the metric loss"),
    ],
)
def test_failures_end_a_search_when_they_are_too_many(emulator, code, limit, count, said):
    name = submit(emulator, code, maxFailedTrialCount=limit, parallelTrialCount=1)
    job = ended(emulator, name)
    assert job["state"] == "JOB_STATE_FAILED"
    assert said in job["error"]["message"]
    assert len(job["trials"]) == count


def test_cancel_stops_the_trials(emulator):
    name = submit(emulator, "import time; print('up', flush=True); time.sleep(600)")
    until(lambda: any(t["state"] == "ACTIVE" for t in get(emulator, name).get("trials", [])))
    jobs(emulator).cancel(name=name).execute()
    assert get(emulator, name)["state"] in ("JOB_STATE_CANCELLING", "JOB_STATE_CANCELLED")
    job = ended(emulator, name)
    assert job["state"] == "JOB_STATE_CANCELLED"
    assert job["error"]["code"] == 1
    for trial in job["trials"]:
        work = emulator.request("GET", f"/v1/{trial['customJob']}")[1]
        assert (trial["state"], work["state"]) == ("INFEASIBLE", "JOB_STATE_CANCELLED")
    jobs(emulator).cancel(name=name).execute()  # safe to repeat
    assert get(emulator, name) == job


def test_a_killed_local_cloud_goes_on_with_its_search(start_emulator):
    cloud = start_emulator()
    gate = cloud.shared / "gate"
    code = f"import os, time\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.02)\n"
    name = submit(cloud, code + REPORT, maxTrialCount=5)
    cloud.kill()  # at once: before a trial begins, or in the middle of it
    cloud = start_emulator()
    until(lambda: any(t["state"] == "ACTIVE" for t in get(cloud, name).get("trials", [])))
    before = get(cloud, name)["trials"]
    cloud.kill()
    gate.touch()
    job = ended(start_emulator(), name)
    assert job["state"] == "JOB_STATE_SUCCEEDED"
    assert [t["state"] for t in job["trials"]] == ["SUCCEEDED"] * 5
    for old, new in zip(before, job["trials"], strict=False):
        assert (old["parameters"], old["customJob"]) == (new["parameters"], new["customJob"])


def test_stopping_the_local_cloud_cancels_a_search(start_emulator):
    first = start_emulator("state", LOCAL_CLOUD_GRACE_S="0.5")
    name = submit(first, "import time; time.sleep(600)")
    until(lambda: any(t["state"] == "ACTIVE" for t in get(first, name).get("trials", [])))
    first.stop()
    job = ended(start_emulator(), name)
    assert job["state"] == "JOB_STATE_CANCELLED"
    assert "stopped" in job["error"]["message"]


# --- what to try next


def study(*parameters: dict, **more) -> dict:
    metrics = [{"metricId": "loss", "goal": "MINIMIZE"}]
    return {"metrics": metrics, "parameters": parameters} | more


def searched(spec: dict, count: int) -> list[dict]:
    """The values of a search for the least (x - 3)²."""
    trials = []
    for number in range(count):
        chosen = suggest(spec, trials, seed=1)
        if chosen is None:
            break
        given = [{"parameterId": key, "value": value} for key, value in chosen.items()]
        loss = [{"metricId": "loss", "value": (chosen["x"] - 3) ** 2}]
        ended = {"endTime": "now", "finalMeasurement": {"metrics": loss}}
        trials.append({"id": str(number), "parameters": given} | (ended if number % 7 else {}))
    return [values(trial) for trial in trials]


def test_a_grid_is_walked_once():
    tried = searched(study(INTEGER, DISCRETE, CATEGORY, algorithm="GRID_SEARCH"), 99)
    assert len(tried) == 3 * 2 * 2
    assert len({tuple(each.values()) for each in tried}) == len(tried)


def test_random_values_fill_a_range_by_orders_of_magnitude():
    wide = {"parameterId": "x", "doubleValueSpec": {"minValue": 1e-6, "maxValue": 1.0}}
    wide["scaleType"] = "UNIT_LOG_SCALE"
    tried = [each["x"] for each in searched(study(wide, algorithm="RANDOM_SEARCH"), 40)]
    assert all(1e-6 <= x <= 1 for x in tried)
    assert 10 <= sum(x < 1e-3 for x in tried) <= 30
    assert len(set(tried)) == 40


def test_the_search_learns_from_what_was_measured():
    tried = [each["x"] for each in searched(study(DOUBLE), 40)]
    assert sum(abs(x - 3) for x in tried[-10:]) < sum(abs(x - 3) for x in tried[:10]) / 2
    assert min(abs(x - 3) for x in tried) < 0.2
    assert tried == [each["x"] for each in searched(study(DOUBLE), 40)]
