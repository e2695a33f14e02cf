"""Choose the cloud, once: `connect()` is the only place that knows local from google.

After it, every call is the same google-api-python-client request; only the address and the
credentials in the session differ.
"""

import functools
import http.client
import importlib.util
import itertools
import json
import os
import random
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import google_auth_httplib2
import httplib2
from google.auth.credentials import Credentials
from google.auth.exceptions import GoogleAuthError, TransportError
from googleapiclient.discovery import Resource, build_from_document
from googleapiclient.discovery_cache import get_static_doc
from googleapiclient.errors import HttpError

from helpers.errors import LASTING, CloudError, LocalCloudError, SettingError, near, next_step

VERSIONS = {"logging": "v2", "cloudresourcemanager": "v3"}  # every other service: v1
SCOPES = ["https://www.googleapis.com/auth/cloud-platform"]
RETRIES = 24  # with the pauses between them, a little more than a minute
RETRIED = {408, 429, 500, 502, 503, 504}
# Where a person looks, by kind of thing; {p} project, {l} region, {x} id.
CONSOLE = {
    "job": "https://console.cloud.google.com/vertex-ai/locations/{l}/training/{x}?project={p}",
    "batch": "https://console.cloud.google.com/vertex-ai/locations/{l}/batch-predictions/{x}?project={p}",
    "model": "https://console.cloud.google.com/vertex-ai/models/locations/{l}/models/{x}?project={p}",
    "endpoint": "https://console.cloud.google.com/vertex-ai/locations/{l}/endpoints/{x}?project={p}",
    "tuning": "https://console.cloud.google.com/vertex-ai/locations/{l}/training/{x}?project={p}",
    "bucket": "https://console.cloud.google.com/storage/browser/{x}?project={p}",
    "build": "https://console.cloud.google.com/cloud-build/builds;region={l}/{x}?project={p}",
    "billing": "https://console.cloud.google.com/billing?project={p}",
    "project": "https://console.cloud.google.com/cloud-resource-manager",
    "quota": "https://console.cloud.google.com/iam-admin/quotas?project={p}",
}
# How one signs in, by where this runs.
SIGN_IN = {
    "Colab": "Run this cell again and allow Colab's question",
    "Colab Enterprise": "Take a runtime with end-user credentials or an attached account",
    "Workbench": "Attach a service account to the instance",
    "job": "Give the job a run-as account: 00_setup.ipynb makes one",
    "": "Run `gcloud auth application-default login` in a terminal, open this notebook in Colab",
}
# No answer, or half of one.
LOST = (OSError, httplib2.HttpLib2Error, http.client.HTTPException, TransportError)
NOBODY = (ConnectionRefusedError, httplib2.ServerNotFoundError)
_last: "Session | None" = None


class _Http(httplib2.Http):
    """Sends a request once. httplib2 by itself sends it again, even a POST, when its connection is
    closed without an answer, which may have been lost after the effect."""

    def _conn_request(self, conn, *request):
        conn.getresponse = functools.partial(_answer, conn)
        try:
            return super()._conn_request(conn, *request)
        finally:
            del conn.getresponse  # it would keep the connection open for good


def _answer(conn: http.client.HTTPConnection) -> http.client.HTTPResponse:
    try:
        return type(conn).getresponse(conn)
    except http.client.BadStatusLine as error:
        raise ConnectionResetError(f"the connection was closed: {error}") from error


@dataclass(frozen=True)
class Session:
    """Where calls go, and as whom.

    `endpoint` is "" for Google's own hosts; any other address (the local cloud's) takes every call.
    """

    cloud: str
    project: str
    location: str
    bucket: str
    endpoint: str = ""
    credentials: Credentials = field(default=None, repr=False, compare=False)
    _services: dict = field(default_factory=dict, repr=False, compare=False)
    _threads: Any = field(default_factory=threading.local, repr=False, compare=False)

    @property
    def parent(self) -> str:
        """`projects/P/locations/L`, the parent of every regional resource."""
        return f"projects/{self.project}/locations/{self.location}"

    def root(self, api: str) -> str:
        """The address of a service, without a slash at its end."""
        regional = f"{self.location}-" if api == "aiplatform" else ""
        return self.endpoint or f"https://{regional}{api}.googleapis.com"

    def service(self, api: str, version: str = "") -> Resource:
        """The client of a service, built once from the bundled discovery document."""
        version = version or VERSIONS.get(api, "v1")
        if (api, version) not in self._services:
            document = json.loads(get_static_doc(api, version))
            # Media uploads ignore api_endpoint; only a rewritten document sends them elsewhere.
            document["rootUrl"] = self.root(api) + "/"
            document["baseUrl"] = document["rootUrl"] + document["servicePath"]
            document.pop("mtlsRootUrl", None)
            self._services[api, version] = build_from_document(document, http=self.http())
        return self._services[api, version]

    def http(self) -> google_auth_httplib2.AuthorizedHttp:
        """This thread's own connection: httplib2 must not be shared between threads."""
        if not hasattr(self._threads, "http"):
            plain = _Http(timeout=600)
            plain.redirect_codes -= {308}  # 308 is how a resumable upload says "go on"
            self._threads.http = google_auth_httplib2.AuthorizedHttp(self.credentials, http=plain)
        return self._threads.http

    def collection(self, kind: str, version: str = "") -> Resource:
        """A regional collection of Vertex AI, such as `models` or `customJobs`."""
        return getattr(self.service("aiplatform", version).projects().locations(), kind)()

    def call(self, request, *, repeatable: bool | None = None, unless: int = 0) -> Any:
        """Run one request of a service and give the answer's JSON.

        Args:
            request: what a service's method returned; it has not been sent yet.
            repeatable: try again after a transient failure. Default: for everything but POST,
                because a POST may have taken effect before its answer was lost.
            unless: a status that is no failure but gives None: 404 of what need not be there, 409
                of what may be there already.
        Raises:
            CloudError: the service refused, or did not answer; its own words are in the message.
        """
        again = request.method != "POST" if repeatable is None else repeatable
        if not again:
            self.renew()  # a connection kept too long may be dead, and this goes out only once
        tries = RETRIES + 1 if again else 1
        try:
            return self.attempt(lambda: request.execute(http=self.http()), request, tries=tries)
        except CloudError as error:
            if error.status != unless or not unless:
                raise
            return None

    def attempt(self, step: Callable[[], Any], request, *, tries: int = 0) -> Any:
        """Run a step of a request until it meets no transient failure.

        Raises:
            CloudError: the service refused, or `tries` (default: about a minute) were used up.
        """
        tries = tries or RETRIES + 1
        for attempt in range(tries):
            try:
                return step()
            except HttpError as error:
                failure = self.refusal(error, request)
                if not _passing(failure):
                    raise failure from error
                cause, retry_after = error, error.resp.get("retry-after", "")
            except LOST as error:
                self.renew()
                host = urlsplit(request.uri).netloc
                failure = CloudError(
                    f"{request.methodId}: no answer from {host} ({error}). "
                    + self.todo(0, str(error)),
                    method=request.methodId,
                )
                cause, retry_after = error, ""
                if isinstance(error, NOBODY) and attempt >= 5:
                    break
            except GoogleAuthError as error:
                raise CloudError(
                    f"{request.methodId} was not sent: {error}. {self.todo(401)}",
                    status=401,
                    method=request.methodId,
                ) from error
            if attempt < tries - 1:
                pause(attempt, retry_after)
        raise failure from cause

    def refusal(self, error: HttpError, request) -> CloudError:
        """The service's own words, the method, the resource, and what to do about it."""
        status, address = error.status_code, request.uri.split("?")[0]
        text = error.reason or error.content.decode(errors="replace")[:500]
        said = f"{request.methodId} answered {status}: {text} ({address}) "
        said += self.todo(status, text)
        return CloudError(said, status=status, method=request.methodId)

    def todo(self, status: int, text: str = "") -> str:
        """What a person does about a refusal; "" when Google's own words must do."""
        return next_step(status, text, self.project, self.location)

    def create(self, request, find: Callable[[], dict | None]) -> dict:
        """Run a request that makes something; when its answer got lost, it is not made twice.

        Args:
            find: looks for what the request makes; asked before every further try, and when it
                is said to be there: an earlier call, interrupted, may have made it.
        """
        for attempt in itertools.count():
            try:
                return self.call(request, repeatable=False)
            except CloudError as error:
                passing = _passing(error) and attempt < RETRIES
                if not passing and error.status != 409:
                    raise
                refusal = error
            pause(attempt)
            found = find()
            if found is not None:
                return found
            if not passing:
                raise refusal

    def renew(self) -> None:
        """Close this thread's connection; the next call makes another."""
        left = self._threads.__dict__.pop("http", None)
        if left is not None:
            left.close()

    def wait(self, operation: dict, *, api: str = "aiplatform", version: str = "") -> dict:
        """Wait for a long-running operation, however long it takes, and give its response."""
        operations, pause_s = self.service(api, version), 0.05
        # An endpoint's operations are below the endpoint, Service Usage's below nothing at all.
        for collection in operation.get("name", "").split("/")[:-1:2]:
            operations = getattr(operations, collection)()
        while not operation.get("done"):
            time.sleep(pause_s)
            pause_s = min(pause_s * 1.5, 5)
            operation = self.call(operations.get(name=operation["name"]))
        if "error" in operation:
            code, text = operation["error"].get("code", 0), operation["error"].get("message", "")
            status = {7: 403, 8: 429}.get(code, code)  # permission, quota
            raise CloudError(f"{text or 'unknown'} {self.todo(status, text)}", status=status)
        return operation.get("response", {})

    def log(self, chosen: str) -> Iterator[dict]:
        """Entries of Cloud Logging that a filter chooses, oldest first.

        Source: REST v2 entries.list
        """
        body = {
            "resourceNames": [f"projects/{self.project}"], "filter": chosen,
            "orderBy": "timestamp asc", "pageSize": 1000,
        }  # fmt: skip
        while "pageToken" not in body or body["pageToken"]:
            answer = self.call(self.service("logging").entries().list(body=body), repeatable=True)
            yield from answer.get("entries", [])
            body["pageToken"] = answer.get("nextPageToken", "")

    def list(self, collection, key: str, **arguments) -> list[dict]:
        """Every item of a paged list call."""
        items, request = [], collection.list(**arguments)
        while request is not None:
            answer = self.call(request, repeatable=True)
            items += answer.get(key, [])
            request = collection.list_next(request, answer)
        return items


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
    location = location or "us-central1"
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
        from google.oauth2.credentials import Credentials as Token

        state = _local_cloud()
        endpoint, credentials = state["url"], Token(token=state["token"])
    else:
        credentials = credentials or _sign_in(project)
    session = Session(cloud, project, location, bucket, endpoint.rstrip("/"), credentials)
    if cloud == "local":
        from helpers import storage

        storage.create_bucket(session)
    _last = session
    return session


def last() -> Session:
    """The session of the last `connect()`, for the calls of the 2020 article that name none."""
    if _last is None:
        raise SettingError('No session yet. Run session = helpers.connect("local") first.')
    return _last


def from_environment() -> Session:
    """The session of a training container: the cloud that started it."""
    if "LOCAL_CLOUD_DIR" in os.environ:
        return connect("local", project=os.environ.get("LOCAL_CLOUD_PROJECT", ""))
    return connect(
        "google",
        project=os.environ.get("CLOUD_ML_PROJECT_ID", ""),
        location=os.environ.get("CLOUD_ML_REGION", ""),
        bucket="",
    )


def pause(attempt: int, retry_after: str = "") -> None:
    """Wait before another try: what the service asks for, else a random share of 2**attempt s,
    at most of 6 s."""
    asked_s = float(retry_after) if retry_after.isdigit() else 0
    time.sleep(min(asked_s, 30) or random.random() * min(2**attempt, 6))


def console(session: Session, kind: str, name: str) -> str:
    """The page of Google's console that shows a resource; on the local cloud, its API address."""
    if session.endpoint:
        if kind == "bucket":
            return f"gs://{name}"
        names = {"job": "customJobs", "batch": "batchPredictionJobs"}
        collection = (names | {"tuning": "hyperparameterTuningJobs"}).get(kind, f"{kind}s")
        return f"{session.endpoint}/v1/{session.parent}/{collection}/{name}"
    return CONSOLE[kind].format(p=session.project, l=session.location, x=name)


def project_root() -> Path:
    """The nearest folder at or above the working one that holds a project, else the working one."""
    here = Path.cwd().resolve()
    for folder in [here, *here.parents]:
        if any((folder / mark).exists() for mark in ("pyproject.toml", ".git", ".local-cloud")):
            return folder
    return here


def _check_names(project: str, location: str, bucket: str) -> None:
    name = r"([a-z0-9.-]+:)?[a-z][a-z0-9-]{3,28}[a-z0-9]|\d+"
    for what, value, pattern, shape in [
        ("PROJECT", project, name, "a project id, 5-30 of a-z 0-9 -"),
        ("LOCATION", location, r"[a-z]+(-[a-z]+)+\d+", "a region such as us-central1"),
        ("BUCKET", bucket, r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]", "3-63 of a-z 0-9 . _ -"),
    ]:
        if not re.fullmatch(pattern, value):
            raise SettingError(f'{what}="{value}" is not usable; expected {shape}.')


def _place() -> str:
    """Where this runs, as SIGN_IN names it; Jupyter, papermill and scripts are one: ""."""
    product = os.environ.get("VERTEX_PRODUCT", "")  # google.colab is in Colab Enterprise too
    if "CLOUD_ML_JOB_ID" in os.environ:
        return "job"
    if product:
        return "Colab Enterprise" if product == "COLAB_ENTERPRISE" else "Workbench"
    return "Colab" if "google.colab" in sys.modules else ""


def _sign_in(project: str) -> Credentials:
    import google.auth
    from google.auth.exceptions import DefaultCredentialsError
    from google.oauth2 import service_account

    place = _place()
    if place == "Colab":
        from google.colab import auth

        auth.authenticate_user(project_id=project)
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


def _passing(failure: CloudError) -> bool:
    """Whether asking again may help."""
    return failure.status in {0, *RETRIED} and LASTING not in str(failure)


def _local_cloud() -> dict:
    """The address and token of the local cloud; starts one when none answers."""
    folder = Path(os.environ.get("LOCAL_CLOUD_DIR") or project_root() / ".local-cloud").resolve()
    running = _answering(folder)
    if running:
        return running
    missing = [n for n in ("uvicorn", "starlette", "orjson") if not importlib.util.find_spec(n)]
    if missing:
        raise LocalCloudError(
            f"The local cloud needs {', '.join(missing)}. "
            'Install them with: pip install "colab-to-cloud[local]"'
        )
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(folder / "emulator.log", "ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "helpers.emulator", "serve", "--state", str(folder)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
            )  # fmt: skip
    except OSError as error:
        raise LocalCloudError(
            f"The local cloud can't write its state folder {folder} ({error.strerror}). "
            "Name another one in the environment variable LOCAL_CLOUD_DIR."
        ) from error
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        ended = process.poll() is not None
        running = _answering(folder)  # also when another notebook started one at the same moment
        if running:
            return running
        if ended:
            break
        time.sleep(0.02)
    log = (folder / "emulator.log").read_text(errors="replace")[-2000:]
    raise LocalCloudError(f"The local cloud in {folder} did not start. {log.strip() or 'No log.'}")


def _answering(folder: Path) -> dict | None:
    for _ in range(8):
        try:
            state = json.loads((folder / "emulator.json").read_text())
            headers = {"Authorization": f"Bearer {state['token']}"}
            url = f"{state['url']}/storage/v1/b?project=local"
            answer, _ = httplib2.Http(timeout=5).request(url, headers=headers)
            return state if answer.status in {200, *RETRIED} else None
        except (FileNotFoundError, ValueError, KeyError, *NOBODY):
            return None
        except LOST:
            continue  # somebody is there
    return None
