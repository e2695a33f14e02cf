"""Which view makes which page."""

import re
from collections.abc import Callable

from helpers.pages import buckets, costs, endpoints, jobs, live, models, overview, try_out

PLACE = r"/p/(?P<project>[a-z0-9.:-]+)/(?P<location>[a-z0-9-]+)/"
JOB = "jobs/(?P<kind>training|tuning|batch|build)/(?P<id>[^/]+)"
ENDPOINT, BUCKET = "endpoints/(?P<id>[^/]+)", "buckets/(?P<bucket>[^/]+)"
VIEWS: dict[re.Pattern, Callable] = {
    re.compile(PLACE + pattern): view
    for pattern, view in {
        "": overview.show,
        "jobs": jobs.listed,
        JOB: jobs.show,
        f"{JOB}/live": live.stream,
        f"{JOB}/cancel": jobs.cancel,
        "models": models.listed,
        "models/(?P<id>[^/]+)": models.show,
        "endpoints": endpoints.listed,
        ENDPOINT: endpoints.show,
        f"{ENDPOINT}/test": try_out.show,
        f"{ENDPOINT}/(?P<change>promote|roll-back|undeploy)": endpoints.change,
        "buckets": buckets.listed,
        BUCKET: buckets.folder,
        f"{BUCKET}/object": buckets.preview,
        f"{BUCKET}/raw": buckets.raw,
        "costs": costs.show,
        "costs/clean-up": costs.clean_up,
    }.items()
}


def find(path: str) -> tuple[Callable, dict[str, str]] | None:
    """The view of a path (decoded once by the server), and what it names."""
    for pattern, view in VIEWS.items():
        match = pattern.fullmatch(path)
        if match:
            return view, match.groupdict()
    return None
