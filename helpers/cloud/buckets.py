"""The bucket that holds everything: made closed to the public, kept tidy."""

from helpers.cloud.client import Session
from helpers.errors import SettingError

CLOSED = {"uniformBucketLevelAccess": {"enabled": True}, "publicAccessPrevention": "enforced"}


# Sources of builds are of no use once the image is there.
TEMPORARY = {"action": {"type": "Delete"}, "condition": {"age": 30, "matchesPrefix": ["images/"]}}


def create_bucket(session: Session) -> bool:
    """Make the session's bucket, closed to the public, unless it exists; True if it was made.

    Source: storage v1 buckets.insert
    """
    buckets = session.service("storage").buckets()
    if session.call(buckets.get(bucket=session.bucket), unless=404):
        return False
    body = {
        "name": session.bucket, "location": session.location, "iamConfiguration": CLOSED,
        "lifecycle": {"rule": [TEMPORARY]}, "labels": {"made-by": "colab-to-cloud"},
    }  # fmt: skip
    made = buckets.insert(project=session.project, body=body)
    session.call(made, repeatable=True, unless=409)  # 409: another notebook was faster
    return True


def find_bucket(session: Session) -> dict:
    """The session's bucket.

    Raises:
        SettingError: it is in another region, from where reading is slow and bills.
    """
    found = session.call(session.service("storage").buckets().get(bucket=session.bucket))
    place = found["location"].lower()
    if not session.location.startswith(place):  # "us" holds us-central1
        raise SettingError(
            f'Bucket "{session.bucket}" is in {place}, the jobs would run in {session.location}. '
            "Set LOCATION to the bucket's region, or name another BUCKET."
        )
    return found


def bucket_rules(session: Session) -> dict:
    """What must change for the bucket to be closed and tidy; rules that others made stay."""
    bucket = find_bucket(session)
    has, rules = bucket.get("iamConfiguration", {}), bucket.get("lifecycle", {}).get("rule", [])
    closed = has.get("uniformBucketLevelAccess", {}).get("enabled")
    closed = closed and has.get("publicAccessPrevention") == "enforced"
    change = {} if closed else {"iamConfiguration": CLOSED}
    return change | ({} if TEMPORARY in rules else {"lifecycle": {"rule": [*rules, TEMPORARY]}})
