"""Where a person looks: the pages of Google's console, or of ours on the local cloud."""

from helpers.cloud.client import Session
from helpers.cloud.console import address
from helpers.errors import LocalCloudError

# Where a person looks, by kind of thing; {p} project, {l} region, {x} id.
CONSOLE = {
    "job": "https://console.cloud.google.com/vertex-ai/locations/{l}/training/{x}?project={p}",
    "batch": "https://console.cloud.google.com/vertex-ai/locations/{l}/batch-predictions/{x}?project={p}",
    "model": "https://console.cloud.google.com/vertex-ai/models/locations/{l}/models/{x}?project={p}",
    "endpoint": "https://console.cloud.google.com/vertex-ai/locations/{l}/endpoints/{x}?project={p}",
    "tuning": "https://console.cloud.google.com/vertex-ai/locations/{l}/training/{x}?project={p}",
    "bucket": "https://console.cloud.google.com/storage/browser/{x}?project={p}",
    "build": "https://console.cloud.google.com/cloud-build/builds;region={l}/{x}?project={p}",
    "billing": "https://console.cloud.google.com/billing?project={p}",
    "project": "https://console.cloud.google.com/cloud-resource-manager",
    "quota": "https://console.cloud.google.com/iam-admin/quotas?project={p}",
}


OURS = {
    "job": "jobs/training/{x}", "tuning": "jobs/tuning/{x}", "batch": "jobs/batch/{x}",
    "build": "jobs/build/{x}", "model": "models/{x}", "endpoint": "endpoints/{x}",
    "bucket": "buckets/{x}", "billing": "costs", "project": "", "quota": "costs",
}  # fmt: skip


def console(session: Session, kind: str, name: str) -> str:
    """The page of a console that shows a resource; on the local cloud it is ours, which begins
    with the first link to it."""
    if session.cloud != "local":
        return CONSOLE[kind].format(p=session.project, l=session.location, x=name)
    try:
        return address(session, OURS[kind].format(x=name))
    except LocalCloudError:  # a job does not fail for want of a picture of it
        return f"{session.endpoint}/v1/{session.parent} ({kind} {name})"
