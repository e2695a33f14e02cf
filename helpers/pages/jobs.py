"""Jobs of every kind: the list, one job with its log, curves and report, its cancellation."""

import json
import math

from helpers.cloud import resources, storage
from helpers.cloud.jobs import ENDED
from helpers.cloud.names import number
from helpers.errors import CloudError, HelpersError
from helpers.pages import drawings, logs
from helpers.pages.views import Confirm, Done, Page, Session, Visit, confirmed, seconds
from helpers.project import trial_values

KINDS = {
    "training": "customJobs", "tuning": "hyperparameterTuningJobs",
    "batch": "batchPredictionJobs", "build": "builds",
}  # fmt: skip
BUILD_STATES = {"WORKING": "RUNNING", "SUCCESS": "SUCCEEDED", "FAILURE": "FAILED"}
OVER = {state.removeprefix("JOB_STATE_") for state in ENDED}
OVER |= {"INTERNAL_ERROR", "TIMEOUT", "EXPIRED"}
SHOWN = 200  # jobs of a list
SMALL_BYTES = 2_000_000  # of JSON that is read for a page


def every(session: Session) -> list[dict]:
    """All jobs, newest first, whatever their kind, as `about` gives them."""
    found = []
    for kind, plural in KINDS.items():
        try:
            items = session.list(_jobs(session, kind), plural, parent=session.parent)
        except CloudError as error:
            if error.status not in (403, 501):
                raise
            continue  # a service that is off has no jobs to show
        found += [_about(kind, item) for item in items]
    return sorted(found, key=lambda job: job["created"], reverse=True)


def about(session: Session, kind: str, job_id: str) -> dict:
    """One job: `kind id name state ended created start end seconds labels error resource`."""
    name = f"{session.parent}/{KINDS[kind]}/{job_id}"
    return _about(kind, session.call(_jobs(session, kind).get(name=name)))


def _about(kind: str, item: dict) -> dict:
    if kind == "build":
        state = BUILD_STATES.get(item.get("status", ""), item.get("status", "UNKNOWN"))
        name = number(next(iter(item.get("images", [])), "") or item["id"])
        said = item.get("failureInfo", {}).get("detail") or item.get("statusDetail", "")
        labels, end = dict.fromkeys(item.get("tags", []), ""), item.get("finishTime", "")
    else:
        state, name = item["state"].removeprefix("JOB_STATE_"), item["displayName"]
        said = item.get("error", {}).get("message", "")
        labels, end = item.get("labels", {}), item.get("endTime", "")
    start = item.get("startTime", "")
    return {
        "kind": kind, "id": number(item["name"]), "name": name, "state": state,
        "ended": state in OVER, "failed": state in OVER - {"SUCCEEDED", "CANCELLED"},
        "created": item["createTime"], "start": start, "end": end,
        "seconds": seconds(start, end) if start and (end or state not in OVER) else None,
        "labels": labels, "error": said, "resource": item,
    }  # fmt: skip


def listed(visit: Visit) -> Page:
    kind, state, find = (visit.query.get(name, "") for name in ("kind", "state", "find"))
    found = every(visit.session)
    chosen = [
        job for job in found
        if kind in ("", job["kind"]) and state in ("", job["state"]) and _holds(job, find)
    ]  # fmt: skip
    return Page("jobs.html", {
        "jobs": chosen[:SHOWN], "count": len(chosen), "all": len(found), "kinds": list(KINDS),
        "states": sorted({job["state"] for job in found}), "kind": kind, "state": state,
        "find": find,
    })  # fmt: skip


def _holds(job: dict, find: str) -> bool:
    pairs = [f"{key}={value}" if value else key for key, value in job["labels"].items()]
    texts = [text.lower() for text in (job["name"], job["id"], *pairs)]
    return all(any(word in text for text in texts) for word in find.lower().split())


def show(visit: Visit) -> Page:
    session, kind = visit.session, visit.path["kind"]
    job = about(session, kind, visit.path["id"])
    values = {"job": job, "log": None, "trials": None}
    values |= moving(session, job) | _made_of(session, job)
    values |= {name: visit.query.get(name, "") for name in ("replica", "find")}
    if kind in logs.TYPES:
        reader = logs.of_page(visit, ended=job["ended"])
        values |= {"log": list(reader.lines), "left_out": reader.left_out, "cursor": reader.cursor,
                   "complete": reader.complete}  # fmt: skip
    if kind == "tuning":
        values["trials"] = _trials(session, job["resource"])
    return Page("job.html", values)


def moving(session: Session, job: dict) -> dict:
    """What changes while a job runs: its epochs and their curves."""
    if job["kind"] != "training":
        return {"epochs": None, "charts": []}
    found = logs.epochs(session, job["kind"], job["id"])
    drawn = {name: drawings.chart(rows, x="epoch") for name, rows in found["curves"].items()}
    charts = [chart | {"name": name} for name, chart in drawn.items() if chart]
    return {"epochs": found, "charts": charts[:6]}


def _made_of(session: Session, job: dict) -> dict:
    """Machines, parameters and files of a job."""
    item, kind = job["resource"], job["kind"]
    base, pools, parameters, left, facts = "", [], {}, [], {}
    if kind in ("training", "tuning"):
        spec = item.get("jobSpec") or item["trialJobSpec"]
        base = base_uri(spec)
        pools = [_pool(n, pool) for n, pool in enumerate(spec["workerPoolSpecs"])]
        parameters = _parameters(session, spec["workerPoolSpecs"][0])
        scheduling = spec.get("scheduling", {})
        strategy = scheduling.get("strategy", "").lower()
        facts = {
            "Stopped after": scheduling.get("timeout", ""),
            "Runs as": spec.get("serviceAccount", ""),
            "Machines": strategy.replace("spot", "spot (may be taken back)"),
        }  # fmt: skip
    elif kind == "batch":
        facts = {"Model": item.get("model", "").rpartition("/")[2]} | _batch(item)
        pools = [_pool(0, item.get("dedicatedResources", {}))]
        base = item.get("outputInfo", {}).get("gcsOutputDirectory", "")
    else:
        facts = {"Images": ", ".join(item.get("images", [])), "Limit": item.get("timeout", "")}
        facts["Steps"] = "; ".join(" ".join([s["name"], *s.get("args", [])]) for s in item["steps"])
    if base:
        try:
            left = list(storage.sizes(session, f"{base}/").items())
        except HelpersError:  # a bucket of somebody else's
            left = []
    report = f"{base}/report.html" if f"{base}/report.html" in dict(left) else ""
    tasks = [f"workerpool{n}-{i}" for n, p in enumerate(pools) for i in range(p["replicas"])]
    return {
        "base": base, "pools": pools, "parameters": parameters, "left": left, "report": report,
        "tasks": [*tasks, "service"], "facts": {k: v for k, v in facts.items() if v},
    }  # fmt: skip


def _pool(number: int, pool: dict) -> dict:
    spec = pool.get("machineSpec", {})
    count = spec.get("acceleratorCount", 0)
    task = pool.get("containerSpec") or pool.get("pythonPackageSpec") or {}
    return {
        "name": ["chief", "workers", "parameter servers", "evaluator"][min(number, 3)],
        "replicas": int(pool.get("replicaCount") or pool.get("startingReplicaCount") or 1),
        "machine": spec.get("machineType", "automatic"),
        "accelerator": f"{count} × {spec['acceleratorType']}" if count else "",
        "image": task.get("imageUri") or task.get("executorImageUri", ""),
        "arguments": task.get("command", []) + task.get("args", []),
    }  # fmt: skip


def _parameters(session: Session, pool: dict) -> dict:
    """What the notebook was given: the file that `helpers.train` wrote, then a trial's values."""
    found = {}
    for argument in pool.get("containerSpec", {}).get("args", []):
        name, _, value = argument.removeprefix("--").partition("=")
        if name == "parameters" and value.startswith("gs://"):
            found |= read_json(session, value)
        elif name.isupper():
            found[name] = value
    return found


def read_json(session: Session, uri: str) -> dict:
    """A small JSON object of a bucket; {} when it is not there or is none."""
    try:
        content = storage.read_part(session, uri, 0, SMALL_BYTES)
        found = json.loads(content)
    except (CloudError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _batch(item: dict) -> dict:
    stats = item.get("completionStats", {})
    given = item.get("inputConfig", {})
    uris = given.get("gcsSource", {}).get("uris", [])
    counts = [f"{int(stats[k]):,} {k.removesuffix('Count')}" for k in sorted(stats, reverse=True)]
    return {"Input": ", ".join(uris), "Format": given.get("instancesFormat", ""),
            "Rows": ", ".join(counts)}  # fmt: skip


def _trials(session: Session, item: dict) -> dict:
    """A search: its trials, the best first, and a picture a parameter."""
    study = item["studySpec"]
    metric = study["metrics"][0]
    sign = 1 if metric.get("goal") == "MINIMIZE" else -1
    base = base_uri(item["trialJobSpec"])
    every_job = resources.every(session, "customJobs")
    jobs = {base_uri(job["jobSpec"]): number(job["name"]) for job in every_job}
    rows = [
        {
            "id": trial["id"], "state": trial["state"], "values": trial_values.values(trial),
            "metric": trial_values.measured(trial), "reason": trial.get("infeasibleReason", ""),
            "job": jobs.get(f"{base}/{trial['id']}", ""),
        }
        for trial in item.get("trials", [])
    ]  # fmt: skip
    rows.sort(key=lambda row: (math.isnan(row["metric"]), sign * row["metric"]))
    charts = []
    for about in study["parameters"]:
        name = about["parameterId"]
        points = [(row["values"].get(name), row["metric"]) for row in rows]
        points = [point for point in points if isinstance(point[0], int | float)]
        log = "LOG" in about.get("scaleType", "")
        drawn = drawings.chart({name: points}, dots=True, x=name, log_x=log, best=0)
        charts += [{"name": metric["metricId"]} | drawn] if drawn else []
    names = [about["parameterId"] for about in study["parameters"]]
    return {"rows": rows, "charts": charts, "metric": metric["metricId"],
            "goal": metric.get("goal", "").lower(), "names": names}  # fmt: skip


def base_uri(spec: dict) -> str:
    """The folder in which a job leaves what it makes."""
    return spec.get("baseOutputDirectory", {}).get("outputUriPrefix", "").rstrip("/")


def cancel(visit: Visit) -> Confirm | Done:
    session, kind = visit.session, visit.path["kind"]
    job = about(session, kind, visit.path["id"])
    effects = ["It is told to stop, saves what it has within the grace time, and stops billing.",
               "It can't be resumed; what it left in the bucket stays there."]  # fmt: skip
    page = f"jobs/{kind}/{job['id']}"
    asked = Confirm(f"Cancel the {kind} job {job['name']}?", effects, "Cancel the job", page)
    if job["ended"]:
        return Done(page, f"{job['name']} has ended already: {job['state']}.")
    if not confirmed(visit, asked):
        return asked
    request = _jobs(session, kind).cancel(name=job["resource"]["name"])
    session.call(request, repeatable=True)
    return Done(page, f"{job['name']} was told to stop.")


def _jobs(session: Session, kind: str):
    if kind == "build":
        return session.service("cloudbuild").projects().locations().builds()
    return session.collection(KINDS[kind])
