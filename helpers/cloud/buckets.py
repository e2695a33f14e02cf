"""The bucket that holds everything: made closed to the public, kept tidy."""

from helpers.cloud.client import Session
from helpers.cloud.names import LABELS
from helpers.errors import SettingError

CLOSED = {"uniformBucketLevelAccess": {"enabled": True}, "publicAccessPrevention": "enforced"}


# Sources of builds are of no use once the image is there.
TEMPORARY = {"action": {"type": "Delete"}, "condition": {"age": 30, "matchesPrefix": ["images/"]}}


def create_bucket(session: Session) -> bool:
    """Make the session's bucket, closed to the public, unless it exists; True if it was made.

    Raises:
        SettingError: a bucket of that name exists in another project.
    Source: storage v1 buckets.insert
    """
    buckets = session.service("storage").buckets()
    found = session.call(buckets.get(bucket=session.bucket), unless=404)
    if found:
        check_project(session, found)
        return False
    body = {
        "name": session.bucket, "location": session.location, "iamConfiguration": CLOSED,
        "lifecycle": {"rule": [TEMPORARY]}, "labels": LABELS,
    }  # fmt: skip
    made = buckets.insert(project=session.project, body=body)
    if session.call(made, repeatable=True, unless=409):
        return True
    check_project(session, session.call(buckets.get(bucket=session.bucket)))  # who was faster?
    return False


def find_bucket(session: Session) -> dict:
    """The session's bucket.

    Raises:
        SettingError: it belongs to another project, or is in another region, from where reading
            is slow and bills.
    """
    found = session.call(session.service("storage").buckets().get(bucket=session.bucket))
    check_project(session, found)
    place = found["location"].lower()
    if not session.location.startswith(place):  # "us" holds us-central1
        raise SettingError(
            f'Bucket "{session.bucket}" is in {place}, the jobs would run in {session.location}. '
            "Set LOCATION to the bucket's region, or name another BUCKET."
        )
    return found


def check_project(session: Session, bucket: dict) -> None:
    """Refuse a stranger's bucket: all of Google shares one space of bucket names.

    Raises:
        SettingError: it belongs to another project.
    """
    number, ours = str(bucket["projectNumber"]), session.project
    if not ours.isdecimal():
        projects = session.service("cloudresourcemanager").projects()
        ours = session.call(projects.get(name=f"projects/{session.project}"))["name"]
    if number != ours.rsplit("/", 1)[-1]:
        raise SettingError(
            f'Bucket "{session.bucket}" belongs to another project (number {number}), not to '
            f'"{session.project}". Name another BUCKET.'
        )


def bucket_rules(session: Session) -> dict:
    """What must change for the bucket to be closed and tidy; rules that others made stay."""
    bucket = find_bucket(session)
    has, rules = bucket.get("iamConfiguration", {}), bucket.get("lifecycle", {}).get("rule", [])
    closed = has.get("uniformBucketLevelAccess", {}).get("enabled")
    closed = closed and has.get("publicAccessPrevention") == "enforced"
    change = {} if closed else {"iamConfiguration": CLOSED}
    return change | ({} if TEMPORARY in rules else {"lifecycle": {"rule": [*rules, TEMPORARY]}})
