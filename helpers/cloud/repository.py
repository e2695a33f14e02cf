"""The project's repository of images in Artifact Registry."""

from helpers.cloud.client import Session
from helpers.cloud.names import DISTRIBUTION, LABELS, is_ours
from helpers.errors import SettingError

NAME = DISTRIBUTION


def repositories(session: Session):
    """The collection of the service's client."""
    return session.service("artifactregistry").projects().locations().repositories()


def resource_name(session: Session) -> str:
    return f"{session.parent}/repositories/{NAME}"


def get(session: Session) -> dict | None:
    """The repository as it is, whoever made it."""
    request = repositories(session).get(name=resource_name(session))
    return session.call(request, unless=404)


def find(session: Session) -> dict | None:
    """The repository.

    Raises:
        SettingError: a repository of that name exists that this package did not make.
    """
    found = get(session)
    if found and not is_ours(found):
        raise SettingError(
            f'Repository "{NAME}" in {session.location} was made by somebody else, and '
            "images would replace theirs. If it is yours, say so: "
            f"gcloud artifacts repositories update {NAME} --project={session.project} "
            f"--location={session.location} --update-labels=made-by=colab-to-cloud. "
            "Else take another project or LOCATION."
        )
    return found


def create(session: Session) -> None:
    """Make the repository unless it exists.

    Raises:
        SettingError: a repository of that name exists that this package did not make.
    """
    if find(session):
        return
    body = {"format": "DOCKER", "labels": LABELS}
    made = repositories(session).create(parent=session.parent, repositoryId=NAME, body=body)
    operation = session.call(made, repeatable=True, unless=409)
    if operation:
        session.wait(operation, api="artifactregistry")
    find(session)


def delete(session: Session) -> None:
    """Delete the repository with its images; one that is gone already is no failure."""
    request = repositories(session).delete(name=resource_name(session))
    operation = session.call(request, unless=404)
    if operation:
        session.wait(operation, api="artifactregistry")
