"""What exists that costs money, at which price, and its removal."""

import datetime

import pandas as pd

from helpers.cloud.client import Session
from helpers.cloud.links import console
from helpers.cloud.pages import PRICES
from helpers.looks.tables import Shown, shown
from helpers.project.bills import bills, removals
from helpers.project.prices import MONTH_HOURS


def costs(session: Session) -> Shown:
    """Everything this project made that bills while it exists.

    Returns:
        One row a resource: `what`, `name`, `machine`, `since` (UTC), `hours` so far,
        `usd_per_hour`, `usd_per_day`, and `price`: where the two come from, with its date. They
        are list prices of machines (while they are up) and storage, without free tiers, discounts,
        disks and network.
        A price that the list does not give clearly is NaN, for a person to look up: a made-up
        number is worse than none. The local cloud is free.
    Source: cloudbilling REST v1 services.skus.list
    """
    columns = ["what", "name", "machine", "since", "usd_per_hour", "price"]
    frame = pd.DataFrame(bills(session), columns=columns)
    frame["since"] = pd.to_datetime(frame["since"], format="ISO8601", utc=True).dt.floor("s")
    now = pd.Timestamp(datetime.datetime.now(datetime.UTC))
    frame.insert(4, "hours", ((now - frame["since"]).dt.total_seconds() / 3600).round(1))
    frame["usd_per_hour"] = frame["usd_per_hour"].astype("float64")
    frame.insert(6, "usd_per_day", 24 * frame["usd_per_hour"])
    money = ("usd_per_hour", "usd_per_day")
    free = money if (frame["price"] == "free").all() else ()
    nothing = "Nothing bills."
    return shown(frame, units=dict.fromkeys(money, "$"), hidden=free, nothing=nothing)


def cleanup(
    session: Session,
    *,
    name: str = "",
    objects: bool = False,
    images: bool = False,
    dry_run: bool = False,
) -> None:
    """Remove what this project made, and say what remains; safe to repeat.

    Args:
        name: the display name of one endpoint: it alone goes, for it bills by the hour. "" takes
            every endpoint and every registered model that has this project's label.
        objects: also what jobs left in the bucket; models made from it can't be deployed again.
        images: also the repository of images; the next job builds them again.
        dry_run: only list what would be removed.
    """
    todo = removals(session, name=name, objects=objects, images=images)
    if not todo:
        print(f'Endpoint "{name}" does not exist; nothing to stop.' if name else "Nothing to do.")
    for what, which, remove in todo:
        print(f"{'Would remove' if dry_run else 'Removing'} {what} {which}")
        if not dry_run:
            remove()
    _say_what_remains(session)


def _say_what_remains(session: Session) -> None:
    left = costs(session)
    hourly = left[~left["what"].isin(["bucket", "images"])]
    if hourly.empty:
        print("Nothing that bills by the hour is left.")
    if left.empty:
        return
    for row in left.itertuples():
        print(
            f"There is: {row.what} {row.name}, {row.machine}, since {row.since:%Y-%m-%d %H:%M} UTC"
        )
    month = left["usd_per_hour"].sum(skipna=False) * MONTH_HOURS
    said = f"{month:.2f} USD a month" if month == month else f"a month: look up {PRICES}"
    print(f"What remains costs {said}. Files: {console(session, 'bucket', session.bucket)}")
