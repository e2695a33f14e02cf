"""Prepare a Google project: what it needs is shown first, and made only when asked."""

import pandas as pd

from helpers.cloud import accounts, grants
from helpers.cloud.client import Session
from helpers.looks.tables import shown
from helpers.project import assumptions, quotas
from helpers.project.needs import FREE, needs, take

READY = ("there", "made", "look up")


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
        machine_type, accelerator: what jobs will train on; the project's quota for it is read.
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
        state, todo = take(session, need, apply=apply and not blocked)
        blocked = blocked or state not in ("there", "made")  # later steps build on this one
        rows.append((need.step, need.what, state, need.cost, todo))
        if state == "made" and need.step in ("account", "roles"):
            grants.note(session)
    for name, wanted, state, todo in quotas.look(session, machine_type, accelerator):
        what = f"{name} in {session.location}, {wanted} a machine"
        rows.append(("quota", what, state, FREE, todo))
    lacking = accounts.caller_lacks(session)
    what = "may train, build images, read logs, fill the bucket and use both accounts"
    rows.append(("you", what, "forbidden" if lacking else "there", FREE, "\n".join(lacking)))
    plan = pd.DataFrame(rows, columns=["step", "what", "state", "cost", "todo"])
    print(_summary(session, plan, monthly_budget))
    if apply and session.cloud == "google" and not blocked:
        for name in assumptions.confirm(session):
            print(f"Seen here for the first time: {name} (docs/assumptions.md).")
    return shown(plan, hidden=("todo",))  # the words above have it


def _summary(session: Session, plan: pd.DataFrame, monthly_budget: int) -> str:
    """Whether the project is ready, else what to do."""
    missing = sum((plan["state"] == "missing") & (plan["todo"] == ""))
    lines = [f"- {todo}" for todo in plan["todo"] if todo]
    if missing:
        lines.append(f"- {missing} missing: helpers.setup(session, apply=True) makes them.")
    if session.cloud == "local" and not any(plan["todo"]):
        return (
            "The local cloud works as it is: nothing to do.\n"
            "These are the steps of a Google project; what is missing matters only there."
        )
    if not monthly_budget:
        lines.append("With monthly_budget=20 Google sends mail as the month's bill grows.")
    state = "ready" if set(plan["state"]) <= set(READY) else "not ready yet"
    return "\n".join([f"Project {session.project} is {state}.", *lines])
