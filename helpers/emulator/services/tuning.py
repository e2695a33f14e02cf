"""Tuning jobs: every trial is a training job of its own (jobs.py), with the values to try as
arguments; the next values are Optuna's.

The state holds all there is to know: a trial is written there with its job's name before that job
is made, so that after a kill the watcher goes on as if nothing had been.
"""

import contextlib
import copy
import datetime
import functools
import itertools
import json
import math
import os
import threading
from pathlib import Path

from helpers.emulator.front import calls
from helpers.emulator.front.calls import Call, Cloud, method, now
from helpers.emulator.services import job_states, jobs

ID = "aiplatform.projects.locations.hyperparameterTuningJobs."
STARTUP_TRIALS = 4  # drawn at random before the search goes by what it has seen
_live: set[str] = set()  # names of jobs that have not ended
_wake, _closing = threading.Event(), threading.Event()


# --- The service


@method(ID + "create")
def create(call: Call) -> dict:
    name = f"{call.path['parent']}/hyperparameterTuningJobs/{call.state.next_id()}"
    job = job_states.keep(call.cloud, name, call.body, "PENDING")
    _live.add(name)
    _wake.set()
    return job


def _forget(cloud: Cloud, job: dict) -> None:
    for trial in job.get("trials", []):
        jobs.forget(cloud, {"name": trial["customJob"]})
        cloud.state.delete(trial["customJob"])


# --- The watcher


@calls.on_start
def adopt(cloud: Cloud) -> None:
    """Go on with what an earlier local cloud left, and watch."""
    all_jobs = cloud.state.list("hyperparameterTuningJob")
    _live.update(job["name"] for job in all_jobs if job_states.is_live(job))
    step, fail = functools.partial(_step, cloud), functools.partial(_fail, cloud)
    job_states.watch(_live, step, fail, _wake)


@calls.on_stop
def stop(cloud: Cloud) -> None:
    """As training jobs, these do not outlive a local cloud that is told to end."""
    _closing.set()
    for name in list(_live):
        _cancel(cloud, name, "CANCELED: the local cloud was stopped.")


@calls.on_busy
def busy(cloud: Cloud) -> bool:
    return bool(_live)


def _fail(cloud: Cloud, name: str, error: Exception) -> None:
    said = job_states.broken(error)
    for trial in cloud.state.get(name).get("trials", []):
        jobs.end(trial["customJob"], said["message"])
    _write(cloud, name, "FAILED", endTime=now(), error=said)


def _step(cloud: Cloud, name: str) -> None:
    """Move a tuning job on by what became of its trials since the last look."""
    job = cloud.state.get(name)
    trials, asked = copy.deepcopy(job.get("trials", [])), job.get("_asked")
    for trial in trials:
        if "endTime" not in trial:
            _look(cloud, job, trial)
    active = [trial for trial in trials if "endTime" not in trial]
    reasons = [trial["infeasibleReason"] for trial in trials if "infeasibleReason" in trial]
    limit = job.get("maxFailedTrialCount") or job["maxTrialCount"]
    state, error = "RUNNING", asked
    if not asked and len(reasons) < limit:
        pools = filter(None, job["trialJobSpec"]["workerPoolSpecs"])
        fit = (os.cpu_count() or 1) // sum(int(pool.get("replicaCount", 1)) for pool in pools)
        room = min(job["parallelTrialCount"], max(1, fit))
        while len(active) < room and len(trials) < job["maxTrialCount"]:
            values = suggest(job["studySpec"], trials, seed=int(name.rsplit("/", 1)[-1]))
            if values is None:
                break
            trials.append(_requested(cloud, job, str(len(trials) + 1), values))
            active.append(trials[-1])
    elif not asked:
        error = {"code": 3, "message": f"{len(reasons)} trials failed. The last: {reasons[-1]}"}
    if error:
        for trial in active:
            jobs.end(trial["customJob"], error["message"])
    if not active:
        state = "CANCELLED" if asked else "FAILED" if error else "SUCCEEDED"
    if trials != job.get("trials") or not active:
        ended = {"endTime": now()} | ({"error": error} if error else {}) if not active else {}
        _write(cloud, name, state, trials=trials, **ended)
    for trial in active:  # written first, begun second
        if cloud.state.get(trial["customJob"]) is None and not _closing.is_set():
            jobs.begin(cloud, trial["customJob"], _work(cloud, job, trial))


def _look(cloud: Cloud, job: dict, trial: dict) -> None:
    """Note what became of a trial's training job."""
    work = cloud.state.get(trial["customJob"])
    if work and "startTime" in work:
        trial |= {"state": "ACTIVE", "startTime": work["startTime"]}
    if not work or "endTime" not in work:
        return
    metric = job["studySpec"]["metrics"][0]
    measurements = _measurements(cloud, work, metric["metricId"])
    trial |= {"endTime": work["endTime"]} | ({"measurements": measurements} if measurements else {})
    if work["state"] == "JOB_STATE_SUCCEEDED" and measurements:
        final = measurements[-1]
        if job["studySpec"].get("measurementSelectionType") == "BEST_MEASUREMENT":
            final = (max if metric["goal"] == "MAXIMIZE" else min)(measurements, key=_value)
        trial |= {"state": "SUCCEEDED", "finalMeasurement": final}
    else:
        said = work.get("error", {}).get("message")
        said = said or f"The trial reported no finite value of the metric {metric['metricId']}."
        trial |= {"state": "INFEASIBLE", "infeasibleReason": said}


def _measurements(cloud: Cloud, work: dict, metric: str) -> list[dict]:
    """What a trial wrote as the package cloudml-hypertune does, one JSON object a line; others
    are passed over."""
    try:
        lines = _metrics(cloud, work["name"]).read_text().splitlines()
    except FileNotFoundError:
        return []
    start, made = datetime.datetime.fromisoformat(work["startTime"]).timestamp(), []
    for text in lines:
        with contextlib.suppress(ValueError, TypeError, LookupError, AttributeError):
            line = json.loads(text)
            measured = {
                "stepCount": str(int(line.get("global_step", 0))),
                "elapsedDuration": f"{max(0, line['timestamp'] - start):.3f}s",
                "metrics": [{"metricId": metric, "value": float(line[metric])}],
            }
            made += [measured] if math.isfinite(_value(measured)) else []
    return made


def _requested(cloud: Cloud, job: dict, number: str, values: dict) -> dict:
    parent = job["name"].partition("/hyperparameterTuningJobs/")[0]
    given = [{"parameterId": key, "value": value} for key, value in values.items()]
    work = f"{parent}/customJobs/{cloud.state.next_id()}"
    return {"id": number, "state": "REQUESTED", "parameters": given, "customJob": work}


def _work(cloud: Cloud, job: dict, trial: dict) -> dict:
    """A trial's training job: the values as arguments, results in a folder of its own [P]."""
    spec = copy.deepcopy(job["trialJobSpec"])
    for pool in filter(None, spec["workerPoolSpecs"]):
        task = pool.get("containerSpec") or pool["pythonPackageSpec"]
        values = {given["parameterId"]: given["value"] for given in trial["parameters"]}
        task["args"] = task.get("args", []) + [f"--{key}={_text(v)}" for key, v in values.items()]
        about = {"CLOUD_ML_TRIAL_ID": trial["id"]}
        about["CLOUD_ML_HP_METRIC_FILE"] = str(_metrics(cloud, trial["customJob"]))
        task["env"] = task.get("env", []) + [{"name": k, "value": v} for k, v in about.items()]
    if "baseOutputDirectory" in spec:
        prefix = spec["baseOutputDirectory"]["outputUriPrefix"].rstrip("/")
        spec["baseOutputDirectory"] = {"outputUriPrefix": f"{prefix}/{trial['id']}"}
    return {"displayName": f"{job['displayName']} trial {trial['id']}"[:128], "jobSpec": spec}


def _metrics(cloud: Cloud, work: str) -> Path:
    return jobs.home(cloud, work) / "output.metrics"


def _write(cloud: Cloud, name: str, state: str, **fields) -> None:
    start = cloud.state.get(name).get("startTime") or now()
    if not job_states.is_live(job_states.change(cloud, name, state, startTime=start, **fields)):
        _live.discard(name)


def _cancel(cloud: Cloud, name: str, message: str = "CANCELED") -> None:
    if "_asked" not in cloud.state.get(name):
        asked = {"code": 1, "message": message}
        job_states.change(cloud, name, "CANCELLING", _asked=asked)
    _wake.set()


job_states.serve("hyperparameterTuningJobs", cancel=_cancel, forget=_forget, unlisted="trials")


# --- What to try next


def suggest(spec: dict, trials: list[dict], *, seed: int) -> dict | None:
    """Values for the next trial, by parameter; None when a grid has been walked.

    Args:
        spec: a StudySpec.
        trials: those there are, with what they measured.
        seed: the same study asks for the same values.
    """
    if spec.get("algorithm") == "GRID_SEARCH":
        names = [parameter["parameterId"] for parameter in spec["parameters"]]
        grid = itertools.product(*map(_choices, spec["parameters"]))
        chosen = next(itertools.islice(grid, len(trials), None), None)
        return chosen and dict(zip(names, chosen, strict=True))
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    samplers, seed = optuna.samplers, (seed + len(trials)) % 2**32
    if spec.get("algorithm") == "RANDOM_SEARCH":
        sampler = samplers.RandomSampler(seed=seed)
    else:
        sampler = samplers.TPESampler(
            seed=seed, n_startup_trials=STARTUP_TRIALS, constant_liar=True, multivariate=True
        )
    direction = spec["metrics"][0]["goal"].lower()
    study = optuna.create_study(direction=direction, sampler=sampler)
    space = {each["parameterId"]: _distribution(each) for each in spec["parameters"]}
    for trial in trials:
        state, value = optuna.trial.TrialState.RUNNING, None
        if "endTime" in trial:
            state = optuna.trial.TrialState.FAIL
        if "finalMeasurement" in trial:
            state, value = optuna.trial.TrialState.COMPLETE, _value(trial["finalMeasurement"])
        params = {given["parameterId"]: given["value"] for given in trial["parameters"]}
        study.add_trial(optuna.trial.create_trial(
            params=params, distributions=space, value=value, state=state
        ))  # fmt: skip
    return study.ask(space).params


def _distribution(parameter: dict):
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    logarithmic = parameter.get("scaleType") == "UNIT_LOG_SCALE"
    for kind, make, number in [
        ("doubleValueSpec", FloatDistribution, float), ("integerValueSpec", IntDistribution, int),
    ]:  # fmt: skip
        if kind in parameter:
            low, high = (number(parameter[kind].get(end, 0)) for end in ("minValue", "maxValue"))
            return make(low, high, log=logarithmic)
    return CategoricalDistribution(_choices(parameter))


def _choices(parameter: dict) -> list:
    if "integerValueSpec" in parameter:
        low, high = (int(parameter["integerValueSpec"].get(f"{m}Value", 0)) for m in ("min", "max"))
        return list(range(low, high + 1))
    return parameter.get("discreteValueSpec", parameter.get("categoricalValueSpec"))["values"]


def _value(measurement: dict) -> float:
    return measurement["metrics"][0]["value"]


def _text(value: float | str) -> str:
    whole = isinstance(value, float) and value.is_integer() and abs(value) < 2**53
    return str(int(value)) if whole else str(value)
