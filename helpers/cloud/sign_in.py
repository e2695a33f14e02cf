"""Who calls Google: sign-in of Colab, else Application Default Credentials."""

import os
import sys
from pathlib import Path

from google.auth.credentials import Credentials

from helpers.errors import SettingError

SCOPES = ["https://www.googleapis.com/auth/cloud-platform"]


# How one signs in, by where this runs.
SIGN_IN = {
    "Colab": "Run this cell again and allow Colab's question",
    "Colab Enterprise": "Take a runtime with end-user credentials or an attached account",
    "Workbench": "Attach a service account to the instance",
    "job": "Give the job a run-as account: 00_setup.ipynb makes one",
    "": "Run `gcloud auth application-default login` in a terminal, open this notebook in Colab",
}


def _place() -> str:
    """Where this runs, as SIGN_IN names it; Jupyter, papermill and scripts are one: ""."""
    product = os.environ.get("VERTEX_PRODUCT", "")  # google.colab is in Colab Enterprise too
    if "CLOUD_ML_JOB_ID" in os.environ:
        return "job"
    if product:
        return "Colab Enterprise" if product == "COLAB_ENTERPRISE" else "Workbench"
    return "Colab" if "google.colab" in sys.modules else ""


def _ask_in_colab(project: str) -> None:
    """Let Colab ask its question; when it is refused, nothing has been set.

    Colab sets the project before it asks: in the environment, and in gcloud's own files.
    """
    from google.colab import auth

    environment, settings = dict(os.environ), _gcloud_settings()
    try:
        auth.authenticate_user(project_id=project)
    except Exception as error:  # Colab's own: refused, closed, or the page did not answer
        os.environ.clear()
        os.environ.update(environment)
        for path in _gcloud_settings().keys() - settings.keys():
            path.unlink()
        for path, content in settings.items():
            path.write_bytes(content)
        raise SettingError(
            f"Colab's sign-in was refused or did not end ({str(error) or type(error).__name__}). "
            f'{SIGN_IN["Colab"]}, or use CLOUD="local".'
        ) from error


def _gcloud_settings() -> dict[Path, bytes]:
    """The files in which gcloud keeps its project."""
    folder = Path(os.environ.get("CLOUDSDK_CONFIG") or Path.home() / ".config" / "gcloud")
    return {path: path.read_bytes() for path in folder.glob("configurations/config_*")}


def sign_in(project: str) -> Credentials:
    import google.auth
    from google.auth.exceptions import DefaultCredentialsError
    from google.oauth2 import service_account

    place = _place()
    if place == "Colab":
        _ask_in_colab(project)
    try:
        credentials, _ = google.auth.default(scopes=SCOPES)
    except DefaultCredentialsError as error:
        raise SettingError(
            f'CLOUD="google" found nobody signed in. {SIGN_IN[place]}, or use CLOUD="local".'
        ) from error
    if isinstance(credentials, service_account.Credentials):
        raise SettingError(
            "GOOGLE_APPLICATION_CREDENTIALS names a service account's key file; keys leak and do "
            f"not expire. Unset it and delete the key. {SIGN_IN[place]}."
        )
    return credentials
