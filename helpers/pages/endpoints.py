"""Endpoints: the list, one endpoint with its traffic, and the changes of it."""

from helpers.cloud import resources
from helpers.cloud.names import number
from helpers.errors import NotDeployedError
from helpers.pages import drawings, traffic
from helpers.pages.views import Confirm, Done, Page, Session, Visit, confirmed, seconds
from helpers.project import deployments

BUTTONS = {"promote": "Promote", "roll-back": "Roll back", "undeploy": "Undeploy"}


def every(session: Session) -> list[dict]:
    """All endpoints, as `about` gives them."""
    return [_about(item) for item in resources.every(session, "endpoints")]


def about(session: Session, endpoint_id: str) -> dict:
    """One endpoint: `id name created host deployed labels`; what is deployed has a share each.

    Source: REST v1beta1 projects.locations.endpoints.get (v1 does not show what scales to zero)
    """
    name = f"{session.parent}/endpoints/{endpoint_id}"
    request = session.collection("endpoints").get(name=name)
    request.uri = request.uri.replace("/v1/", "/v1beta1/", 1)  # the document of v1beta1 is large
    return _about(session.call(request))


def _about(item: dict) -> dict:
    split, deployed = item.get("trafficSplit", {}), []
    for one in item.get("deployedModels", []):
        model, version = number(one["model"]), one.get("modelVersionId", "")
        ours = one.get("displayName", "").endswith(f" version {version}")
        pool = one.get("dedicatedResources", {})
        idle = pool.get("scaleToZeroSpec", {}).get("idleScaledownPeriod", "")
        low, high = pool.get("minReplicaCount", 0), pool.get("maxReplicaCount", 1)
        deployed.append({
            "id": one["id"], "version": version, "since": one["createTime"], "model": model,
            "name": one["displayName"] if ours else f"{model} version {version}",
            "share": split.get(one["id"], 0),
            "machine": pool.get("machineSpec", {}).get("machineType", "automatic"),
            "replicas": str(high) if low == high else f"{low} to {high}",
            "idle_s": float(idle.removesuffix("s")) if idle else None,
        })  # fmt: skip
    deployed.sort(key=lambda one: (one["model"], -int(one["version"] or 0)))
    return {
        "id": number(item["name"]), "resource": item["name"], "name": item["displayName"],
        "created": item["createTime"], "host": item.get("dedicatedEndpointDns", ""),
        "deployed": deployed, "labels": item.get("labels", {}),
        "bar": drawings.shares([(d["name"], d["share"]) for d in deployed]),
    }  # fmt: skip


def listed(visit: Visit) -> Page:
    return Page("endpoints.html", {"endpoints": every(visit.session)})


def show(visit: Visit) -> Page:
    session = visit.session
    endpoint = about(session, visit.path["id"])
    asked = traffic.minutes(session, endpoint["id"])
    deployed = endpoint["deployed"]
    serving = max(deployed, key=lambda one: one["share"], default=None)
    own = {one["version"]: one for one in deployed if one["model"] == serving["model"]}
    older = own.get(deployments.older({version: one["share"] for version, one in own.items()}))
    for one in deployed:
        one["idle_left_s"] = None
        if one["idle_s"] and asked:
            last = max(asked["last"], one["since"])
            one["idle_left_s"] = one["idle_s"] - seconds(last)
    return Page("endpoint.html", {
        "endpoint": endpoint, "asked": asked, "url": address(session, endpoint), "older": older,
    })  # fmt: skip


def address(session: Session, endpoint: dict) -> str:
    """Where predictions are asked."""
    return deployments.address(session, endpoint["resource"], endpoint["host"])


def change(visit: Visit) -> Confirm | Done:
    """Promote a version, roll back to the one before, or take one off."""
    session, verb = visit.session, visit.path["change"]
    endpoint = about(session, visit.path["id"])
    page, name, deployed = f"endpoints/{endpoint['id']}", endpoint["name"], endpoint["deployed"]
    chosen = _chosen(visit, endpoint)
    shares, what = {one["id"]: one["share"] for one in deployed}, chosen["name"]
    promoted = Done(page, f"{what} has all the traffic of {name}.")
    if verb != "undeploy" and chosen["share"] == 100:
        return promoted
    if verb == "undeploy":
        split = deployments.without(shares, chosen["id"])
        effects = [f"{what} ({chosen['machine']}) stops, and its bill."]
        if not split:
            effects.append("It is the last one: the endpoint then serves nothing.")
        question = f"Take {what} off endpoint {name}?"
    else:
        split = dict.fromkeys(shares, 0) | {chosen["id"]: 100}
        effects, question = [], f"Give {what} all the traffic of endpoint {name}?"
    effects += [
        f"{one['name']}: {one['share']} % → {split[one['id']]} % of the requests"
        for one in deployed if split.get(one["id"], one["share"]) != one["share"]
    ]  # fmt: skip
    asked = Confirm(question, effects, f"{BUTTONS[verb]} {what}", page, {"id": chosen["id"]})
    if not confirmed(visit, asked):
        return asked
    if verb == "undeploy":
        body = {"deployedModelId": chosen["id"]} | ({"trafficSplit": split} if split else {})
        deployments.undeploy(session, endpoint["resource"], body)
        return Done(page, f"{what} was taken off {name}.")
    deployments.set_traffic(session, endpoint["resource"], split)
    return promoted


def _chosen(visit: Visit, endpoint: dict) -> dict:
    """By its id: two models may have versions of one number."""
    for one in endpoint["deployed"]:
        if one["id"] == visit.given.get("id"):
            return one
    there = ", ".join(one["name"] for one in endpoint["deployed"]) or "nothing"
    raise NotDeployedError(
        f'What this was about is not on "{endpoint["name"]}" any more (there: {there}).'
    )
