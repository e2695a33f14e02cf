"""What this package takes for true of Google's services, and what a project has shown to be so.

docs/assumptions.md explains each by its name. What has been seen is kept in the bucket.
"""

import datetime
import json
from collections.abc import Callable

from helpers.cloud import images, storage
from helpers.cloud.client import Session
from helpers.cloud.jobs import ENDED
from helpers.cloud.resources import ours
from helpers.errors import CloudError, NotFoundError

FILE = "setup/confirmed.json"


def confirm(session: Session) -> list[str]:
    """Look what a project shows; the names of what it had not shown before, kept in its bucket."""
    uri = f"gs://{session.bucket}/{FILE}"
    try:
        known = json.loads(storage.read_bytes(session, uri))
    except NotFoundError:
        known = {}
    new = [name for name in SEEN if name not in known and _is_seen(session, name)]
    if new:
        today = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
        known |= dict.fromkeys(new, today)
        storage.write_bytes(session, json.dumps(known, indent=1).encode(), uri)
    return new


def _is_seen(session: Session, name: str) -> bool:
    try:
        return SEEN[name](session)
    except CloudError as error:
        if error.status != 403:  # without permission to look, nothing is seen
            raise
        return False


def _succeeded(session: Session, kind: str) -> list[dict]:
    return [job for job in ours(session, kind) if job["state"] in ENDED and "error" not in job]


def _deployed(session: Session) -> list[dict]:
    endpoints = ours(session, "endpoints", "v1beta1")
    return [deployed for one in endpoints for deployed in one.get("deployedModels", [])]


SEEN: dict[str, Callable[[Session], bool]] = {
    "environment image": lambda s: images.is_built(s, "environment", images.environment_files()),
    "serving image": lambda s: images.is_built(s, "serving", images.serving_files()),
    "jobs run as their account": lambda s: any(
        job["jobSpec"].get("serviceAccount") for job in _succeeded(s, "customJobs")
    ),
    "spot": lambda s: any(
        job["jobSpec"].get("scheduling", {}).get("strategy") == "SPOT"
        for job in _succeeded(s, "customJobs")
    ),
    "tuning": lambda s: bool(_succeeded(s, "hyperparameterTuningJobs")),
    "batch prediction": lambda s: bool(_succeeded(s, "batchPredictionJobs")),
    "served model": lambda s: bool(_deployed(s)),
    "scale to zero": lambda s: any(
        "scaleToZeroSpec" in deployed.get("dedicatedResources", {}) for deployed in _deployed(s)
    ),
}
