"""Google's list prices: what a machine or a store costs an hour, where the list is clear."""

import functools
import re

from helpers.cloud.client import Session
from helpers.cloud.pages import PRICES
from helpers.errors import CloudError

# Services of the price list (cloudbilling v1 services.list).
VERTEX, STORAGE, REGISTRY = "C7E2-9256-1C43", "95FF-2EF5-5EA1", "149C-F9EC-3994"
# GB of memory a core [cloud.google.com/compute/docs/machine-resource].
MACHINE = re.compile(r"(n1|n2|e2)-(standard|highmem|highcpu)-(\d+)")
MEMORY = {"standard": 4, "highmem": 8, "highcpu": 1}
MEMORY_N1 = {"standard": 3.75, "highmem": 6.5, "highcpu": 0.9}
MONTH_HOURS = 730
HOURLY = {"h": 1, "GiBy.h": 1, "GiBy.mo": 1 / MONTH_HOURS}  # units of prices
Parts = list[tuple[str, str, float]]  # service of the price list, pattern of one SKU, how much


def machine(use: str, pool: dict, count: int) -> Parts:
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


def stored(size_bytes: int) -> Parts:
    """What the price list bills files in a bucket of one region by."""
    return [(STORAGE, r"Standard Storage (?!.*(Dual|Multi)-region).*", size_bytes / 2**30)]


def images(size_bytes: int) -> Parts:
    """What the price list bills images by."""
    return [(REGISTRY, "Artifact Registry Storage.*", size_bytes / 2**30)]


def usd_per_hour(session: Session, parts: Parts) -> tuple[float, str]:
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
