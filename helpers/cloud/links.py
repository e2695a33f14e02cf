"""Where a person looks: the pages of Google's console."""

from helpers.cloud.client import Session

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


def console(session: Session, kind: str, name: str) -> str:
    """The page of Google's console that shows a resource; on the local cloud, its API address."""
    if session.endpoint:
        if kind == "bucket":
            return f"gs://{name}"
        names = {"job": "customJobs", "batch": "batchPredictionJobs"}
        collection = (names | {"tuning": "hyperparameterTuningJobs"}).get(kind, f"{kind}s")
        return f"{session.endpoint}/v1/{session.parent}/{collection}/{name}"
    return CONSOLE[kind].format(p=session.project, l=session.location, x=name)
