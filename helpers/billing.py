"""What exists that costs money, at which price, and its removal."""

import datetime
import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from helpers.cloud import prices, storage
from helpers.cloud.buckets import check_project
from helpers.cloud.client import Session
from helpers.cloud.deployments import delete_endpoint, delete_model
from helpers.cloud.images import REPOSITORY
from helpers.cloud.jobs import ENDED
from helpers.cloud.links import console
from helpers.cloud.names import is_ours
from helpers.cloud.pages import PRICES

if TYPE_CHECKING:
    from helpers.looks.tables import Shown

FOLDERS = ("jobs/", "batch/", "images/", "notebooks/")  # what this package writes to a bucket
TRAINING, PREDICTION = "Training/Pipelines on", "Online/Batch Prediction"  # of the price list


def costs(session: Session) -> "Shown":
    """Everything this project made that bills while it exists.

    Returns:
        One row a resource: `what`, `name`, `machine`, `since` (UTC), `hours` so far,
        `usd_per_hour`, `usd_per_day`, and `price`: where the two come from, with its date. They
        are list prices of machines (while they are up) and storage, without free tiers, discounts,
        disks and network.
        What the price list does not answer beyond doubt is NaN and to be looked up by a person,
        because a made-up number is worse than none. The local cloud is free.
    Source: cloudbilling REST v1 services.skus.list
    """
    import pandas as pd  # a console that lists the same does without

    from helpers.looks.tables import shown

    columns = ["what", "name", "machine", "since", "usd_per_hour", "price"]
    frame = pd.DataFrame(bills(session), columns=columns)
    frame["since"] = pd.to_datetime(frame["since"], format="ISO8601", utc=True).dt.floor("s")
    now = pd.Timestamp(datetime.datetime.now(datetime.UTC))
    frame.insert(4, "hours", ((now - frame["since"]).dt.total_seconds() / 3600).round(1))
    frame["usd_per_hour"] = frame["usd_per_hour"].astype("float64")
    frame.insert(6, "usd_per_day", 24 * frame["usd_per_hour"])
    money = ("usd_per_hour", "usd_per_day")
    free = money if (frame["price"] == "free").all() else ()
    nothing = "Nothing bills."
    return shown(frame, units=dict.fromkeys(money, "$"), hidden=free, nothing=nothing)


def cleanup(
    session: Session,
    *,
    name: str = "",
    objects: bool = False,
    images: bool = False,
    dry_run: bool = False,
) -> None:
    """Remove what this project made, and say what remains; safe to repeat.

    Args:
        name: the display name of one endpoint: it alone goes, for it bills by the hour. "" takes
            every endpoint and every registered model that has this project's label.
        objects: also what jobs left in the bucket; models made from it can't be deployed again.
        images: also the repository of images; the next job builds them again.
        dry_run: only list what would be removed.
    """
    todo = removals(session, name=name, objects=objects, images=images)
    if not todo:
        print(f'Endpoint "{name}" does not exist; nothing to stop.' if name else "Nothing to do.")
    for what, which, remove in todo:
        print(f"{'Would remove' if dry_run else 'Removing'} {what} {which}")
        if not dry_run:
            remove()
    _say_what_remains(session)


def removals(
    session: Session, *, name: str = "", objects: bool = False, images: bool = False
) -> list[tuple[str, str, Callable]]:
    """What `cleanup` would remove: what it is, its name, and the call that removes it."""
    todo = [
        ("endpoint", item["displayName"], functools.partial(delete_endpoint, session, item["name"]))
        for item in _ours(session, "endpoints")
        if name in ("", item["displayName"])
    ]
    if not name:
        todo += [
            ("model", item["displayName"], functools.partial(delete_model, session, item["name"]))
            for item in _ours(session, "models")
        ]
    bucket = session.call(_bucket(session), unless=404) if objects else None
    if bucket:
        check_project(session, bucket)
        for uri in (f"gs://{session.bucket}/{folder}" for folder in FOLDERS):
            if count := len(storage.list_uris(session, uri)):
                remove = functools.partial(storage.delete, session, uri)
                todo.append((f"{count} objects", uri, remove))
    repository = _repository(session) if images else None
    if repository:
        remove = functools.partial(_delete_repository, session, repository["name"])
        todo.append(("images", REPOSITORY, remove))
    return todo


def bills(session: Session) -> list[dict]:
    """The rows of `costs`, without their sums; `usd_per_hour` is NaN where no price is known."""
    rows = []
    for *about, parts in _billed(session):
        row = dict(zip(("what", "name", "machine", "since"), about, strict=True))
        usd, price = prices.usd_per_hour(session, parts)
        rows.append(row | {"usd_per_hour": usd, "price": price})
    return rows


def _billed(session: Session) -> Iterator[tuple]:
    """(what, name, machine, since, Parts) of everything that bills."""
    yield from _endpoints(session)
    yield from _jobs(session, "customJobs", "training job", "jobSpec")
    yield from _jobs(session, "hyperparameterTuningJobs", "tuning job", "trialJobSpec")
    for job in _ours(session, "batchPredictionJobs"):
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
            yield "bucket", session.bucket, f"{size / 1e6:.1f} MB", since, parts
    repository = _repository(session)
    if repository:
        size, since = int(repository.get("sizeBytes", 0)), repository["createTime"]
        yield "images", REPOSITORY, f"{size / 1e6:.1f} MB", since, prices.images(size)


def _endpoints(session: Session) -> Iterator[tuple]:
    for endpoint in _ours(session, "endpoints"):
        for deployed in endpoint.get("deployedModels", []):
            pool = deployed.get("dedicatedResources", {})
            count = pool.get("minReplicaCount", 0)
            shown = _machines(pool, count or 1) + ("" if count else ", none when idle")
            parts = prices.machine(PREDICTION, pool, count or 1)
            yield "endpoint", endpoint["displayName"], shown, deployed["createTime"], parts


def _jobs(session: Session, kind: str, what: str, key: str) -> Iterator[tuple]:
    for job in _ours(session, kind):
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


def _ours(session: Session, kind: str) -> list[dict]:
    found = session.list(session.collection(kind), kind, parent=session.parent)
    return [item for item in found if is_ours(item)]


def _bucket(session: Session):
    return session.service("storage").buckets().get(bucket=session.bucket)


def _repositories(session: Session):
    return session.service("artifactregistry").projects().locations().repositories()


def _repository(session: Session) -> dict | None:
    """The repository of images, if it is there and ours."""
    name = f"{session.parent}/repositories/{REPOSITORY}"
    found = session.call(_repositories(session).get(name=name), unless=404)
    return found if found and is_ours(found) else None


def _delete_repository(session: Session, name: str) -> None:
    operation = session.call(_repositories(session).delete(name=name), unless=404)
    if operation:
        session.wait(operation, api="artifactregistry")


def _say_what_remains(session: Session) -> None:
    left = costs(session)
    hourly = left[~left["what"].isin(["bucket", "images"])]
    if hourly.empty:
        print("Nothing that bills by the hour is left.")
    if left.empty:
        return
    for row in left.itertuples():
        print(
            f"There is: {row.what} {row.name}, {row.machine}, since {row.since:%Y-%m-%d %H:%M} UTC"
        )
    month = left["usd_per_hour"].sum(skipna=False) * prices.MONTH_HOURS
    said = f"{month:.2f} USD a month" if month == month else f"a month: look up {PRICES}"
    print(f"What remains costs {said}. Files: {console(session, 'bucket', session.bucket)}")
