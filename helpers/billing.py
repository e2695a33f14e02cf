"""What exists that costs money, at which price, and its removal."""

import datetime
import functools
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from helpers.cloud import storage
from helpers.cloud.buckets import check_project
from helpers.cloud.client import Session
from helpers.cloud.images import REPOSITORY
from helpers.cloud.jobs import ENDED
from helpers.cloud.links import console
from helpers.cloud.resources import is_ours
from helpers.endpoints import delete_endpoint
from helpers.errors import CloudError
from helpers.registry import delete_model

if TYPE_CHECKING:
    from helpers.looks.tables import Shown

PRICES = "https://cloud.google.com/vertex-ai/pricing"
# Services of the price list (cloudbilling v1 services.list).
VERTEX, STORAGE, REGISTRY = "C7E2-9256-1C43", "95FF-2EF5-5EA1", "149C-F9EC-3994"
# GB of memory a core [cloud.google.com/compute/docs/machine-resource].
MACHINE = re.compile(r"(n1|n2|e2)-(standard|highmem|highcpu)-(\d+)")
MEMORY = {"standard": 4, "highmem": 8, "highcpu": 1}
MEMORY_N1 = {"standard": 3.75, "highmem": 6.5, "highcpu": 0.9}
MONTH_HOURS = 730
HOURLY = {"h": 1, "GiBy.h": 1, "GiBy.mo": 1 / MONTH_HOURS}  # units of prices
FOLDERS = ("jobs/", "batch/", "images/", "notebooks/")  # what this package writes to a bucket
Parts = list[tuple[str, str, float]]  # service of the price list, pattern of one SKU, how much


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
    prices = ("usd_per_hour", "usd_per_day")
    free = prices if (frame["price"] == "free").all() else ()
    nothing = "Nothing bills."
    return shown(frame, units=dict.fromkeys(prices, "$"), hidden=free, nothing=nothing)


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
    aiplatform = session.service("aiplatform").projects().locations()
    todo = [
        ("endpoint", item["displayName"], functools.partial(delete_endpoint, session, item["name"]))
        for item in _ours(session, aiplatform.endpoints(), "endpoints")
        if name in ("", item["displayName"])
    ]
    if not name:
        todo += [
            ("model", item["displayName"], functools.partial(delete_model, session, item["name"]))
            for item in _ours(session, aiplatform.models(), "models")
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
        usd, price = _price(session, parts)
        rows.append(row | {"usd_per_hour": usd, "price": price})
    return rows


def _billed(session: Session):
    """(what, name, machine, since, Parts) of everything that bills."""
    aiplatform = session.service("aiplatform").projects().locations()
    for endpoint in _ours(session, aiplatform.endpoints(), "endpoints"):
        for deployed in endpoint.get("deployedModels", []):
            pool = deployed.get("dedicatedResources", {})
            count = pool.get("minReplicaCount", 0)
            shown = _machines(pool, count or 1) + ("" if count else ", none when idle")
            parts = _machine("Online/Batch Prediction", pool, count or 1)
            yield "endpoint", endpoint["displayName"], shown, deployed["createTime"], parts
    for what, kind, key in (
        ("training job", "customJobs", "jobSpec"),
        ("tuning job", "hyperparameterTuningJobs", "trialJobSpec"),
    ):
        for job in _ours(session, getattr(aiplatform, kind)(), kind):
            if job["state"] not in ENDED:
                pools, trials = job[key]["workerPoolSpecs"], job.get("parallelTrialCount", 1)
                counts = [trials * int(pool.get("replicaCount", 1)) for pool in pools]
                each = list(map(_machine, ["Training/Pipelines on"] * len(pools), pools, counts))
                spot = job[key].get("scheduling", {}).get("strategy") == "SPOT"
                known = all(each) and not spot  # prices of spot machines move
                parts = [part for parts in each for part in parts] if known else []
                shown = ", ".join(map(_machines, pools, counts)) + (", spot" if spot else "")
                yield what, job["displayName"], shown, job["createTime"], parts
    for job in _ours(session, aiplatform.batchPredictionJobs(), "batchPredictionJobs"):
        if job["state"] not in ENDED:
            pool = job.get("dedicatedResources", {})
            count = pool.get("startingReplicaCount", 1)
            parts = _machine("Online/Batch Prediction", pool, count)
            shown = _machines(pool, count)
            yield "batch prediction", job["displayName"], shown, job["createTime"], parts
    bucket = session.call(_bucket(session), unless=404)
    if bucket:
        collection = session.service("storage").objects()
        wanted = "items(size,timeCreated),nextPageToken"
        items = session.list(collection, "items", bucket=session.bucket, fields=wanted)
        size, parts = sum(int(item["size"]) for item in items), []
        if bucket["location"].lower() == session.location:
            sku = r"Standard Storage (?!.*(Dual|Multi)-region).*"
            parts = [(STORAGE, sku, size / 2**30)]
        if items:
            since = min(item["timeCreated"] for item in items)
            yield "bucket", session.bucket, f"{size / 1e6:.1f} MB", since, parts
    repository = _repository(session)
    if repository:
        size = int(repository.get("sizeBytes", 0))
        parts = [(REGISTRY, "Artifact Registry Storage.*", size / 2**30)]
        yield "images", REPOSITORY, f"{size / 1e6:.1f} MB", repository["createTime"], parts


def _machines(pool: dict, count: int) -> str:
    return f"{count} × {pool.get('machineSpec', {}).get('machineType', 'automatic')}"


def _machine(use: str, pool: dict, count: int) -> Parts:
    """What the price list bills a machine by: cores, memory, and a fee of training."""
    spec = pool.get("machineSpec", {})
    shape = MACHINE.fullmatch(spec.get("machineType", ""))
    if not shape or spec.get("acceleratorCount"):
        return []
    family, kind, cores = shape[1], shape[2], count * int(shape[3])
    memory = cores * (MEMORY_N1 if family == "n1" else MEMORY)[kind]
    sku = f"Vertex AI: {use} {family} (Predefined )?Instance"
    parts = [(VERTEX, f"{sku} Core running in .*", cores)]
    parts.append((VERTEX, f"{sku} Ram running in .*", memory))
    if use.startswith("Training"):
        sku = f"Vertex AI: Training/Pipelines Management fee on {family} Instance"
        parts += [(VERTEX, f"{sku} Core in .*", cores), (VERTEX, f"{sku} Ram in .*", memory)]
    return parts


def _price(session: Session, parts: Parts) -> tuple[float, str]:
    """USD an hour and where it comes from; NaN unless each part is exactly one SKU."""
    if session.cloud == "local":
        return 0.0, "free"
    total, dates = 0.0, []
    for service, pattern, amount in parts:
        try:
            skus = _skus(session, service)
        except CloudError:  # the service is off, or may not be asked: then a person looks it up
            break
        fits = [s for s in skus if re.fullmatch(pattern, s["description"], re.IGNORECASE)]
        if len(fits) != 1:
            break
        info = fits[0]["pricingInfo"][-1]
        price = info["pricingExpression"]
        if price["usageUnit"] not in HOURLY:
            break
        money = price["tieredRates"][-1]["unitPrice"]  # what comes after a free tier
        each = int(money.get("units", 0)) + money.get("nanos", 0) / 1e9
        total += amount * HOURLY[price["usageUnit"]] * each
        dates.append(info["effectiveTime"][:10])
    if len(dates) < len(parts) or not parts:
        return float("nan"), f"look up: {PRICES}"
    return total, f"Cloud Billing price list of {max(dates)}"


@functools.lru_cache(maxsize=8)
def _skus(session: Session, service: str) -> list[dict]:
    """A service's prices in the session's region."""
    collection = session.service("cloudbilling").services().skus()
    skus = session.list(collection, "skus", parent=f"services/{service}", currencyCode="USD")
    here = {session.location, "global"}
    return [sku for sku in skus if here & set(sku.get("serviceRegions", []))]


def _ours(session: Session, collection, key: str) -> list[dict]:
    found = session.list(collection, key, parent=session.parent)
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
    month = left["usd_per_hour"].sum(skipna=False) * MONTH_HOURS
    said = f"{month:.2f} USD a month" if month == month else f"a month: look up {PRICES}"
    print(f"What remains costs {said}. Files: {console(session, 'bucket', session.bucket)}")
