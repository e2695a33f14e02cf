"""Prepare a Google project: what it needs is shown first, and made only when asked."""

from collections.abc import Iterator

import pandas as pd

from helpers.cloud import accounts, assumptions, grants, quotas
from helpers.cloud.client import Session, retry
from helpers.cloud.links import console
from helpers.cloud.needs import FREE, Need, needs
from helpers.cloud.roles import least
from helpers.errors import CloudError
from helpers.looks.tables import shown

READY = ("there", "made", "look up")
NOT_YET = ("does not exist", "has not been used", "is disabled")  # made a moment ago
TRIES = 7


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
    for need in needs(session, monthly_budget):
        state, todo = _take(session, need, apply=apply and not blocked)
        blocked = blocked or state not in ("there", "made")  # later steps build on this one
        rows.append((need.step, need.what, state, need.cost, todo))
        if state == "made" and need.step in ("account", "roles"):
            grants.note(session)
    rows += _quotas(session, machine_type, accelerator)
    lacking = accounts.caller_lacks(session)
    what = "may train, build images, read logs, fill the bucket and use both accounts"
    rows.append(("you", what, "forbidden" if lacking else "there", FREE, "\n".join(lacking)))
    plan = pd.DataFrame(rows, columns=["step", "what", "state", "cost", "todo"])
    print(_summary(session, plan, monthly_budget))
    if apply and session.cloud == "google" and not blocked:
        for name in assumptions.confirm(session):
            print(f"Seen here for the first time: {name} (docs/assumptions.md).")
    return shown(plan, hidden=("todo",))  # the words above have it


def _take(session: Session, need: Need, *, apply: bool) -> tuple[str, str]:
    """Look, and make what is missing where that is asked for and allowed; (state, todo)."""
    if _is_there(need):
        return "there", ""
    if need.make is None:
        return "missing", need.todo
    ask = need.todo or accounts.ask(session, least(need.permission))
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


def _quotas(session: Session, machine_type: str, accelerator: str) -> Iterator[tuple]:
    """Rows: whether as many CPUs and accelerators as one machine has may train at a time."""
    for name, wanted in quotas.quotas(machine_type, accelerator):
        limit, todo = quotas.limit(session, name), console(session, "quota", name)
        if limit is None:
            state, todo = "look up", f"Could not be read, look up {name}: {todo}"
        elif 0 <= limit < wanted:
            state, todo = "missing", f"At most {limit} of {wanted} {name}; ask for more: {todo}"
        else:
            state, todo = "there", ""
        yield "quota", f"{name} in {session.location}, {wanted} a machine", state, FREE, todo


def _summary(session: Session, plan: pd.DataFrame, monthly_budget: int) -> str:
    """Whether the project is ready, else what to do."""
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
