"""One request: signed, sent, tried again, waited for; whichever cloud it goes to."""

import functools
import http.client
import itertools
import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar
from urllib.parse import urlsplit

import google_auth_httplib2
import httplib2
from google.auth.credentials import Credentials
from google.auth.exceptions import GoogleAuthError, TransportError
from googleapiclient.discovery import Resource, build_from_document
from googleapiclient.discovery_cache import get_static_doc
from googleapiclient.errors import HttpError

from helpers.cloud.refusals import LASTING, next_step
from helpers.errors import CloudError

VERSIONS = {"logging": "v2", "cloudresourcemanager": "v3"}  # every other service: v1
LOCATION = "us-central1"  # where none is named
RETRIES = 24  # with the pauses between them, a little more than a minute
PAGED = ("nextPageToken", "pageToken")
RETRIED = {408, 429, 500, 502, 503, 504}
STATUS = {3: 400, 5: 404, 6: 409, 7: 403, 8: 429, 9: 400, 16: 401}  # of google.rpc.Code
# No answer, or half of one.
LOST = (OSError, httplib2.HttpLib2Error, http.client.HTTPException, TransportError)
NOBODY = (ConnectionRefusedError, httplib2.ServerNotFoundError)


class _Http(httplib2.Http):
    """Sends a request once, with this request's timeout.

    httplib2 by itself sends it again, even a POST, when its connection is closed without an
    answer, which may have been lost after the effect; and reads the timeout when it connects.
    """

    def _conn_request(self, conn, *request):
        conn.timeout = self.timeout
        if conn.sock:
            conn.sock.settimeout(self.timeout)
        conn.getresponse = functools.partial(_answer, conn)
        try:
            return super()._conn_request(conn, *request)
        except BaseException:
            conn.close()  # after an interrupt the next request would get this one's answer
            raise
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

    tries: ClassVar[int] = 0  # of what may pass; 0: see `retry`
    cloud: str
    project: str
    location: str
    bucket: str
    endpoint: str = ""
    credentials: Credentials = field(default=None, repr=False, compare=False)
    _services: dict = field(default_factory=dict, repr=False, compare=False)
    _threads: Any = field(default_factory=threading.local, repr=False, compare=False)

    def __str__(self) -> str:
        where = f"project {self.project}, {self.location}, bucket {self.bucket}"
        if self.cloud == "local":
            return f"The local cloud, on this machine: nothing leaves it, nothing bills ({where})."
        return f"Google Cloud: what is made there bills ({where})."

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
            document["schemas"] = {k: _bare(v) for k, v in document["schemas"].items()}
            self._services[api, version] = build_from_document(document, http=self.http())
        return self._services[api, version]

    def http(self, timeout_s: float = 600) -> google_auth_httplib2.AuthorizedHttp:
        """This thread's own connection: httplib2 must not be shared between threads.

        Args:
            timeout_s: seconds the next request waits for an answer, on a kept connection too.
        """
        if not hasattr(self._threads, "http"):
            plain = _Http()
            plain.redirect_codes -= {308}  # 308 is how a resumable upload says "go on"
            self._threads.http = google_auth_httplib2.AuthorizedHttp(self.credentials, http=plain)
        self._threads.http.timeout = timeout_s
        return self._threads.http

    def collection(self, kind: str, version: str = "") -> Resource:
        """A regional collection of Vertex AI, such as `models` or `customJobs`."""
        if (kind, version) not in self._services:  # each step to it costs milliseconds
            locations = self.service("aiplatform", version).projects().locations()
            self._services[kind, version] = getattr(locations, kind)()
        return self._services[kind, version]

    @property
    def objects(self) -> Resource:
        """The objects of Cloud Storage."""
        if ("objects", "") not in self._services:
            self._services["objects", ""] = self.service("storage").objects()
        return self._services["objects", ""]

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
        tries = 0 if again else 1
        try:
            return self.attempt(lambda: request.execute(http=self.http()), request, tries=tries)
        except CloudError as error:
            if error.status != unless or not unless:
                raise
            return None

    def attempt(self, step: Callable[[], Any], request, *, tries: int = 0) -> Any:
        """Run a step of a request until it meets no transient failure.

        Raises:
            CloudError: the service refused, or `tries` (default: the session's) were used up.
        """

        def told() -> Any:
            try:
                return step()
            except HttpError as error:
                text = error.reason or error.content.decode(errors="replace")[:500]
                address = request.uri.split("?")[0]
                method, after = request.methodId, error.resp.get("retry-after", "")
                raise self.refusal(method, error.status_code, text, address, after) from error
            except LOST as error:
                raise self.lost(request.methodId, urlsplit(request.uri).netloc, error) from error
            except GoogleAuthError as error:
                raise self.signed_out(request.methodId, error) from error

        return retry(told, tries=tries or self.tries)

    def post(
        self, url: str, body: str | bytes, *, method: str, timeout_s: float, host: str = "",
        patience: Callable[[CloudError], int] = lambda error: 0,
    ) -> dict:  # fmt: skip
        """POST a body as it is, and give the answer's JSON; for what no service's client sends.

        Args:
            method: its name in the API, for messages.
            host: the header of that name, where it is not the address's own.
            patience: see `retry`.
        Raises:
            CloudError: refused, or not answered; the server's own words are in the message.
        """
        headers = {"Content-Type": "application/json"} | ({"Host": host} if host else {})

        def send() -> dict:
            try:
                answer, content = self.http(timeout_s).request(url, "POST", body, headers)
            except LOST as error:
                raise self.lost(method, url, error) from error
            except GoogleAuthError as error:
                raise self.signed_out(method, error) from error
            if answer.status == 200:
                return json.loads(content)
            after = answer.get("retry-after", "")
            raise self.refusal(method, answer.status, _said(content), url, after)

        return retry(send, tries=self.tries, patience=patience)

    def refusal(
        self, method: str, status: int, text: str, address: str, retry_after: str = ""
    ) -> CloudError:
        """The service's own words, the method, the resource, and what to do about it."""
        failure = CloudError(
            f"{method} answered {status}: {text} ({address}) {self.todo(status, text)}",
            status=status,
            method=method,
        )
        failure.retry_after = retry_after
        return failure

    def lost(self, method: str, address: str, error: Exception) -> CloudError:
        """No answer came; the next try makes a new connection."""
        self.renew()
        todo = self.todo(0, str(error))
        return CloudError(f"{method}: no answer from {address} ({error}). {todo}", method=method)

    def signed_out(self, method: str, error: Exception) -> CloudError:
        """The request did not leave: nobody is signed in any more."""
        return CloudError(
            f"{method} was not sent: {error}. {self.todo(401)}", status=401, method=method
        )

    def todo(self, status: int, text: str = "") -> str:
        """What a person does about a refusal; "" when Google's own words must do."""
        return next_step(status, text, self.project, self.location)

    def create(
        self, request, find: Callable[[], dict | None],
        patience: Callable[[CloudError], int] = lambda error: 0,
    ) -> dict:  # fmt: skip
        """Run a request that makes something; when its answer got lost, it is not made twice.

        Args:
            find: looks for what the request makes; asked before every further try, and when it
                is said to be there: an earlier call, interrupted, may have made it.
            patience: see `retry`.
        """
        tried = []

        def step() -> dict:
            found = find() if tried else None
            tried.append(request)
            return self.call(request, repeatable=False) if found is None else found

        # 409 and nothing there: somebody else began to make it and did not end it.
        return retry(step, patience=lambda error: 4 if error.status == 409 else patience(error))

    def renew(self) -> None:
        """Close this thread's connection; the next call makes another."""
        left = self._threads.__dict__.pop("http", None)
        if left is not None:
            left.close()

    def wait(self, operation: dict, *, api: str = "aiplatform", version: str = "") -> dict:
        """Wait for a long-running operation, however long it takes, and give its response.

        Every ten minutes a line says what is waited for.
        """
        operations, pause_s = self.service(api, version), 0.05
        start_s, told = time.monotonic(), 0
        # An endpoint's operations are below the endpoint, Service Usage's below nothing at all.
        for collection in operation.get("name", "").split("/")[:-1:2]:
            operations = getattr(operations, collection)()
        while not operation.get("done"):
            time.sleep(pause_s)
            pause_s = min(pause_s * 1.2, 5)
            operation = self.call(operations.get(name=operation["name"]))
            tens = int(time.monotonic() - start_s) // 600
            if tens > told:
                told = tens
                print(f"Still waiting after {10 * tens} minutes: {operation['name']} is under way "
                      "and goes on without this notebook, too.")  # fmt: skip
        if "error" in operation:
            code, text = operation["error"].get("code", 0), operation["error"].get("message", "")
            status = STATUS.get(code, code)
            raise CloudError(f"{text or 'unknown'} {self.todo(status, text)}", status=status)
        return operation.get("response", {})

    def log(self, chosen: str, order: str = "timestamp asc") -> Iterator[dict]:
        """Entries of Cloud Logging that a filter chooses, oldest first or "timestamp desc".

        Source: REST v2 entries.list
        """
        body = {
            "resourceNames": [f"projects/{self.project}"], "filter": chosen,
            "orderBy": order, "pageSize": 1000,
        }  # fmt: skip
        entries = self.service("logging").entries()
        yield from self.pages(entries.list(body=body), entries.list_next, "entries")

    def list(self, collection, key: str, **arguments) -> list[dict]:
        """Every item of a paged list call."""
        return list(self.pages(collection.list(**arguments), collection.list_next, key))

    def pages(self, request, following: Callable, key: str) -> Iterator[dict]:
        """Every item of a paged request, page by page.

        Args:
            following: makes the request of the next page from a request and its answer.
        """
        while request is not None:
            answer = self.call(request, repeatable=True)
            yield from answer.get(key, [])
            request = following(request, answer)


def retry(
    step: Callable[[], Any],
    *,
    tries: int = 0,
    patience: Callable[[CloudError], int] = lambda error: 0,
) -> Any:
    """Run a step again while its failure may pass: the one rule of this package for retries.

    Args:
        tries: how often at most; 0 is RETRIES and one, about a minute.
        patience: the most tries after a failure of a special kind; 0 for any other failure.
    Raises:
        CloudError: the last failure.
    """
    for attempt in itertools.count(1):
        try:
            return step()
        except CloudError as error:
            most = patience(error) or (_passing(error) and (tries or RETRIES + 1))
            most = min(most, 6) if isinstance(error.__cause__, NOBODY) else most
            if attempt >= most:
                raise
            failure = error
        pause(attempt - 1, failure.retry_after)


def _bare(schema: dict) -> dict:
    """What a client needs of a schema: whether there are pages. The rest only becomes docstrings,
    written again whenever a method is looked up."""
    paged = {k: v for k, v in schema.get("properties", {}).items() if k in PAGED}
    return {"id": schema["id"], "type": "object", "properties": paged}


def pause(attempt: int, retry_after: str = "") -> None:
    """Wait before another try: what the service asks for, else a random share of 2**attempt s,
    at most of 6 s."""
    asked_s = float(retry_after) if retry_after.isdigit() else 0
    time.sleep(min(asked_s, 30) or random.random() * min(2**attempt, 6))


def _passing(failure: CloudError) -> bool:
    """Whether asking again may help."""
    return failure.status in {0, *RETRIED} and LASTING not in str(failure)


def _said(content: bytes) -> str:
    """What a refusal says: Google's JSON, a model server's, or plain text."""
    try:
        error = json.loads(content)["error"]
        return error["message"] if isinstance(error, dict) else str(error)
    except (ValueError, KeyError, TypeError):
        return content[:300].decode(errors="replace")
