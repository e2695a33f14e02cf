"""Where a person looks: the pages of Google's console, or of ours on the local cloud."""

from helpers.cloud.client import Session
from helpers.cloud.console import address
from helpers.cloud.pages import page
from helpers.errors import LocalCloudError

# By kind of thing on the local cloud's console.
OURS = {
    "job": "jobs/training/{x}", "tuning": "jobs/tuning/{x}", "batch": "jobs/batch/{x}",
    "build": "jobs/build/{x}", "model": "models/{x}", "endpoint": "endpoints/{x}",
    "bucket": "buckets/{x}", "billing": "costs", "project": "", "quota": "costs",
}  # fmt: skip


def console(session: Session, kind: str, name: str) -> str:
    """The page of a console that shows a resource; on the local cloud it is ours, which starts
    with the first link to it."""
    if session.cloud != "local":
        return page(kind, name, session.project, session.location)
    try:
        return address(session, OURS[kind].format(x=name))
    except LocalCloudError:  # a job does not fail because its page can't be shown
        return f"{session.endpoint}/v1/{session.parent} ({kind} {name})"
