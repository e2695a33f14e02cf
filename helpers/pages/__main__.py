"""python -m helpers.pages FOLDER: the console's process, told of its session by standard input."""

import json
import sys
from pathlib import Path

from google.oauth2.credentials import Credentials

from helpers.pages.process import serve
from helpers.pages.views import Session


def main() -> int:
    about = json.loads(sys.stdin.readline())
    given = about.pop("credentials", None)
    if given:
        credentials = Credentials(**given)
    else:
        from helpers.cloud.sign_in import sign_in

        credentials = sign_in(about["project"])
    return serve(Session(**about, credentials=credentials), Path(sys.argv[1]))


if __name__ == "__main__":
    sys.exit(main())
