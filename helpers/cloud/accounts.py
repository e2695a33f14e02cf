"""Who may do what: the accounts that jobs and builds run as, their roles, and the caller's own.

Each account may do what it must and nothing else; without them a project's default account is
used. There is never a key: machines get their identity from Google, and people sign in.
"""

from helpers.cloud import repository
from helpers.cloud.client import Session
from helpers.cloud.roles import ACCOUNTS, CALLER, least
from helpers.errors import CloudError, SettingError

RUN_AS, BUILD_AS = "notebook-jobs", "notebook-builds"
WHY = {RUN_AS: "jobs run as it", BUILD_AS: "images are built as it"}


def email(session: Session, account: str) -> str:
    """Its address, whether it is there or not."""
    project = ".".join(reversed(session.project.split(":")))  # example.com:name is name.example.com
    return f"{account}@{project}.iam.gserviceaccount.com"


def name(session: Session, account: str) -> str:
    """Its resource name."""
    return f"projects/{session.project}/serviceAccounts/{email(session, account)}"


def find(session: Session, account: str) -> str:
    """Its address; "" when there is none or the caller may not see it.

    Raises:
        SettingError: somebody else made an account of that name; who knows what it may do.
    """
    accounts = session.service("iam").projects().serviceAccounts()
    try:
        found = session.call(accounts.get(name=name(session, account)))
    except CloudError as error:
        if error.status not in (403, 404):
            raise
        return ""
    if found.get("displayName") != WHY[account]:
        raise SettingError(
            f'Service account {found["email"]} was made by somebody else ("'
            f'{found.get("displayName", "")}"), and may have other rights. If it is yours, say so: '
            f"gcloud iam service-accounts update {found['email']} --project={session.project} "
            f'--display-name="{WHY[account]}". Else take another project.'
        )
    return found["email"]


def create(session: Session, account: str) -> None:
    """Make one of the two accounts."""
    accounts = session.service("iam").projects().serviceAccounts()
    body = {"accountId": account, "serviceAccount": {"displayName": WHY[account]}}
    made = accounts.create(name=f"projects/{session.project}", body=body)
    session.call(made, repeatable=True)


class Policy:
    """The roles that both accounts need on one resource, beside what its policy holds already.

    `kind` is "project", "bucket" or "repository".
    """

    def __init__(self, session: Session, kind: str):
        self.session, self.kind = session, kind
        collection, resource = {
            "project": (
                session.service("cloudresourcemanager").projects(), f"projects/{session.project}"
            ),
            "bucket": (session.service("storage").buckets(), session.bucket),
            "repository": (
                repository.repositories(session), repository.resource_name(session),
            ),
        }[kind]  # fmt: skip
        key, version = "bucket" if kind == "bucket" else "resource", 3  # older hides conditions
        asked = {
            "project": {"body": {"options": {"requestedPolicyVersion": version}}},
            "bucket": {"optionsRequestedPolicyVersion": version},
            "repository": {"options_requestedPolicyVersion": version},
        }
        self.get = collection.getIamPolicy(**{key: resource}, **asked[kind])
        self.set = lambda policy: collection.setIamPolicy(
            **{key: resource}, body=policy if kind == "bucket" else {"policy": policy}
        )

    def missing(self) -> tuple[dict, list[dict]]:
        """The policy as it is, and the bindings it lacks."""
        policy = self.session.call(self.get, repeatable=True)
        held = {
            (binding["role"], member) for binding in policy.get("bindings", [])
            if not binding.get("condition") for member in binding.get("members", [])
        }  # fmt: skip
        wanted = {
            (role, f"serviceAccount:{email(self.session, account)}")
            for account, role in zip(WHY, ACCOUNTS[self.kind], strict=True)
        }
        return policy, [{"role": r, "members": [member]} for r, member in sorted(wanted - held)]

    def add(self) -> None:
        """Add what is missing; refused (409) if somebody else changed the policy meanwhile."""
        policy, lacking = self.missing()
        policy["bindings"] = [*policy.get("bindings", []), *lacking]
        self.session.call(self.set(policy), repeatable=True)


def granted(session: Session, permission: str) -> bool:
    """Whether the caller has a permission in the project; True when that can't be asked yet."""
    projects = session.service("cloudresourcemanager").projects()
    body = {"permissions": [permission]}
    test = projects.testIamPermissions(resource=f"projects/{session.project}", body=body)
    try:
        return bool(session.call(test, repeatable=True).get("permissions"))
    except CloudError as error:
        if error.status != 403:
            raise
        return True


def caller_lacks(session: Session) -> list[str]:
    """What an administrator must grant the caller, as commands."""
    todo = [ask(session, least(what)) for what in CALLER if not granted(session, what)]
    accounts = session.service("iam").projects().serviceAccounts()
    body = {"permissions": ["iam.serviceAccounts.actAs"]}
    for account in WHY:
        there = find(session, account)
        test = accounts.testIamPermissions(resource=name(session, account), body=body)
        if there and not session.call(test, repeatable=True).get("permissions"):
            on = f"iam service-accounts add-iam-policy-binding {there} --project={session.project}"
            todo.append(ask(session, least("iam.serviceAccounts.actAs"), on))
    test = (
        session.service("storage")
        .buckets()
        .testIamPermissions(bucket=session.bucket, permissions=["storage.objects.create"])
    )
    try:
        mine = session.call(test).get("permissions")
    except CloudError as error:
        if error.status not in (403, 404):
            raise
        mine = error.status == 404  # whoever makes it may fill it
    if not mine:
        on = f"storage buckets add-iam-policy-binding gs://{session.bucket}"
        todo.append(ask(session, least("storage.objects.create"), on))
    return todo


def ask(session: Session, role: str, on: str = "") -> str:
    """The command with which an administrator gives the caller a role."""
    on = on or f"projects add-iam-policy-binding {session.project}"
    return f"An administrator runs: gcloud {on} --member={caller(session)} --role={role}"


def caller(session: Session) -> str:
    """Who is signed in, as policies name it; a person's address is not told to programs."""
    who = getattr(session.credentials, "service_account_email", "")
    return f"serviceAccount:{who}" if "@" in who else "user:YOUR_EMAIL"
