"""Choose the cloud, once: `connect()` is the only place that knows local from google."""

import os
import re

from google.auth.credentials import Credentials

from helpers.cloud import buckets, local
from helpers.cloud.client import LOCATION, Session
from helpers.cloud.sign_in import sign_in
from helpers.errors import SettingError, near

_last: Session | None = None


def connect(
    cloud: str = "local",
    *,
    project: str = "",
    location: str = "",
    bucket: str | None = None,
    endpoint: str = "",
    credentials: Credentials | None = None,
) -> Session:
    """Open a session on the local cloud (free, offline) or on Google Cloud.

    Args:
        cloud: "local" or "google". Google must be asked for by name.
        project: project id; "" takes GOOGLE_CLOUD_PROJECT ("local" on the local cloud).
        location: region; "" takes us-central1.
        bucket: bucket for everything this project stores; "" takes "<project>-bucket".
        endpoint: an address that takes every call in place of Google's hosts.
        credentials: who calls; default: sign-in of Colab, else Application Default Credentials.
    Raises:
        SettingError: an argument is not usable; nothing was contacted.
        LocalCloudError: the local cloud did not start.
    """
    global _last
    if cloud not in ("local", "google"):
        raise SettingError(f'CLOUD="{cloud}" is unknown.{near(cloud, ["local", "google"])}')
    location = location or LOCATION
    if cloud == "local":
        project = project or "local"
    else:
        project = project or os.environ.get("GOOGLE_CLOUD_PROJECT", "")
        where = 'Set it in the parameters cell, or use CLOUD="local".'
        if not project:
            raise SettingError(f'CLOUD="google" needs a project; got PROJECT="". {where}')
        if bucket is None:
            raise SettingError(f'CLOUD="google" needs a bucket; got none. {where}')
    bucket = bucket or f"{project}-bucket"
    _check_names(project, location, bucket)
    if cloud == "local":
        session = local.open_session(project, location, bucket)
        buckets.create_bucket(session)
    else:
        credentials = credentials or sign_in(project)
        session = Session(cloud, project, location, bucket, endpoint.rstrip("/"), credentials)
    _last = session
    return session


def last() -> Session:
    """The session of the last `connect()`, for the calls of the 2020 article that name none."""
    if _last is None:
        raise SettingError('No session yet. Run session = helpers.connect("local") first.')
    return _last


def _check_names(project: str, location: str, bucket: str) -> None:
    name = r"([a-z0-9.-]+:)?[a-z][a-z0-9-]{3,28}[a-z0-9]|\d+"
    for what, value, pattern, shape in [
        ("PROJECT", project, name, "a project id, 5-30 of a-z 0-9 -"),
        ("LOCATION", location, r"[a-z]+(-[a-z]+)+\d+", "a region such as us-central1"),
        ("BUCKET", bucket, r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]", "3-63 of a-z 0-9 . _ -"),
    ]:
        if not re.fullmatch(pattern, value):
            raise SettingError(f'{what}="{value}" is not usable; expected {shape}.')
