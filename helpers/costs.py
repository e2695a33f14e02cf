"""What exists that costs money, and its removal."""

import datetime

import pandas as pd

from helpers import storage
from helpers.deploy import delete_endpoint, find_endpoint, undeploy
from helpers.errors import NotFoundError
from helpers.session import Session, console
from helpers.train import ENDED

PRICES = "https://cloud.google.com/vertex-ai/pricing"


def costs(session: Session) -> pd.DataFrame:
    """Everything this project made that bills while it exists.

    Returns:
        One row a resource: `what`, `name`, `machine`, `since` (UTC), `hours` so far, `price`.
        On the local cloud the price is "free"; on Google it is looked up by a person, because a
        made-up number is worse than none.
    """
    aiplatform = session.service("aiplatform").projects().locations()
    rows = []
    for endpoint in session.list(aiplatform.endpoints(), "endpoints", parent=session.parent):
        for deployed in endpoint.get("deployedModels", []):
            machines = _machines(deployed.get("dedicatedResources", {}), "minReplicaCount")
            rows.append(("endpoint", endpoint["displayName"], machines, deployed["createTime"]))
    for job in session.list(aiplatform.customJobs(), "customJobs", parent=session.parent):
        if job["state"] not in ENDED:
            pools = job["jobSpec"]["workerPoolSpecs"]
            machines = ", ".join(_machines(pool, "replicaCount") for pool in pools)
            rows.append(("training job", job["displayName"], machines, job["createTime"]))
    batches = aiplatform.batchPredictionJobs()
    for job in session.list(batches, "batchPredictionJobs", parent=session.parent):
        if job["state"] not in ENDED:
            machines = _machines(job.get("dedicatedResources", {}), "startingReplicaCount")
            rows.append(("batch prediction", job["displayName"], machines, job["createTime"]))
    objects = session.list(session.service("storage").objects(), "items", bucket=session.bucket)
    size_bytes = sum(int(item["size"]) for item in objects)
    if objects:
        since = min(item["timeCreated"] for item in objects)
        rows.append(("bucket", session.bucket, f"{size_bytes / 1e6:.1f} MB", since))
    frame = pd.DataFrame(rows, columns=["what", "name", "machine", "since"])
    frame["since"] = pd.to_datetime(frame["since"], format="ISO8601", utc=True).dt.floor("s")
    now = pd.Timestamp(datetime.datetime.now(datetime.UTC))
    frame["hours"] = ((now - frame["since"]).dt.total_seconds() / 3600).round(1)
    frame["price"] = "free" if session.cloud == "local" else f"look up: {PRICES}"
    return frame


def cleanup(session: Session, *, name: str) -> None:
    """Stop what costs money: undeploy every model of an endpoint, then delete it.

    Safe to repeat. Models and files stay (they cost cents); what remains is printed.
    """
    endpoints = session.service("aiplatform").projects().locations().endpoints()
    try:
        resource_name = find_endpoint(session, name).resource_name
    except NotFoundError:
        print(f'Endpoint "{name}" does not exist; nothing to stop.')
    else:
        resource = session.call(endpoints.get(name=resource_name))
        left = [deployed["id"] for deployed in resource.get("deployedModels", [])]
        while left:
            body = {"deployedModelId": left.pop()}
            if left:  # only the last one may leave while it has traffic
                body["trafficSplit"] = dict.fromkeys(left, 0) | {left[0]: 100}
            undeploy(session, resource_name, body)
        delete_endpoint(session, resource_name)
        print(f'Endpoint "{name}": {len(resource.get("deployedModels", []))} models undeployed.')
    left = costs(session)
    running = left[left["what"] != "bucket"]
    nothing = "Nothing that bills by the hour is left."
    print(nothing if running.empty else running.to_string(index=False))
    count = len(storage.list_uris(session, f"gs://{session.bucket}/"))
    print(f"Kept: {count} objects in {console(session, 'bucket', session.bucket)}")


def _machines(pool: dict, count: str) -> str:
    return f"{pool.get(count, 1)} × {pool.get('machineSpec', {}).get('machineType', 'automatic')}"
