"""Put model versions on an endpoint, share its traffic between them, take them off."""

from dataclasses import dataclass, field
from html import escape

from helpers.cloud.client import Session
from helpers.cloud.jobs import check
from helpers.cloud.links import console
from helpers.cloud.names import number
from helpers.cloud.resources import missing, named
from helpers.errors import NotDeployedError, SettingError
from helpers.project import deployments
from helpers.registry import Model, as_model


@dataclass(frozen=True)
class Endpoint:
    """An address that answers predictions.

    `traffic` and `models` are by version id, as they were when the object was made; versions of
    another model than the one that serves most are `MODEL_ID@VERSION`.
    """

    session: Session = field(repr=False)
    name: str
    resource_name: str
    url: str
    host: str
    traffic: dict[str, int]
    models: dict[str, Model]

    @property
    def model(self) -> Model:
        """The version with the most traffic.

        Raises:
            NotDeployedError: nothing serves here.
        """
        if not self.traffic:
            raise NotDeployedError(
                f'No model serves on endpoint "{self.name}". Run 03_deploy.ipynb.'
            )
        return self.models[max(self.traffic, key=self.traffic.get)]

    def _repr_html_(self) -> str:
        link = console(self.session, "endpoint", number(self.resource_name))
        shares = ", ".join(f"version {v}: {share} %" for v, share in self.traffic.items())
        return f'Endpoint <a href="{escape(link)}">{escape(self.name)}</a> · {escape(shares)}'


def deploy(
    session: Session,
    model: Model,
    *,
    name: str = "",
    machine_type: str = "n1-standard-2",
    traffic_percent: int = 100,
    idle_shutdown_s: int = 3600,
    always_on: bool = False,
) -> Endpoint:
    """Serve a model version on an endpoint, with one machine; safe to repeat.

    Args:
        name: the endpoint's display name; "" takes the model's.
        traffic_percent: this version's share; the versions running there keep the rest, and the
            first one gets all.
        idle_shutdown_s: without a request for so long, the machine stops and with it the bill;
            the next request starts it again, which takes minutes. Google does this for one version
            alone: beside another one, both stay up, and this is printed.
        always_on: keep the machine up, and the bill, until `cleanup`.
    Raises:
        CloudError: it did not start; what this call made is removed again.
    Source: REST v1beta1 (with always_on: v1) projects.locations.endpoints.deployModel
    """
    name = name or model.name
    check(machine_type, {})
    if not 0 < traffic_percent <= 100:
        raise SettingError(f"traffic_percent={traffic_percent}; expected 1 to 100.")
    if not 300 <= idle_shutdown_s <= 28_800:
        raise SettingError(
            f"idle_shutdown_s={idle_shutdown_s}; expected 300 to 28800 seconds, or always_on=True."
        )
    idle_s = 0 if always_on else idle_shutdown_s
    title = f"{model.name} version {model.version}"
    deployments.put_on(
        session, name, model.resource_name, title=title, machine_type=machine_type,
        percent=traffic_percent, idle_s=idle_s,
    )  # fmt: skip
    return find_endpoint(session, name)


def find_endpoint(session: Session, name: str) -> Endpoint:
    """An endpoint by display name.

    Raises:
        NotFoundError: no such endpoint; the nearest name is given.
    """
    resource = named(session, "endpoints", name)
    if not resource:
        raise missing(session, "endpoints", name, "Run 03_deploy.ipynb first.")
    services, shares = session.collection("models"), resource.get("trafficSplit", {})
    deployed, models, traffic = resource.get("deployedModels", []), {}, {}
    serving = max(deployed, key=lambda one: shares.get(one["id"], 0), default=None)
    for one in deployed:
        model, version = one["model"].split("@")[0], one["modelVersionId"]
        own = model == serving["model"].split("@")[0]
        key = version if own else f"{number(model)}@{version}"
        found = session.call(services.get(name=f"{model}@{version}"))
        models[key] = as_model(session, found, found["displayName"])
        traffic[key] = traffic.get(key, 0) + shares.get(one["id"], 0)
    host = resource.get("dedicatedEndpointDns", "")
    url = deployments.address(session, resource["name"], host)
    return Endpoint(session, name, resource["name"], url, host, traffic, models)


def promote(session: Session, model: Model, *, name: str = "") -> Endpoint:
    """Give a deployed version all the traffic of its endpoint."""
    return _give_all(session, name or model.name, model)


def roll_back(session: Session, *, name: str) -> Endpoint:
    """Give all the traffic back to the newest version older than the one that has most of it."""
    endpoint = find_endpoint(session, name)
    older = deployments.older({v: s for v, s in endpoint.traffic.items() if "@" not in v})
    if not older:
        serving = max(endpoint.traffic, key=endpoint.traffic.get, default="0")
        raise NotDeployedError(
            f'Endpoint "{name}" has no version older than {serving} to go back to.'
        )
    return _give_all(session, name, endpoint.models[older])


def _give_all(session: Session, name: str, model: Model) -> Endpoint:
    endpoint = find_endpoint(session, name)
    deployed = named(session, "endpoints", name).get("deployedModels", [])
    chosen = [d["id"] for d in deployed if deployments.is_version(d, model.resource_name)]
    if not chosen:
        there = ", ".join(endpoint.models)
        raise NotDeployedError(
            f'Version {model.version} is not deployed on "{name}" (there: {there}).'
        )
    split = {one["id"]: 0 for one in deployed} | {chosen[0]: 100}
    deployments.set_traffic(session, endpoint.resource_name, split)
    return find_endpoint(session, name)
