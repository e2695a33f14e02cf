"""python -m helpers.console [--cloud google --project P --bucket B]: print the address to click."""

import argparse
import json
import sys
from pathlib import Path

from helpers.cloud import console
from helpers.cloud.client import Session
from helpers.errors import HelpersError


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m helpers.console", description=__doc__)
    parser.add_argument("verb", nargs="?", default="open", choices=["open", "serve"])
    parser.add_argument("--cloud", default="local", choices=["local", "google"])
    parser.add_argument("--project", default="")
    parser.add_argument("--location", default="")
    parser.add_argument("--bucket", default=None)
    parser.add_argument("--page", default="", help='such as "jobs"; "" is the overview')
    parser.add_argument("--state", type=Path, help="serve: the folder of console.json")
    arguments = parser.parse_args()
    if arguments.verb == "serve":
        from helpers.console.process import serve

        return serve(_told(json.loads(sys.stdin.readline())), arguments.state)
    from helpers.connection import connect

    names = {key: getattr(arguments, key) for key in ("project", "location", "bucket")}
    try:
        session = connect(arguments.cloud, **names)
        console.open_console(session, arguments.page)
    except HelpersError as error:
        print(error, file=sys.stderr)
        return 1
    try:
        console.wait(session)
    except KeyboardInterrupt:
        print()
    return 0


def _told(about: dict) -> Session:
    """The session that the process which started this one handed over."""
    from google.oauth2.credentials import Credentials

    given = about.pop("credentials", None)
    if given:
        credentials = Credentials(**given)
    else:
        from helpers.cloud.sign_in import sign_in

        credentials = sign_in(about["project"])
    return Session(**about, credentials=credentials)


if __name__ == "__main__":
    sys.exit(main())
