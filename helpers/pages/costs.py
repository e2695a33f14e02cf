"""What exists that bills, and its removal."""

from helpers.pages.views import Confirm, Done, Page, Visit, confirmed
from helpers.project import bills


def show(visit: Visit) -> Page:
    found = bills.bills(visit.session)
    total = sum(bill["usd_per_hour"] for bill in found)  # NaN when one price is unknown
    names = sorted({b["name"] for b in found if b["what"] == "endpoint"})
    return Page("costs.html", {"bills": found, "total": total, "endpoints": names})


def clean_up(visit: Visit) -> Confirm | Done:
    """Remove one endpoint, or all that this project made."""
    given = visit.given
    name, objects, images = given.get("name", ""), "objects" in given, "images" in given
    chosen = {"objects": objects, "images": images}
    todo = bills.removals(visit.session, name=name, **chosen)
    effects = [f"{what} {which} is removed" for what, which, _ in todo]
    if not todo:
        return Done("costs", "There is nothing to remove.")
    extra = {key: "on" for key, on in chosen.items() if on} | ({"name": name} if name else {})
    question = f"Remove endpoint {name}?" if name else "Remove what this project made?"
    asked = Confirm(question, effects, "Remove", "costs", extra)
    if not confirmed(visit, asked):
        return asked
    for _, _, remove in todo:
        remove()
    return Done("costs", "; ".join(f"{what} {which} removed" for what, which, _ in todo) + ".")
