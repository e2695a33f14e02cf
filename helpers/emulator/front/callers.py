"""Who calls: the holder of emulator.json's token, or a job or served model with a token of its own.

A job's processes get theirs as on Google, from the metadata server's addresses, which this port
answers, too: GCE_METADATA_HOST names it. Nobody else gets it there: the asking process is found by
its end of the connection. The token may do what the account's roles allow, and ends with the job.
"""

import contextlib
import fnmatch
import hmac
import secrets
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field

import orjson
import psutil
from starlette.requests import Request
from starlette.responses import Response

from helpers.emulator.front.calls import ApiError, Cloud, project_number

FLAVOR = {"Metadata-Flavor": "Google", "Server": "Metadata Server for VM"}
SCOPES = "https://www.googleapis.com/auth/cloud-platform"
# What roles allow that their last word does not say [D: iam/docs/roles-permissions]. The default
# account of jobs is the custom code service agent.
READ_OBJECT = "storage.objects.get"
AGENT_DOMAIN = "@gcp-sa-aiplatform-cc.iam.gserviceaccount.com"
AGENT = "roles/aiplatform.customCodeServiceAgent"
ROLES = {
    "roles/owner": ["*"], "roles/editor": ["*"], "roles/viewer": ["*.get", "*.list"],
    AGENT: ["aiplatform.*", "storage.*", "logging.*", "artifactregistry.*.get",
            "artifactregistry.*.list"],
    "roles/storage.objectUser": ["storage.objects.*"],
    "roles/storage.objectAdmin": ["storage.objects.*"],
    "roles/storage.objectViewer": ["storage.objects.get", "storage.objects.list"],
    "roles/storage.objectCreator": ["storage.objects.create"],
    "roles/storage.legacyBucketReader": ["storage.buckets.get", "storage.objects.list"],
    "roles/logging.logWriter": ["logging.logEntries.create"],
}  # fmt: skip
READ = ["get*", "list*"]
WORDS = {
    "admin": ["*"], "user": ["*"], "editor": ["*"], "viewer": READ, "reader": READ,
    "writer": [*READ, "create", "update"], "creator": ["create"],
}  # fmt: skip
VERBS = {"insert": "create", "upload": "create", "patch": "update", "copy": "create",
         "rewrite": "create", "compose": "create", "lockRetentionPolicy": "update",
         "entries.list": "logEntries.list"}  # fmt: skip


@dataclass(frozen=True)
class Caller:
    """A job or a served model; `pids` are the processes whose families it consists of."""

    name: str
    project: str
    location: str
    email: str
    token: str = field(repr=False)


_callers: dict[str, Caller] = {}  # by name
_pids: dict[str, Callable[[], Iterable[int]]] = {}


def issue(
    cloud: Cloud, name: str, account: str, pids: Callable[[], Iterable[int]], *, key: str = ""
) -> Caller:
    """The identity of a resource, the same after a restart of the local cloud.

    Args:
        name: of the job or endpoint; `key` tells several of an endpoint apart.
        account: service account; "" is the default one.
        pids: gives the first processes it consists of now.
    """
    _, project, _, location, *_ = name.split("/")
    place = f"identity/{name}{key}"
    agent = f"service-{project_number(project)}{AGENT_DOMAIN}"
    known = cloud.state.get(place) or asdict(
        Caller(place, project, location, account or agent, f"ya29.{secrets.token_urlsafe(32)}")
    )
    cloud.state.put("identity", place, known)
    _pids[place] = pids
    return _callers.setdefault(place, Caller(**known))


def revoke(cloud: Cloud, name: str, *, key: str = "") -> None:
    """From here on the token of a resource is nobody's."""
    place = f"identity/{name}{key}"
    _callers.pop(place, None)
    _pids.pop(place, None)
    cloud.state.delete(place)


def variables(cloud: Cloud) -> dict[str, str]:
    """Where Google's libraries find their credentials and, for storage, the service."""
    host = cloud.url.removeprefix("http://")
    return {
        "GCE_METADATA_HOST": host, "GCE_METADATA_IP": host, "API_ENDPOINT_OVERRIDE": cloud.url,
    }  # fmt: skip


def find(cloud: Cloud, token: str) -> Caller | None:
    """Who holds this token; None: the one who may do everything.

    Raises:
        ApiError: nobody.
    """
    if hmac.compare_digest(token.encode(), cloud.token.encode()):
        return None
    for caller in list(_callers.values()):
        if hmac.compare_digest(token.encode(), caller.token.encode()):
            return caller
    raise ApiError(
        401, "Request had invalid authentication credentials. Expected the bearer token in the "
        "state folder's emulator.json, or a running job's own.",
    )  # fmt: skip


# --- permissions


def check(cloud: Cloud, caller: Caller | None, method_id: str, path: dict[str, str]) -> None:
    """Whether the caller's account may call a method.

    Raises:
        ApiError: 403.
    """
    if caller is None:
        return
    service, *_, kind, verb = method_id.split(".")
    wanted = f"{service}.{VERBS.get(f'{kind}.{verb}') or f'{kind}.{VERBS.get(verb, verb)}'}"
    asked = {path[key]: wanted for key in ("bucket", "destinationBucket") if key in path}
    if "sourceBucket" in path and not _may(cloud, caller, READ_OBJECT, path["sourceBucket"]):
        raise _denied(caller, READ_OBJECT)
    name = next((value for value in path.values() if value.startswith("projects/")), "")
    project = name.split("/")[1] if name else caller.project
    for bucket in asked or [""]:
        if not _may(cloud, caller, wanted, bucket, project):
            raise _denied(caller, wanted)


def _denied(caller: Caller, permission: str) -> ApiError:
    said = f"Permission '{permission}' denied on resource (or it may not exist)."
    return ApiError(403, f"{caller.email} does not have {permission} access. {said}")


def _may(cloud: Cloud, caller: Caller, permission: str, bucket: str, project: str = "") -> bool:
    """By the roles that the account has in the project of the resource, or on its bucket."""
    members = {f"serviceAccount:{caller.email}", "allUsers", "allAuthenticatedUsers"}
    own = project_number(caller.project)
    if bucket:
        place = (cloud.state.get(f"b/{bucket}") or {}).get("projectNumber", own)
    else:
        place = project_number(project)
    # nobody here knows the roles of another project's account: it counts as the default one
    ours = caller.email.endswith(f"@{caller.project}.iam.gserviceaccount.com")
    default = caller.email.endswith(AGENT_DOMAIN) or not ours
    roles = [AGENT] if default and place == own else []
    held = [f"projects/{caller.project}"] if place == own else [f"projects/{project}"]
    for resource in [*held, *([f"b/{bucket}"] if bucket else [])]:
        policy = cloud.state.get(f"policy/{resource}") or {}
        for binding in policy.get("bindings", []):
            roles += [binding["role"]] if members & set(binding.get("members", [])) else []
    return any(fnmatch.fnmatchcase(permission, p) for role in roles for p in _patterns(role))


def _patterns(role: str) -> list[str]:
    service, _, word = role.removeprefix("roles/").partition(".")
    return ROLES.get(role) or [f"{service}.{'*.' * (p != '*')}{p}" for p in WORDS.get(word, [])]


# --- the metadata server


def metadata(request: Request) -> Response:
    """An answer of the metadata server [D: compute/docs/metadata/predefined-metadata-keys]."""
    path = request.scope["path"].strip("/")
    if request.headers.get("metadata-flavor") != "Google":
        return _said('Missing required header "Metadata-Flavor": "Google"', 403)
    if "x-forwarded-for" in request.headers:
        return _said("Requests that were forwarded are refused.", 403)
    if request.method != "GET":
        return _said("Only GET is answered.", 405)
    caller = _asking(request.scope.get("client"))
    if caller is None:
        return _said("No process of a running job or served model asks.", 403)
    if not path:
        return _said("computeMetadata/")
    account = {"aliases": ["default"], "email": caller.email, "scopes": [SCOPES]}
    zone = f"projects/{project_number(caller.project)}/zones/{caller.location}-a"
    token = {"access_token": caller.token, "expires_in": 3599, "token_type": "Bearer"}
    answers = {
        "project/project-id": caller.project,
        "project/numeric-project-id": project_number(caller.project),
        "universe/universe-domain": "googleapis.com",
        "instance/zone": zone,
        "instance/service-accounts": f"default/\n{caller.email}/",
    }
    for name in ("default", caller.email):
        place = f"instance/service-accounts/{name}"
        recursive = request.query_params.get("recursive", "").lower() == "true"
        answers |= {
            place: account if recursive else "aliases\nemail\nidentity\nscopes\ntoken",
            f"{place}/email": caller.email, f"{place}/scopes": SCOPES, f"{place}/token": token,
            f"{place}/aliases": "default",
        }  # fmt: skip
    answer = answers.get(path.removeprefix("computeMetadata/v1/"))
    return _said(f"Not found: {path}", 404) if answer is None else _said(answer)


def _said(content: str | dict, status: int = 200) -> Response:
    if isinstance(content, dict):
        return Response(orjson.dumps(content), status, FLAVOR, "application/json")
    return Response(content, status, FLAVOR, "application/text")


def _asking(client: tuple[str, int] | None) -> Caller | None:
    """The job one of whose processes holds the other end of the connection."""
    for name, pids in list(_pids.items()):
        for pid in pids():
            with contextlib.suppress(psutil.Error):
                first = psutil.Process(pid)
                for process in [first, *first.children(recursive=True)]:
                    if _holds(process, client):
                        return _callers.get(name)
    return None


def _holds(process: psutil.Process, client: tuple[str, int] | None) -> bool:
    with contextlib.suppress(psutil.Error):
        return any(tuple(c.laddr) == client for c in process.net_connections("tcp"))
    return False
