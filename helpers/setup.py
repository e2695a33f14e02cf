"""What a Google project needs before it can train and serve: shown first, made only when asked."""

import pandas as pd

from helpers import container_image, storage
from helpers.errors import CloudError
from helpers.session import Session

SERVICES = ("aiplatform", "artifactregistry", "cloudbuild", "iam", "logging", "storage")
RUN_AS, BUILD_AS = "notebook-jobs", "notebook-builds"


def setup(session: Session, *, apply: bool = False) -> pd.DataFrame:
    """Check a project, and with `apply` make what is missing; safe to repeat.

    Args:
        apply: False only looks; nothing is created.
    Returns:
        One row a step: `step`, `what`, `state` ("there", "missing", "made"), `cost`.
    Source: REST v1 services.batchEnable, buckets.insert, serviceAccounts.create,
        repositories.create
    """
    project = f"projects/{session.project}"
    services = session.service("serviceusage").services()
    accounts = session.service("iam").projects().serviceAccounts()
    repositories = session.service("artifactregistry").projects().locations().repositories()
    rows = []

    names = [f"{name}.googleapis.com" for name in SERVICES]
    wanted = [f"{project}/services/{name}" for name in names]
    found = session.call(services.batchGet(parent=project, names=wanted)).get("services", [])
    off = [s["name"].rsplit("/", 1)[-1] for s in found if s.get("state") != "ENABLED"]
    state = _state(off, apply)
    if state == "made":
        body = {"serviceIds": off}
        request = services.batchEnable(parent=project, body=body)
        session.wait(session.call(request, repeatable=True), api="serviceusage")
    rows.append(("services", ", ".join(SERVICES), state, "free; using them bills"))

    buckets = session.service("storage").buckets()
    state = _state(not _exists(session, buckets.get(bucket=session.bucket)), apply)
    if state == "made":
        storage.create_bucket(session)
    rows.append(("bucket", session.bucket, state, "by the GB and month; models are small"))

    for name, why in ((RUN_AS, "jobs run as it"), (BUILD_AS, "images are built as it")):
        email = f"{name}@{session.project}.iam.gserviceaccount.com"
        there = _exists(session, accounts.get(name=f"{project}/serviceAccounts/{email}"))
        state = _state(not there, apply)
        if state == "made":
            body = {"accountId": name, "serviceAccount": {"displayName": why}}
            session.call(accounts.create(name=project, body=body), repeatable=True)
        rows.append(("account", f"{name} ({why})", state, "free"))

    name = f"{session.parent}/repositories/{container_image.REPOSITORY}"
    state = _state(not _exists(session, repositories.get(name=name)), apply)
    if state == "made":
        container_image.create_repository(session)
    rows.append(("images", container_image.REPOSITORY, state, "by the GB and month"))
    return pd.DataFrame(rows, columns=["step", "what", "state", "cost"])


def _state(missing, apply: bool) -> str:
    return "there" if not missing else "made" if apply else "missing"


def _exists(session: Session, request) -> bool:
    try:
        session.call(request)
        return True
    except CloudError as error:
        if error.status != 404:
            raise
        return False
