"""The cloud that started this process, for what runs inside a job."""

import json
import os

from helpers.cloud import local
from helpers.cloud.client import LOCATION, Session
from helpers.cloud.sign_in import sign_in
from helpers.errors import SettingError

POOLS = {
    "workerpool0": "chief", "workerpool1": "worker", "workerpool2": "ps",
    "workerpool3": "evaluator",
}  # fmt: skip


def complete_cluster() -> None:
    """Where the service says only in CLUSTER_SPEC which machines work together, say it in
    TF_CONFIG too, as TensorFlow reads it."""
    spec = json.loads(os.environ.get("CLUSTER_SPEC") or "{}")
    if os.environ.get("TF_CONFIG") or len(spec.get("cluster", {})) < 2:
        return
    cluster = {POOLS[pool]: members for pool, members in spec["cluster"].items()}
    task = {"type": POOLS[spec["task"]["type"]], "index": spec["task"]["index"]}
    os.environ["TF_CONFIG"] = json.dumps({"cluster": cluster, "task": task})


def from_environment() -> Session:
    """The session of a training container: the cloud that started it.

    Raises:
        SettingError: this process is no job.
    """
    if "LOCAL_CLOUD_DIR" in os.environ:
        project = os.environ.get("LOCAL_CLOUD_PROJECT") or "local"
        return local.open_session(project, LOCATION, f"{project}-bucket")
    project = os.environ.get("CLOUD_ML_PROJECT_ID", "")
    if not project:
        raise SettingError(
            "No cloud started this process, so none can read gs:// addresses here. Pass "
            "session=helpers.connect(…)."
        )
    location = os.environ.get("CLOUD_ML_REGION") or LOCATION
    return Session("google", project, location, f"{project}-bucket", "", sign_in(project))
