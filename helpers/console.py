"""Open the console: jobs with their logs, models, endpoints to try, buckets, costs.

python -m helpers.console [--cloud google --project P --bucket B]: print the address to click.

`helpers.console` is the verb below. Nothing imports this file as `helpers.console`, because that
would put the module in the verb's place.
"""

import argparse
import sys

from helpers.cloud.client import Session
from helpers.cloud.console import Opened, open_console, wait
from helpers.connection import connect, last
from helpers.errors import HelpersError


def console(session: Session | None = None, *, page: str = "") -> Opened:
    """Open the console in the browser.

    Args:
        session: whose project; None takes the last `connect()`'s.
        page: where it opens, such as "jobs"; "" is the overview.
    Returns:
        What a notebook shows as a link. A terminal gets the address printed, Colab opens a
        window. The address works once: it leaves a cookie in the browser that took it.
    Raises:
        LocalCloudError: the console did not start.
    """
    return open_console(session or last(), page)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m helpers.console")
    parser.add_argument("--cloud", default="local", choices=["local", "google"])
    for name in ("--project", "--location", "--bucket"):
        parser.add_argument(name, default=None if name == "--bucket" else "")
    parser.add_argument("--page", default="", help='such as "jobs"; "" is the overview')
    asked = vars(parser.parse_args())
    page = asked.pop("page")
    try:
        session = connect(**asked)
        console(session, page=page)
    except HelpersError as error:
        print(error, file=sys.stderr)
        return 1
    try:
        wait(session)
    except KeyboardInterrupt:
        print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
