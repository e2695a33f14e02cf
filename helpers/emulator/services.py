"""Service Usage and IAM service accounts: kept as asked for; nothing here has an effect."""

import hashlib
import re

from helpers.emulator import operations
from helpers.emulator.calls import ApiError, Call, found, method, page

KNOWN = {
    f"{name}.googleapis.com"
    for name in ("aiplatform", "artifactregistry", "billingbudgets", "cloudbilling", "cloudbuild",
                 "cloudresourcemanager", "compute", "iam", "logging", "serviceusage", "storage")
}  # fmt: skip


def project_number(project: str) -> str:
    """A number for a project id, always the same."""
    if project.isdecimal():
        return project
    digest = hashlib.sha256(project.encode()).hexdigest()
    return str(10**11 + int(digest[:12], 16) % (9 * 10**11))


def _service(call: Call, name: str) -> dict:
    service = name.rsplit("/", 1)[-1]
    if service not in KNOWN:
        raise ApiError(404, f"Service {service} not found or permission denied.")
    blank = {"name": name, "parent": name.split("/services/")[0], "state": "DISABLED"}
    return call.state.get(name) or blank | {"config": {"name": service}}


def _enable(call: Call, name: str) -> dict:
    service = _service(call, name) | {"state": "ENABLED"}
    return call.state.put("service", name, service, parent=service["parent"])


@method("serviceusage.services.get")
def get_service(call: Call) -> dict:
    return _service(call, call.path["name"])


@method("serviceusage.services.batchGet")
def batch_get_services(call: Call) -> dict:
    return {"services": [_service(call, name) for name in call.query.get("names", [])]}


@method("serviceusage.services.list")
def list_services(call: Call) -> dict:
    parent = call.path["parent"]
    return page(call, [_service(call, f"{parent}/services/{n}") for n in sorted(KNOWN)], "services")


@method("serviceusage.services.enable")
def enable_service(call: Call) -> dict:
    service = _enable(call, call.path["name"])
    return _done(call, "EnableServiceResponse", {"service": service})


@method("serviceusage.services.batchEnable")
def batch_enable_services(call: Call) -> dict:
    parent, ids = call.path["parent"], call.body.get("serviceIds", [])
    if not 0 < len(ids) <= 20:
        raise ApiError(400, f"{len(ids)} services; expected 1 to 20.")
    services = [_enable(call, f"{parent}/services/{name}") for name in ids]
    return _done(call, "BatchEnableServicesResponse", {"services": services})


def _done(call: Call, kind: str, response: dict) -> dict:
    base = "type.googleapis.com/google.api.serviceusage.v1."
    return operations.finished(
        call.cloud,
        "operations",
        {"@type": base + kind, **response},
        metadata={"@type": base + "OperationMetadata"},
        name=f"operations/acat.{call.state.next_id()}",
    )


@method("iam.projects.serviceAccounts.create")
def create_account(call: Call) -> dict:
    parent, account = call.path["name"], call.body.get("accountId", "")
    if not re.fullmatch(r"[a-z]([-a-z0-9]{4,28}[a-z0-9])", account):
        raise ApiError(400, f"accountId {account!r}; expected 6-30 of [a-z0-9-], a letter first.")
    project = parent.split("/")[1]
    email = f"{account}@{project}.iam.gserviceaccount.com"
    name = f"{parent}/serviceAccounts/{email}"
    resource = call.body.get("serviceAccount", {}) | {
        "name": name, "email": email, "projectId": project, "uniqueId": call.state.next_id(),
    }  # fmt: skip
    try:
        return call.state.create("account", name, resource, parent=parent)
    except KeyError as error:
        message = f"Service account {account} already exists within project {parent}."
        raise ApiError(409, message) from error


@method("iam.projects.serviceAccounts.get")
def get_account(call: Call) -> dict:
    return found(call, call.path["name"])


@method("iam.projects.serviceAccounts.list")
def list_accounts(call: Call) -> dict:
    return page(call, call.state.list("account", call.path["name"]), "accounts")


@method("iam.projects.serviceAccounts.delete")
def delete_account(call: Call) -> dict:
    found(call, call.path["name"])
    call.state.delete(call.path["name"])
    return {}


@method("iam.projects.serviceAccounts.getIamPolicy")
def get_account_policy(call: Call) -> dict:
    found(call, call.path["resource"])
    return call.state.get(f"policy/{call.path['resource']}") or {"version": 1, "etag": "BwAAAA=="}


@method("iam.projects.serviceAccounts.setIamPolicy")
def set_account_policy(call: Call) -> dict:
    found(call, call.path["resource"])
    name = f"policy/{call.path['resource']}"
    return call.state.put("policy", name, call.body["policy"] | {"etag": "BwAAAB=="})
