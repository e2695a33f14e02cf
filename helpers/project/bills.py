"""What this project has that bills while it exists, and how each of it is removed."""

import functools
from collections.abc import Callable, Iterator

from tqdm import tqdm

from helpers.cloud import repository, storage
from helpers.cloud.buckets import check_project
from helpers.cloud.client import Session
from helpers.cloud.jobs import ENDED
from helpers.cloud.names import is_ours
from helpers.cloud.resources import ours
from helpers.project import deployments, prices

FOLDERS = ("jobs/", "batch/", "images/", "notebooks/")  # what this package writes to a bucket
TRAINING, PREDICTION = "Training/Pipelines on", "Online/Batch Prediction"  # of the price list


def bills(session: Session) -> list[dict]:
    """The rows of `helpers.costs`, without their sums.

    Returns:
        `what name machine since usd_per_hour price`; NaN an hour where no price is known.
    """
    rows = []
    for *about, parts in _billed(session):
        row = dict(zip(("what", "name", "machine", "since"), about, strict=True))
        usd, price = prices.usd_per_hour(session, parts)
        rows.append(row | {"usd_per_hour": usd, "price": price})
    return rows


def removals(
    session: Session, *, name: str = "", objects: bool = False, images: bool = False
) -> list[tuple[str, str, Callable]]:
    """What `helpers.cleanup` would remove: what it is, its name, and the call that removes it."""
    kinds = {"endpoints": deployments.delete_endpoint, "models": deployments.delete_model}
    todo = [
        (kind[:-1], item["displayName"], functools.partial(delete, session, item["name"]))
        for kind, delete in kinds.items()
        if kind == "endpoints" or not name
        for item in ours(session, kind)
        if name in ("", item["displayName"])
    ]
    bucket = session.call(_bucket(session), unless=404) if objects else None
    if bucket:
        check_project(session, bucket)
        for uri in (f"gs://{session.bucket}/{folder}" for folder in FOLDERS):
            if count := len(storage.list_uris(session, uri)):
                remove = functools.partial(storage.delete, session, uri)
                todo.append((f"{count} objects", uri, remove))
    if images and _images(session):
        todo.append(("images", repository.NAME, functools.partial(repository.delete, session)))
    return todo


def _billed(session: Session) -> Iterator[tuple]:
    """(what, name, machine, since, Parts) of everything that bills."""
    for endpoint in ours(session, "endpoints"):
        several = endpoint.get("deployedModels", [])
        for deployed in several:
            pool = deployed.get("dedicatedResources", {})
            count = pool.get("minReplicaCount", 0)
            shown = _machines(pool, count or 1) + ("" if count else ", none when idle")
            version = deployed.get("modelVersionId", "")
            shown += f", version {version}" if version and len(several) > 1 else ""
            parts = prices.machine(PREDICTION, pool, count or 1)
            yield "endpoint", endpoint["displayName"], shown, deployed["createTime"], parts
    yield from _jobs(session, "customJobs", "training job", "jobSpec")
    yield from _jobs(session, "hyperparameterTuningJobs", "tuning job", "trialJobSpec")
    for job in ours(session, "batchPredictionJobs"):
        if job["state"] not in ENDED:
            pool = job.get("dedicatedResources", {})
            count = pool.get("startingReplicaCount", 1)
            parts = prices.machine(PREDICTION, pool, count)
            name, shown = job["displayName"], _machines(pool, count)
            yield "batch prediction", name, shown, job["createTime"], parts
    bucket = session.call(_bucket(session), unless=404)
    if bucket:
        collection = session.service("storage").objects()
        wanted = "items(size,timeCreated),nextPageToken"
        items = session.list(collection, "items", bucket=session.bucket, fields=wanted)
        size = sum(int(item["size"]) for item in items)
        parts = prices.stored(size) if bucket["location"].lower() == session.location else []
        if items:
            since = min(item["timeCreated"] for item in items)
            yield "bucket", session.bucket, tqdm.format_sizeof(size, "B"), since, parts
    if found := _images(session):
        size, since = int(found.get("sizeBytes", 0)), found["createTime"]
        yield "images", repository.NAME, tqdm.format_sizeof(size, "B"), since, prices.images(size)


def _jobs(session: Session, kind: str, what: str, key: str) -> Iterator[tuple]:
    for job in ours(session, kind):
        if job["state"] in ENDED:
            continue
        pools, trials = job[key]["workerPoolSpecs"], job.get("parallelTrialCount", 1)
        counts = [trials * int(pool.get("replicaCount", 1)) for pool in pools]
        each = [prices.machine(TRAINING, *one) for one in zip(pools, counts, strict=True)]
        spot = job[key].get("scheduling", {}).get("strategy") == "SPOT"
        known = all(each) and not spot  # prices of spot machines move
        parts = [part for parts in each for part in parts] if known else []
        shown = ", ".join(map(_machines, pools, counts)) + (", spot" if spot else "")
        yield what, job["displayName"], shown, job["createTime"], parts


def _machines(pool: dict, count: int) -> str:
    return f"{count} × {pool.get('machineSpec', {}).get('machineType', 'automatic')}"


def _bucket(session: Session):
    return session.service("storage").buckets().get(bucket=session.bucket)


def _images(session: Session) -> dict | None:
    """The repository of images, if it is there and ours."""
    found = repository.get(session)
    return found if found and is_ours(found) else None
