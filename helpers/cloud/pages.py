"""The pages of Google that messages name."""

ROOT = "https://console.cloud.google.com"
# By kind of thing; {p} project, {l} region, {x} id.
CONSOLE = {
    "job": "/vertex-ai/locations/{l}/training/{x}?project={p}",
    "batch": "/vertex-ai/locations/{l}/batch-predictions/{x}?project={p}",
    "model": "/vertex-ai/models/locations/{l}/models/{x}?project={p}",
    "endpoint": "/vertex-ai/locations/{l}/endpoints/{x}?project={p}",
    "tuning": "/vertex-ai/locations/{l}/training/{x}?project={p}",
    "bucket": "/storage/browser/{x}?project={p}",
    "build": "/cloud-build/builds;region={l}/{x}?project={p}",
    "billing": "/billing/linkedaccount?project={p}",
    "project": "/cloud-resource-manager",
    "quota": "/iam-admin/quotas?project={p}",
}
REGIONS = "https://cloud.google.com/vertex-ai/docs/general/locations"
PRICES = "https://cloud.google.com/vertex-ai/pricing"


def page(kind: str, name: str, project: str, location: str) -> str:
    """The page of Google's console that shows a thing."""
    return ROOT + CONSOLE[kind].format(p=project, l=location, x=name)
