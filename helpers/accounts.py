"""The service accounts that jobs and builds run as: each may do what it must, and nothing else.

`helpers.setup` makes them and gives them their roles; without them a project's default account is
used. There is never a key: machines get their identity from Google, people sign in.
"""

from helpers.errors import CloudError
from helpers.session import Session

RUN_AS, BUILD_AS = "notebook-jobs", "notebook-builds"
WHY = {RUN_AS: "jobs run as it", BUILD_AS: "images are built as it"}
# Where an account has which role. Source: cloud.google.com/iam/docs/roles-permissions
ROLES = {
    "bucket": {RUN_AS: "roles/storage.objectUser", BUILD_AS: "roles/storage.objectViewer"},
    "repository": {
        RUN_AS: "roles/artifactregistry.reader",
        BUILD_AS: "roles/artifactregistry.writer",
    },
    "project": {RUN_AS: "roles/logging.logWriter", BUILD_AS: "roles/logging.logWriter"},
}


def email(session: Session, account: str) -> str:
    """Its address, whether it is there or not."""
    return f"{account}@{session.project.rpartition(':')[2]}.iam.gserviceaccount.com"


def name(session: Session, account: str) -> str:
    """Its resource name."""
    return f"projects/{session.project}/serviceAccounts/{email(session, account)}"


def find(session: Session, account: str) -> str:
    """Its address; "" when there is none or the caller may not see it."""
    accounts = session.service("iam").projects().serviceAccounts()
    try:
        return session.call(accounts.get(name=name(session, account)))["email"]
    except CloudError as error:
        if error.status not in (403, 404):
            raise
        return ""
