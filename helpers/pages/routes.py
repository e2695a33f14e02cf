"""Which view makes which page."""

import re
from collections.abc import Callable

from helpers.pages import buckets, costs, endpoints, jobs, live, models, overview, trial

PLACE = r"/p/(?P<project>[a-z0-9.:-]+)/(?P<location>[a-z0-9-]+)/"
VIEWS: list[tuple[re.Pattern, Callable]] = [
    (re.compile(PLACE + pattern), view)
    for pattern, view in [
        ("", overview.show),
        ("jobs", jobs.listed),
        ("jobs/(?P<kind>training|tuning|batch|build)/(?P<id>[^/]+)", jobs.show),
        ("jobs/(?P<kind>training|tuning|batch|build)/(?P<id>[^/]+)/live", live.stream),
        ("jobs/(?P<kind>training|tuning|batch|build)/(?P<id>[^/]+)/cancel", jobs.cancel),
        ("models", models.listed),
        ("models/(?P<id>[^/]+)", models.show),
        ("endpoints", endpoints.listed),
        ("endpoints/(?P<id>[^/]+)", endpoints.show),
        ("endpoints/(?P<id>[^/]+)/test", trial.show),
        ("endpoints/(?P<id>[^/]+)/(?P<change>promote|roll-back|undeploy)", endpoints.change),
        ("buckets", buckets.listed),
        ("buckets/(?P<bucket>[^/]+)", buckets.folder),
        ("buckets/(?P<bucket>[^/]+)/object", buckets.preview),
        ("buckets/(?P<bucket>[^/]+)/raw", buckets.raw),
        ("costs", costs.show),
        ("costs/clean-up", costs.clean_up),
    ]
]


def find(path: str) -> tuple[Callable, dict[str, str]] | None:
    """The view of a path (decoded once by the server), and what it names."""
    for pattern, view in VIEWS:
        match = pattern.fullmatch(path)
        if match:
            return view, match.groupdict()
    return None
