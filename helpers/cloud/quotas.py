"""How many machines a project may train on at a time, as Service Usage tells it."""

import re
from collections.abc import Iterator

from helpers.cloud.client import Session
from helpers.errors import CloudError


def quotas(machine_type: str, accelerator: str = "") -> Iterator[tuple[str, int]]:
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


def limit(session: Session, quota: str) -> int | None:
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
