"""The console: a project's jobs, models, endpoints, buckets and costs as pages in the browser.

A client like a notebook: it asks Google's REST API through a `Session` and has no other way in, so
that it shows a google project as it shows the local cloud. It runs in a process of its own, which
`cloud.console` starts; nobody imports it. `process` begins and ends, `server` lets in and renders,
`visits` is what views take and give; the other files are the pages, a function each.
"""

import sys
import types

from helpers.cloud.client import Session
from helpers.cloud.console import Opened, open_console


class _Room(types.ModuleType):
    """`helpers.console(session)` is this room, called."""

    def __call__(self, session: Session | None = None, *, page: str = "") -> Opened:
        """Open the console: jobs with their logs, models, endpoints to try, buckets, costs.

        Args:
            session: whose project; None takes the last `connect()`'s.
            page: where it opens, such as "jobs"; "" is the overview.
        Returns:
            What a notebook shows as a link. A terminal gets the address printed, Colab opens a
            window. The address works once: it leaves a cookie in the browser that took it.
        Raises:
            LocalCloudError: the console did not start.
        """
        if session is None:
            from helpers.connection import last

            session = last()
        return open_console(session, page)


sys.modules[__name__].__class__ = _Room
