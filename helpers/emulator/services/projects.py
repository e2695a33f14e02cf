"""What a project is made of before anything runs: services, accounts, policies, billing, budgets.

All of it is kept as asked for; nothing here has an effect. Permissions named in the environment
variable LOCAL_CLOUD_DENIED (with commas between) are answered as missing when somebody tests them.
"""

import base64
import os
import re
from urllib.parse import unquote

from helpers.emulator.front.calls import (
    ApiError,
    Call,
    camel,
    found,
    method,
    page,
    project_number,
    resources,
)  # fmt: skip
from helpers.emulator.front.rules import check_bindings
from helpers.emulator.services import operations

KNOWN = {
    f"{name}.googleapis.com"
    for name in ("aiplatform", "artifactregistry", "billingbudgets", "cloudbilling", "cloudbuild",
                 "cloudresourcemanager", "compute", "iam", "logging", "monitoring", "serviceusage",
                 "storage")
}  # fmt: skip
BILLING = "billingAccounts/000000-000000-000000"  # pays for every project here


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


@method("serviceusage.services.consumerQuotaMetrics.get")
def get_quota(call: Call) -> dict:
    """Any of aiplatform's: no limit here (-1)."""
    name = call.path["name"]
    metric = unquote(name.rpartition("/")[2])
    if not metric.startswith("aiplatform.googleapis.com/"):
        raise ApiError(404, f"Quota metric {metric} not found or permission denied.")
    bucket = {"effectiveLimit": "-1", "defaultLimit": "-1"}
    limit = {"metric": metric, "unit": "1/{project}/{region}", "quotaBuckets": [bucket]}
    return {"name": name, "metric": metric, "consumerQuotaLimits": [limit]}


def _done(call: Call, kind: str, response: dict) -> dict:
    name = f"operations/acat.{call.state.next_id()}"
    return operations.finished(
        call, "operations", response, metadata="OperationMetadata", kind=kind, name=name
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


resources("iam.projects.serviceAccounts", "account", key="accounts")


@method("iam.projects.serviceAccounts.delete")
def delete_account(call: Call) -> dict:
    found(call, call.path["name"])
    call.state.delete(call.path["name"])
    return {}


# --- Policies, and the permissions that follow from them


def _holder(call: Call) -> str:
    """The resource that a policy belongs to; projects are there without being made."""
    name = call.path["resource"]
    if name.count("/") > 1:
        found(call, name)
    return name


@method("cloudresourcemanager.projects.getIamPolicy",
        "iam.projects.serviceAccounts.getIamPolicy",
        "artifactregistry.projects.locations.repositories.getIamPolicy")  # fmt: skip
def get_policy(call: Call) -> dict:
    return call.state.get(f"policy/{_holder(call)}") or {"version": 1, "etag": "BwAAAA=="}


@method("cloudresourcemanager.projects.setIamPolicy",
        "iam.projects.serviceAccounts.setIamPolicy",
        "artifactregistry.projects.locations.repositories.setIamPolicy")  # fmt: skip
def set_policy(call: Call) -> dict:
    name, policy = f"policy/{_holder(call)}", call.body.get("policy")
    if policy is None:
        raise ApiError(400, "Request contains an invalid argument: policy is not set.")
    check_bindings(policy.get("bindings", []))
    if policy.get("version") != 3 and any("condition" in b for b in policy.get("bindings", [])):
        raise ApiError(400, "Policies with conditions must have version 3 (policy.version).")
    kept = call.state.get(name) or {"etag": "BwAAAA=="}
    if policy.get("etag", kept["etag"]) != kept["etag"]:
        message = "There were concurrent policy changes. Please retry the whole read-modify-write."
        raise ApiError(409, message, status="ABORTED")
    etag = base64.b64encode(call.state.next_id().encode()).decode()
    # [P] the default mask; a repository's policy has no mask and no audit configs
    changed = {camel(part) for part in call.body.get("updateMask", "bindings,etag").split(",")}
    given = {key: policy[key] for key in changed | {"version"} if key in policy}
    unchanged = {key: value for key, value in kept.items() if key not in changed}
    return call.state.put("policy", name, unchanged | given | {"etag": etag})


@method("cloudresourcemanager.projects.testIamPermissions",
        "iam.projects.serviceAccounts.testIamPermissions",
        "artifactregistry.projects.locations.repositories.testIamPermissions")  # fmt: skip
def test_permissions(call: Call) -> dict:
    _holder(call)
    denied = os.environ.get("LOCAL_CLOUD_DENIED", "").split(",")
    granted = [name for name in call.body.get("permissions", []) if name not in denied]
    return {"permissions": granted} if granted else {}


# --- The project and its bill


@method("cloudresourcemanager.projects.get")
def get_project(call: Call) -> dict:
    project = call.path["name"].split("/")[1]
    name = f"projects/{project_number(project)}"
    return {"name": name, "projectId": project, "displayName": project, "state": "ACTIVE"}


@method("cloudbilling.projects.getBillingInfo")
def get_billing(call: Call) -> dict:
    name = f"{call.path['name']}/billingInfo"
    account = (call.state.get(name) or {"billingAccountName": BILLING})["billingAccountName"]
    return {
        "name": name, "projectId": name.split("/")[1], "billingAccountName": account,
        "billingEnabled": bool(account),
    }  # fmt: skip


@method("cloudbilling.projects.updateBillingInfo")
def update_billing(call: Call) -> dict:
    """An empty `billingAccountName` turns billing off."""
    kept = {"billingAccountName": call.body.get("billingAccountName", "")}
    call.state.put("billing", f"{call.path['name']}/billingInfo", kept)
    return get_billing(call)


@method("billingbudgets.billingAccounts.budgets.create")
def create_budget(call: Call) -> dict:
    name = f"{call.path['parent']}/budgets/{call.state.next_id()}"
    budget = call.body | {"name": name, "etag": "1"}
    return call.state.put("budget", name, budget, parent=call.path["parent"])


@method("billingbudgets.billingAccounts.budgets.list")
def list_budgets(call: Call) -> dict:
    """[P] scope: of a project alone, `projects/…`."""
    budgets, scope = call.state.list("budget", call.path["parent"]), call.query.get("scope")
    if scope:
        budgets = [b for b in budgets if scope in b.get("budgetFilter", {}).get("projects", [])]
    return page(call, budgets, "budgets")
