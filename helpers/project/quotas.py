"""How many machines a project may train on at a time, as Service Usage tells it."""

import re
from collections.abc import Iterator

from helpers.cloud.client import Session
from helpers.cloud.links import console
from helpers.errors import CloudError


def look(session: Session, machine_type: str, accelerator: str) -> Iterator[tuple]:
    """Whether as many CPUs and accelerators as one machine has may train at a time.

    Returns:
        A row a quota: its name, how much one machine takes, "there", "missing" or "look up", and
        what is left for a person.
    """
    for name, wanted in _quotas(machine_type, accelerator):
        limit, page = _limit(session, name), console(session, "quota", name)
        if limit is None:
            yield name, wanted, "look up", f"Could not be read, look up {name}: {page}"
        elif 0 <= limit < wanted:
            todo = f"At most {limit} of {wanted} {name}; ask for more: {page}"
            yield name, wanted, "missing", todo
        else:
            yield name, wanted, "there", ""


def _quotas(machine_type: str, accelerator: str = "") -> Iterator[tuple[str, int]]:
    """The quotas a training machine counts against: name, and how much one machine takes.

    Source: names as refusals of Vertex AI give them
    """
    series, _, size = machine_type.partition("-")
    cpus = re.search(r"-(\d+)$", size)  # none in a2-highgpu-1g
    name = "cpus" if series in ("n1", "e2") else f"{series}_cpus"
    yield f"custom_model_training_{name}", int(cpus[1]) if cpus else 1
    if accelerator:
        name = accelerator.lower().replace("tesla_", "")
        yield f"custom_model_training_{name}_gpus", 1


def _limit(session: Session, quota: str) -> int | None:
    """How much may be in use at a time in the region (-1: any); None where it can't be read.

    Source: REST v1beta1 services.consumerQuotaMetrics.get
    """
    metrics = session.service("serviceusage", "v1beta1").services().consumerQuotaMetrics()
    service = "aiplatform.googleapis.com"
    name = f"projects/{session.project}/services/{service}/consumerQuotaMetrics/{service}%2F{quota}"
    try:
        found = session.call(metrics.get(name=name, view="FULL"))
    except CloudError:
        return None
    here = ({}, {"region": session.location})
    limits = [  # from the least specific to the most; 0 is left out of answers
        int(bucket.get("effectiveLimit", 0)) for limit in found.get("consumerQuotaLimits", [])
        for bucket in limit.get("quotaBuckets", []) if bucket.get("dimensions", {}) in here
    ]  # fmt: skip
    return limits[-1] if limits else None
