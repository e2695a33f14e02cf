"""Models, endpoints and jobs by display name, and whose they are.

A display name belongs to whoever gives it; an id proves nothing about an owner, and a 409 neither.
"""

import re

from helpers.cloud.client import Session
from helpers.cloud.names import is_ours, number, resource_id
from helpers.errors import CloudError, NotFoundError, near


def every(session: Session, kind: str, version: str = "", **chosen) -> list[dict]:
    """Every resource of a regional collection, such as `models` or `customJobs`."""
    return session.list(session.collection(kind, version), kind, parent=session.parent, **chosen)


def ours(session: Session, kind: str, version: str = "") -> list[dict]:
    """Those of a regional collection that this package made."""
    return [item for item in every(session, kind, version) if is_ours(item)]


def of_name(session: Session, kind: str, name: str) -> list[dict]:
    """Every resource of a regional collection with exactly that display name."""
    quoted = re.sub(r'(["\\])', r"\\\1", name)
    chosen = f'displayName="{quoted}"'
    found = every(session, kind, filter=chosen)
    return [item for item in found if item["displayName"] == name]


def named(session: Session, kind: str, name: str) -> dict | None:
    """The model or endpoint of that display name.

    Google lets several have it: the one whose id this package chose comes first, then those that
    it made, then the oldest.
    """

    def order(item: dict) -> tuple:
        chosen = number(item["name"]) == resource_id(name)
        return not chosen, not is_ours(item), item.get("createTime", "")

    return min(of_name(session, kind, name), key=order, default=None)


def missing(session: Session, kind: str, name: str, todo: str) -> NotFoundError:
    """The error of a name that is not there; the nearest one is given."""
    hint = near(name, {item["displayName"] for item in every(session, kind)})
    if session.cloud == "local":  # what another Colab tab made is on another machine
        which = f', endpoint="{name}"' * (kind == "endpoints")
        todo += f' Or make one here: helpers.make_missing(session, model="{name}"{which})'
    return NotFoundError(f'No {kind[:-1]} named "{name}" in {session.location}.{hint} {todo}')


def under_way(session: Session, kind: str, name: str) -> dict | None:
    """An operation on a model or endpoint that has not ended, whoever began it."""
    try:
        found = session.list(session.collection(kind).operations(), "operations", name=name)
    except CloudError as error:
        if error.status != 404:
            raise
        return None
    return next((operation for operation in found if not operation.get("done")), None)


def settle(session: Session, kind: str, name: str) -> None:
    """Wait until nothing is under way on a model or endpoint.

    An operation does not tell who began it; what it left on the resource tells whether it did
    what the caller wants.
    """
    while operation := under_way(session, kind, name):
        try:
            session.wait(operation)
        except CloudError as error:
            if error.method:  # asking was refused; else the operation ended in an error of its own
                raise
