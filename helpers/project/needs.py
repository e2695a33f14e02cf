"""What a Google project needs before it can train and serve, one thing after another.

No key file is ever made or read, and roles/editor is given to nobody (see roles.py).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from helpers.cloud import accounts, buckets, grants, images, repository, roles
from helpers.cloud.client import Session, retry
from helpers.cloud.links import console
from helpers.cloud.names import DISTRIBUTION
from helpers.errors import CloudError

SERVICES = (
    "aiplatform", "artifactregistry", "billingbudgets", "cloudbilling", "cloudbuild",
    "cloudresourcemanager", "iam", "logging", "storage",
)  # fmt: skip
NOT_YET = ("does not exist", "has not been used", "is disabled")  # made a moment ago
TRIES = 7
FREE, SMALL = "free", "by the GB and month; small"
BUILT = "minutes of a build machine, then by the GB and month"


@dataclass(frozen=True, kw_only=True)
class Need:
    """One thing: how to see whether it is there, and how to make it."""

    step: str
    what: str
    cost: str = FREE
    there: Callable[[], bool]
    make: Callable[[], object] | None = None  # None: only a person can
    permission: str = ""  # what its maker must be allowed
    todo: str = ""


def needs(session: Session, monthly_budget: int = 0) -> Iterator[Need]:
    """Everything a project needs, in an order in which it can be made."""
    yield _project(session)
    yield _services(session)
    yield _billing(session)
    yield from _bucket(session)
    yield from (_account(session, account) for account in accounts.WHY)
    yield Need(
        step="repository", what=repository.NAME, cost=SMALL,
        there=lambda: bool(repository.find(session)),
        make=lambda: repository.create(session),
        permission="artifactregistry.repositories.create",
    )  # fmt: skip
    yield from _policies(session)
    yield _image(session, "environment", images.environment_files, images.environment_image)
    yield _image(session, "serving", images.serving_files, images.serving_image)
    if monthly_budget:
        yield _budget(session, monthly_budget)


def take(session: Session, need: Need, *, apply: bool) -> tuple[str, str]:
    """Look, and make what is missing where that is asked for and allowed.

    Returns:
        Its state ("there", "missing", "made", "forbidden"), and what is left for a person.
    """
    if _is_there(need):
        return "there", ""
    if need.make is None:
        return "missing", need.todo
    ask = need.todo or accounts.ask(session, roles.least(need.permission))
    if need.permission and not accounts.granted(session, need.permission):
        return "forbidden", ask
    if not apply:
        return "missing", ""

    def make() -> None:
        try:
            need.make()
        except CloudError as error:
            if error.status != 409 or not _is_there(need):  # else somebody else was faster
                raise

    held = grants.patience(session)

    def patience(error: CloudError) -> int:
        late = error.status == 409 or any(words in str(error) for words in NOT_YET)
        # only builds act as an account that this very call may have given its roles
        return TRIES if late else held(error) if need.step == "image" else 0

    try:
        retry(make, tries=1, patience=patience)
    except CloudError as error:
        if error.status != 403:
            raise
        return "forbidden", f"{ask} ({error})"
    return "made", ""


def _is_there(need: Need) -> bool:
    try:
        return need.there()
    except CloudError as error:
        if error.status not in (403, 404):  # 403: also a service's answer before it is on
            raise
        return False


def _project(session: Session) -> Need:
    viewer = roles.least("serviceusage.services.list")
    return Need(
        step="project", what=session.project, there=lambda: _off(session) is not None,
        todo=f"There is no project {session.project}, or you may not see it. Check PROJECT: "
        f"{console(session, 'project', session.project)}. {accounts.ask(session, viewer)}",
    )  # fmt: skip


def _services(session: Session) -> Need:
    def enable() -> None:
        services = session.service("serviceusage").services()
        parent, body = f"projects/{session.project}", {"serviceIds": _off(session)}
        request = services.batchEnable(parent=parent, body=body)
        session.wait(session.call(request, repeatable=True), api="serviceusage")

    return Need(
        step="services", what=", ".join(SERVICES), cost="free; using them bills",
        there=lambda: not _off(session), make=enable, permission="serviceusage.services.enable",
    )  # fmt: skip


def _off(session: Session) -> list[str]:
    """The services that are not enabled."""
    services, project = session.service("serviceusage").services(), f"projects/{session.project}"
    names = [f"{project}/services/{name}.googleapis.com" for name in SERVICES]
    found = session.call(services.batchGet(parent=project, names=names)).get("services", [])
    return [s["name"].rsplit("/", 1)[-1] for s in found if s.get("state") != "ENABLED"]


def _billing(session: Session) -> Need:
    return Need(
        step="billing", what="a billing account pays for the project",
        there=lambda: _billing_info(session).get("billingEnabled", False),
        todo=f"Link a billing account: {console(session, 'billing', session.project)}",
    )  # fmt: skip


def _billing_info(session: Session) -> dict:
    projects = session.service("cloudbilling").projects()
    return session.call(projects.getBillingInfo(name=f"projects/{session.project}"))


def _bucket(session: Session) -> Iterator[Need]:
    def close() -> None:
        body, collection = buckets.bucket_rules(session), session.service("storage").buckets()
        session.call(collection.patch(bucket=session.bucket, body=body))

    yield Need(
        step="bucket", what=f"{session.bucket} in {session.location}", cost=SMALL,
        there=lambda: bool(buckets.find_bucket(session)),
        make=lambda: buckets.create_bucket(session), permission="storage.buckets.create",
    )  # fmt: skip
    yield Need(
        step="bucket", what="closed to the public; build sources go after 30 days",
        there=lambda: not buckets.bucket_rules(session), make=close,
        permission="storage.buckets.update",
    )  # fmt: skip


def _account(session: Session, account: str) -> Need:
    return Need(
        step="account", what=f"{account} ({accounts.WHY[account]})",
        there=lambda: bool(accounts.find(session, account)),
        make=lambda: accounts.create(session, account), permission="iam.serviceAccounts.create",
    )  # fmt: skip


def _policies(session: Session) -> Iterator[Need]:
    for kind, permission in (
        ("project", "resourcemanager.projects.setIamPolicy"),
        ("bucket", "storage.buckets.setIamPolicy"),
        ("repository", "artifactregistry.repositories.setIamPolicy"),
    ):
        policy = accounts.Policy(session, kind)
        names = ", ".join(sorted({role.partition("/")[2] for role in roles.ACCOUNTS[kind]}))
        yield Need(
            step="roles", what=f"on the {kind}: {names}", make=policy.add, permission=permission,
            there=lambda policy=policy: not policy.missing()[1],
        )  # fmt: skip


def _image(session: Session, name: str, files: Callable, make: Callable) -> Need:
    return Need(
        step="image", what=name, cost=BUILT, make=lambda: make(session),
        there=lambda: images.is_built(session, name, files()),
        permission="cloudbuild.builds.create",
    )  # fmt: skip


def _budget(session: Session, monthly: int) -> Need:
    budgets = session.service("billingbudgets").billingAccounts().budgets()
    name = f"{DISTRIBUTION} {session.project}"
    body = {
        "displayName": name, "budgetFilter": {"projects": [f"projects/{session.project}"]},
        "amount": {"specifiedAmount": {"units": str(monthly)}},
        "thresholdRules": [{"thresholdPercent": share} for share in (0.5, 0.9, 1.0)],
    }  # fmt: skip

    def there() -> bool:
        parent = _billing_info(session)["billingAccountName"]
        found = session.list(budgets, "budgets", parent=parent)
        return name in [budget.get("displayName") for budget in found]

    def make() -> None:
        parent = _billing_info(session)["billingAccountName"]
        session.call(budgets.create(parent=parent, body=body))

    on = "billing accounts add-iam-policy-binding ACCOUNT"
    return Need(
        step="budget", what=f"mail at 50, 90 and 100 % of {monthly} a month", there=there,
        make=make, todo=accounts.ask(session, roles.BUDGETS, on),
    )  # fmt: skip
