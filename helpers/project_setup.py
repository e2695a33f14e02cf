"""What a Google project needs before it can train and serve: shown first, made only when asked.

No key file is ever made or read, and roles/editor is given to nobody (see accounts.py).
"""

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pandas as pd

from helpers.cloud import accounts, buckets, images
from helpers.cloud.client import Session, pause
from helpers.cloud.links import console
from helpers.errors import CloudError
from helpers.looks.tables import shown

SERVICES = (
    "aiplatform", "artifactregistry", "billingbudgets", "cloudbilling", "cloudbuild",
    "cloudresourcemanager", "iam", "logging", "storage",
)  # fmt: skip
# What a step's maker must be allowed, and the least role that allows it.
MAKERS = {
    "serviceusage.services.enable": "roles/serviceusage.serviceUsageAdmin",
    "storage.buckets.create": "roles/storage.admin",
    "storage.buckets.update": "roles/storage.admin",
    "storage.buckets.setIamPolicy": "roles/storage.admin",
    "iam.serviceAccounts.create": "roles/iam.serviceAccountAdmin",
    "artifactregistry.repositories.create": "roles/artifactregistry.admin",
    "artifactregistry.repositories.setIamPolicy": "roles/artifactregistry.admin",
    "resourcemanager.projects.setIamPolicy": "roles/resourcemanager.projectIamAdmin",
    "cloudbuild.builds.create": "roles/cloudbuild.builds.editor",
}
FREE, SMALL = "free", "by the GB and month; small"
BUILT = "minutes of a build machine, then by the GB and month"
READY = ("there", "made", "look up")
NOT_YET = ("does not exist", "has not been used", "is disabled")  # made a moment ago


class Step(NamedTuple):
    """One thing a project needs: how to see whether it is there, and how to make it."""

    step: str
    what: str
    cost: str
    there: Callable[[], bool]
    make: Callable[[], object] | None  # None: only a person can
    permission: str = ""
    todo: str = ""


def setup(
    session: Session,
    *,
    apply: bool = False,
    monthly_budget: int = 0,
    machine_type: str = "n1-standard-4",
    accelerator: str = "",
) -> pd.DataFrame:
    """Check a project, and with `apply` make what is missing; safe to repeat.

    Args:
        apply: False only looks; nothing is created.
        monthly_budget: with one, mail to the billing administrators at 50, 90 and 100 % of so
            many units of the billing account's currency. It stops nothing.
        machine_type, accelerator: what jobs shall train on; the project's quota of it is read.
    Returns:
        One row a step: `step`, `what`, `state` ("there", "missing", "made", "forbidden"; of a
        quota "look up" where it can't be read), `cost`, and `todo`: what is left for a person,
        with the command an administrator would run.
    Raises:
        SettingError: the bucket is in another region than the session; or a bucket, account or
            repository of that name is somebody else's.
    Source: REST v1 services.batchEnable, buckets.insert, serviceAccounts.create,
        repositories.create, builds.create, budgets.create; v3 projects.setIamPolicy;
        v1beta1 services.consumerQuotaMetrics.get
    """
    rows, blocked = [("sign-in", accounts.caller(session), "there", FREE, "")], False
    for step in _steps(session, monthly_budget):
        state, todo = _take(session, step, apply=apply and not blocked)
        blocked = blocked or state not in ("there", "made")  # later steps build on this one
        rows.append((step.step, step.what, state, step.cost, todo))
    rows += _quotas(session, machine_type, accelerator)
    lacking = accounts.caller_lacks(session)
    what = "may train, build images, read logs, fill the bucket and use both accounts"
    rows.append(("you", what, "forbidden" if lacking else "there", FREE, "\n".join(lacking)))
    plan = pd.DataFrame(rows, columns=["step", "what", "state", "cost", "todo"])
    print(_summary(session, plan, monthly_budget))
    return shown(plan, hidden=("todo",))  # the words above have it


def _take(session: Session, step: Step, *, apply: bool) -> tuple[str, str]:
    """Look, and make what is missing where that is asked for and allowed; (state, todo)."""
    if _there(step):
        return "there", ""
    if step.make is None:
        return "missing", step.todo
    ask = step.todo or accounts.ask(session, MAKERS[step.permission])
    if step.permission and not accounts.granted(session, step.permission):
        return "forbidden", ask
    if not apply:
        return "missing", ""
    for attempt in range(7):
        try:
            step.make()
            break
        except CloudError as error:
            if error.status == 409 and _there(step):  # somebody else was faster
                break
            late = error.status == 409 or any(words in str(error) for words in NOT_YET)
            if error.status == 403 and (attempt == 6 or not late):
                return "forbidden", f"{ask} ({error})"
            if not late or attempt == 6:
                raise
        pause(attempt)
    return "made", ""


def _there(step: Step) -> bool:
    try:
        return step.there()
    except CloudError as error:
        if error.status not in (403, 404):  # 403: also a service's answer before it is on
            raise
        return False


def _steps(session: Session, monthly_budget: int) -> Iterator[Step]:
    """Everything a project needs, in an order in which it can be made."""
    call, project = session.call, f"projects/{session.project}"
    services, names = session.service("serviceusage").services(), ", ".join(SERVICES)
    yield Step("project", session.project, FREE, lambda: _off(session) is not None, None,
               todo=f"There is no project {session.project}, or you may not see it. Check PROJECT: "
               f"{console(session, 'project', session.project)}. "
               + accounts.ask(session, "roles/serviceusage.serviceUsageViewer"))  # fmt: skip
    yield Step("services", names, "free; using them bills", lambda: not _off(session),
               lambda: session.wait(call(services.batchEnable(
                   parent=project, body={"serviceIds": _off(session)}), repeatable=True),
                   api="serviceusage"),
               "serviceusage.services.enable")  # fmt: skip
    billing = session.service("cloudbilling").projects().getBillingInfo(name=project)
    yield Step("billing", "a billing account pays for the project", FREE,
               lambda: call(billing).get("billingEnabled", False), None,
               todo="Link a billing account: "
               + console(session, "billing", session.project))  # fmt: skip
    collection = session.service("storage").buckets()
    yield Step("bucket", f"{session.bucket} in {session.location}", SMALL,
               lambda: bool(buckets.find_bucket(session)), lambda: buckets.create_bucket(session),
               "storage.buckets.create")  # fmt: skip
    yield Step("bucket", "closed to the public; build sources go after 30 days", FREE,
               lambda: not buckets.bucket_rules(session), lambda: call(collection.patch(
                   bucket=session.bucket, body=buckets.bucket_rules(session))),
               "storage.buckets.update")  # fmt: skip
    people = session.service("iam").projects().serviceAccounts()
    for account, why in accounts.WHY.items():
        body = {"accountId": account, "serviceAccount": {"displayName": why}}
        yield Step("account", f"{account} ({why})", FREE,
                   lambda account=account: bool(accounts.find(session, account)),
                   lambda body=body: call(
                       people.create(name=project, body=body), repeatable=True),
                   "iam.serviceAccounts.create")  # fmt: skip
    repositories = session.service("artifactregistry").projects().locations().repositories()
    repository = f"{session.parent}/repositories/{images.REPOSITORY}"
    yield Step("repository", images.REPOSITORY, SMALL,
               lambda: bool(images.find_repository(session)),
               lambda: images.create_repository(session),
               "artifactregistry.repositories.create")  # fmt: skip
    projects = session.service("cloudresourcemanager").projects()
    for kind, owner, name, permission in (
        ("project", projects, project, "resourcemanager.projects.setIamPolicy"),
        ("bucket", collection, session.bucket, "storage.buckets.setIamPolicy"),
        ("repository", repositories, repository, "artifactregistry.repositories.setIamPolicy"),
    ):
        policy = accounts.Policy(session, kind, owner, name)
        roles = ", ".join(sorted({r.partition("/")[2] for r in accounts.ROLES[kind].values()}))
        yield Step("roles", f"on the {kind}: {roles}", FREE,
                   lambda policy=policy: not policy.missing()[1], policy.add,
                   permission)  # fmt: skip
    for name, files, make in (
        ("environment", images.environment_files, images.environment_image),
        ("serving", images.serving_files, images.serving_image),
    ):
        yield Step("image", name, BUILT, lambda name=name, files=files: images.is_built(
                       session, name, files()),
                   lambda make=make: make(session), "cloudbuild.builds.create")  # fmt: skip
    if monthly_budget:
        yield _budget(session, billing, monthly_budget)


def _off(session: Session) -> list[str]:
    """The services that are not enabled."""
    services, project = session.service("serviceusage").services(), f"projects/{session.project}"
    names = [f"{project}/services/{name}.googleapis.com" for name in SERVICES]
    found = session.call(services.batchGet(parent=project, names=names)).get("services", [])
    return [s["name"].rsplit("/", 1)[-1] for s in found if s.get("state") != "ENABLED"]


def _quotas(session: Session, machine_type: str, accelerator: str) -> Iterator[tuple]:
    """Rows: whether as many CPUs and accelerators as one machine has may train at a time.

    Source: names of the quotas as refusals of Vertex AI give them
    """
    series, _, size = machine_type.partition("-")
    cpus = re.search(r"-(\d+)$", size)  # none in a2-highgpu-1g
    asked = {"cpus" if series in ("n1", "e2") else f"{series}_cpus": int(cpus[1]) if cpus else 1}
    if accelerator:
        asked[accelerator.lower().replace("tesla_", "") + "_gpus"] = 1
    for what, wanted in asked.items():
        name = f"custom_model_training_{what}"
        limit, todo = _limit(session, name), console(session, "quota", name)
        if limit is None:
            state, todo = "look up", f"Could not be read, look up {name}: {todo}"
        elif 0 <= limit < wanted:
            state, todo = "missing", f"At most {limit} of {wanted} {name}; ask for more: {todo}"
        else:
            state, todo = "there", ""
        yield "quota", f"{name} in {session.location}, {wanted} a machine", state, FREE, todo


def _limit(session: Session, quota: str) -> int | None:
    """How much may be in use at a time in the region (-1: any); None where it can't be read."""
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


def _budget(session: Session, billing, monthly: int) -> Step:
    budgets = session.service("billingbudgets").billingAccounts().budgets()
    name = f"{images.DISTRIBUTION} {session.project}"
    body = {
        "displayName": name, "budgetFilter": {"projects": [f"projects/{session.project}"]},
        "amount": {"specifiedAmount": {"units": str(monthly)}},
        "thresholdRules": [{"thresholdPercent": share} for share in (0.5, 0.9, 1.0)],
    }  # fmt: skip

    def there() -> bool:
        found = session.list(budgets, "budgets", parent=account())
        return name in [budget.get("displayName") for budget in found]

    def account() -> str:
        return session.call(billing)["billingAccountName"]

    return Step("budget", f"mail at 50, 90 and 100 % of {monthly} a month", FREE, there,
                lambda: session.call(budgets.create(parent=account(), body=body)),
                todo=accounts.ask(session, "roles/billing.costsManager",
                                  "billing accounts add-iam-policy-binding ACCOUNT"))  # fmt: skip


def _summary(session: Session, plan: pd.DataFrame, monthly_budget: int) -> str:
    """The doctor's word: green, or what to do."""
    missing = sum((plan["state"] == "missing") & (plan["todo"] == ""))
    lines = [f"- {todo}" for todo in plan["todo"] if todo]
    if missing:
        lines.append(f"- {missing} missing: helpers.setup(session, apply=True) makes them.")
    if session.cloud == "local" and not any(plan["todo"]):
        return (
            "The local cloud works as it is: nothing to do.\n"
            "The steps are those of a Google project; what is missing is of use there alone."
        )
    if not monthly_budget:
        lines.append("Offered: monthly_budget=20 has mail sent before it hurts.")
    state = "ready" if set(plan["state"]) <= set(READY) else "not ready yet"
    return "\n".join([f"Project {session.project} is {state}.", *lines])
