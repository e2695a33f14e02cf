"""Roles that were given a moment ago: Google takes minutes until they hold, and refuses meanwhile.

The bucket keeps the time at which `setup` gave some: a submit from another notebook then knows it.
"""

import json
import re
import time
from collections.abc import Callable

from helpers.cloud import storage
from helpers.cloud.client import Session
from helpers.errors import CloudError, NotFoundError

FILE = "setup/granted.json"
HOLD_S = 420  # IAM, "Access change propagation": 2 minutes as a rule, 7 or more at times
ABOUT_ROLES = re.compile(r"service account|actas|permission|denied|forbidden", re.IGNORECASE)


def note(session: Session) -> None:
    """Keep that roles were given now."""
    content = json.dumps({"time": time.time()}).encode()
    storage.write_bytes(session, content, f"gs://{session.bucket}/{FILE}")


def patience(session: Session) -> Callable[[CloudError], int]:
    """For `client.retry`: wait for roles that were given a moment ago, and say so once."""
    said = []

    def wait(error: CloudError) -> int:
        about = error.status in (0, 400, 403) and ABOUT_ROLES.search(str(error))
        if not about or age_s(session) > HOLD_S:
            return 0
        if not said:
            print(f"Roles given a moment ago do not hold yet; Google takes up to {HOLD_S // 60} "
                  "minutes. Trying again …")  # fmt: skip
            said.append(error)
        return 10 * HOLD_S  # ended by the age, not by the count

    return wait


def age_s(session: Session) -> float:
    """Seconds since roles were last given."""
    try:
        content = storage.read_bytes(session, f"gs://{session.bucket}/{FILE}")
    except (CloudError, NotFoundError):
        return float("inf")
    return time.time() - json.loads(content)["time"]
