"""Endpoints: the list, one endpoint with its traffic, and the changes of it."""

from helpers.cloud import deployments
from helpers.errors import NotDeployedError
from helpers.pages import drawings, traffic
from helpers.pages.visits import Confirm, Done, Page, Session, Visit, confirmed, seconds


def every(session: Session) -> list[dict]:
    """All endpoints, as `about` gives them."""
    found = session.list(session.collection("endpoints"), "endpoints", parent=session.parent)
    return [_about(item) for item in found]


def about(session: Session, number: str) -> dict:
    """One endpoint: `id name created host shared deployed`; what is deployed has a share each.

    Source: REST v1beta1 projects.locations.endpoints.get (v1 does not show what scales to zero)
    """
    request = session.collection("endpoints").get(name=f"{session.parent}/endpoints/{number}")
    request.uri = request.uri.replace("/v1/", "/v1beta1/", 1)  # the document of v1beta1 is large
    return _about(session.call(request))


def _about(item: dict) -> dict:
    split, deployed = item.get("trafficSplit", {}), []
    for one in item.get("deployedModels", []):
        pool = one.get("dedicatedResources", {})
        idle = pool.get("scaleToZeroSpec", {}).get("idleScaledownPeriod", "")
        low, high = pool.get("minReplicaCount", 0), pool.get("maxReplicaCount", 1)
        deployed.append({
            "id": one["id"], "version": one.get("modelVersionId", ""), "since": one["createTime"],
            "model": one["model"].rsplit("/", 1)[-1].split("@")[0],
            "name": one.get("displayName", ""), "share": split.get(one["id"], 0),
            "machine": pool.get("machineSpec", {}).get("machineType", "automatic"),
            "replicas": str(high) if low == high else f"{low} to {high}",
            "idle_s": float(idle.removesuffix("s")) if idle else None,
        })  # fmt: skip
    deployed.sort(key=lambda one: (one["model"], -int(one["version"] or 0)))
    return {
        "id": item["name"].rsplit("/", 1)[-1], "resource": item["name"],
        "name": item["displayName"], "created": item["createTime"],
        "host": item.get("dedicatedEndpointDns", ""), "deployed": deployed,
        "bar": drawings.shares([(f"version {d['version']}", d["share"]) for d in deployed]),
        "labels": item.get("labels", {}),
    }  # fmt: skip


def listed(visit: Visit) -> Page:
    return Page("endpoints.html", {"endpoints": every(visit.session)})


def show(visit: Visit) -> Page:
    session = visit.session
    endpoint = about(session, visit.path["id"])
    asked = traffic.minutes(session, endpoint["id"])
    serving = [one["version"] for one in endpoint["deployed"] if one["share"] == 100]
    older = [
        one for one in endpoint["deployed"] if serving and int(one["version"]) < int(serving[0])
    ]
    for one in endpoint["deployed"]:
        one["idle_left_s"] = None
        if one["idle_s"] and asked:
            last = max(asked["last"], one["since"]) if asked["last"] else one["since"]
            one["idle_left_s"] = one["idle_s"] - seconds(last)
    values = {"endpoint": endpoint, "asked": asked, "can_go_back": bool(older)}
    return Page("endpoint.html", values | {"url": address(session, endpoint)})


def address(session: Session, endpoint: dict) -> str:
    """Where predictions are asked."""
    host = endpoint["host"]
    root = session.endpoint or (f"https://{host}" if host else session.root("aiplatform"))
    return f"{root}/v1/{endpoint['resource']}"


def change(visit: Visit) -> Confirm | Done:
    """Promote a version, roll back to the one before, or take one off."""
    session, verb = visit.session, visit.path["change"]
    endpoint = about(session, visit.path["id"])
    page, name = f"endpoints/{endpoint['id']}", endpoint["name"]
    chosen = _chosen(visit, endpoint)
    shares = {one["id"]: one["share"] for one in endpoint["deployed"]}
    split = dict.fromkeys(shares, 0) | {chosen["id"]: 100}
    what = f"version {chosen['version']}"
    if verb == "undeploy":
        split = _without(shares, chosen["id"])
        effects = [f"{chosen['name'] or what} ({chosen['machine']}) stops, and its bill."]
        if not split:
            effects.append("It is the last one: the endpoint answers no more.")
        question = f"Take {what} off endpoint {name}?"
    else:
        effects, question = [], f"Give {what} all the traffic of endpoint {name}?"
    words = {one["id"]: f"version {one['version']}" for one in endpoint["deployed"]}
    effects += [
        f"{words[key]}: {shares[key]} % → {share} % of the requests"
        for key, share in split.items() if share != shares[key]
    ]  # fmt: skip
    button = {"promote": "Promote", "roll-back": "Roll back", "undeploy": "Undeploy"}[verb]
    asked = Confirm(question, f"{name} {what}", effects, f"{button} {what}", page,
                    {"version": chosen["version"]})  # fmt: skip
    if not confirmed(visit, asked):
        return asked
    if verb == "undeploy":
        body = {"deployedModelId": chosen["id"]} | ({"trafficSplit": split} if split else {})
        deployments.undeploy(session, endpoint["resource"], body)
        return Done(page, f"{what} was taken off {name}.")
    deployments.set_traffic(session, endpoint["resource"], split)
    return Done(page, f"{what} has all the traffic of {name}.")


def _chosen(visit: Visit, endpoint: dict) -> dict:
    given = visit.form if visit.form is not None else visit.query
    version, deployed = given.get("version", ""), endpoint["deployed"]
    if visit.path["change"] == "roll-back" and not version:
        first = max(deployed, key=lambda one: one["share"], default=None)
        older = [one for one in deployed if first and int(one["version"]) < int(first["version"])]
        version = max((one["version"] for one in older), key=int, default="")
    for one in deployed:
        if one["version"] == version:
            return one
    there = ", ".join(one["version"] for one in deployed) or "nothing"
    raise NotDeployedError(
        f'Version {version} is not deployed on "{endpoint["name"]}" (there: {there}).'
    )


def _without(shares: dict[str, int], gone: str) -> dict[str, int]:
    """The traffic of those that stay, in proportion; the largest gets what rounding leaves."""
    left = {key: share for key, share in shares.items() if key != gone}
    if not left:
        return {}
    total = sum(left.values())
    split = {key: share * 100 // total if total else 0 for key, share in left.items()}
    split[max(split, key=split.get)] += 100 - sum(split.values())
    return split
