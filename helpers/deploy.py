"""Register model versions, put them on an endpoint, share its traffic between them."""

import functools
import json
import re
import zlib
from dataclasses import dataclass, field
from html import escape

from helpers import model_card, storage
from helpers.container_image import LABELS, serving_image, serving_version
from helpers.errors import CloudError, NotDeployedError, NotFoundError, SettingError, near
from helpers.session import Session, console
from helpers.train import check, train

SERVED_NAME = "model"  # TensorFlow Serving's own name for it, part of its routes
ALIAS = re.compile(r"[a-z][a-zA-Z0-9-]{0,126}[a-z0-9]")


@dataclass(frozen=True)
class Model:
    """One version of a registered model; `resource_name` ends in `@VERSION`."""

    session: Session = field(repr=False)
    name: str
    version: str
    aliases: tuple[str, ...]
    artifact_uri: str
    resource_name: str

    @functools.cached_property
    def instance_schema(self) -> dict:
        """The model's inputs: an OpenAPI object, one property a column."""
        return _schema(self, "instance")

    @functools.cached_property
    def prediction_schema(self) -> dict:
        """The model's answer: an OpenAPI number or object."""
        return _schema(self, "prediction")

    @property
    def metrics(self) -> dict:
        """What the job that made it measured."""
        uri = self.artifact_uri.rstrip("/").rsplit("/", 1)[0] + "/metrics.json"
        return json.loads(storage.read_bytes(self.session, uri))

    @property
    def card(self) -> str:
        """The page `register` wrote beside it (model_card.py), as Markdown."""
        uri = self.artifact_uri.rstrip("/").rsplit("/", 1)[0] + "/card.md"
        return storage.read_bytes(self.session, uri).decode()

    def _repr_html_(self) -> str:
        link = console(self.session, "model", self.resource_name.rsplit("/", 1)[-1].split("@")[0])
        return (
            f'Model <a href="{escape(link)}">{escape(self.name)}</a> version {self.version} '
            f"({escape(', '.join(self.aliases))})"
        )


@dataclass(frozen=True)
class Endpoint:
    """An address that answers predictions.

    `traffic` and `models` are by version id, as they were when the object was made.
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
        link = console(self.session, "endpoint", self.resource_name.rsplit("/", 1)[-1])
        shares = ", ".join(f"version {v}: {share} %" for v, share in self.traffic.items())
        return f'Endpoint <a href="{escape(link)}">{escape(self.name)}</a> · {escape(shares)}'


def register(
    session: Session,
    job,
    *,
    name: str,
    aliases: tuple[str, ...] | list[str] = (),
    labels: dict[str, str] | None = None,
) -> Model:
    """Put a job's model into the registry as the next version of `name`.

    Writes its model card beside it. The same model registered again gives the version that is
    there already.

    Args:
        job: a finished `Job`, or the gs:// address of a model folder (with `1/` in it).
        name: display name; the first registration creates the model.
        aliases: beside the automatic v1, v2, …
    Raises:
        NotFoundError: there is no exported model at that address.
        SettingError: an alias or the pair of TensorFlow versions is not usable.
    Source: REST v1 projects.locations.models.upload
    """
    artifact_uri = (job if isinstance(job, str) else job.model_uri).rstrip("/") + "/"
    for alias in aliases:
        if not ALIAS.fullmatch(alias):
            raise SettingError(
                f'Alias "{alias}" is not usable; expected letters, digits, "-", as in v1.'
            )
    if not storage.list_uris(session, f"{artifact_uri}1/saved_model.pb"):
        raise NotFoundError(f"No exported model in {artifact_uri} (1/saved_model.pb is missing).")
    _check_serving(session, artifact_uri)

    check("n1-standard-2", 0, 60, labels or {})
    models = _api(session, "models")
    existing = _named(session, "models", name)
    if existing:
        for version in _versions(session, existing["name"]):
            if version.get("artifactUri") == artifact_uri:
                return _with_aliases(session, version, name, aliases)
    image = serving_image(session)
    description, about = model_card.write(session, artifact_uri)
    body = {
        "model": {
            "displayName": name,
            "artifactUri": artifact_uri,
            "versionDescription": description,
            "labels": about | (labels or {}) | LABELS,
            "versionAliases": ["default", *aliases],
            "containerSpec": _serving_container(image),
            "predictSchemata": {
                "instanceSchemaUri": f"{artifact_uri}1/assets.extra/instance.yaml",
                "predictionSchemaUri": f"{artifact_uri}1/assets.extra/prediction.yaml",
            },
        }
    }
    if existing:
        body["parentModel"] = existing["name"]
    else:
        body["modelId"] = _id(name, "_")
    target = existing["name"] if existing else f"{session.parent}/models/{body['modelId']}"
    response = session.wait(
        session.create(
            models.upload(parent=session.parent, body=body),
            lambda: _find_uploaded(session, target, artifact_uri),
        )
    )
    version = session.call(models.get(name=f"{response['model']}@{response['modelVersionId']}"))
    return _with_aliases(session, version, name, [f"v{response['modelVersionId']}"])


def find_model(session: Session, name: str, version: str | None = None) -> Model:
    """A registered model by display name.

    Args:
        version: a version id ("2"), an alias ("v2", "candidate"), or None for the default one.
    Raises:
        NotFoundError: no such model or version; what exists is named.
    """
    resource = _named(session, "models", name)
    if not resource:
        raise _missing(session, "models", name, "Run 02_train.ipynb first.")
    for found in _versions(session, resource["name"]):
        if (version or "default") in (found["versionId"], *found.get("versionAliases", [])):
            return _model(session, found, name)
    known = [a for v in _versions(session, resource["name"]) for a in v.get("versionAliases", [])]
    raise NotFoundError(f'Model "{name}" has no version "{version}".{near(version or "", known)}')


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
    check(machine_type, 0, 60, {})
    if not 0 < traffic_percent <= 100:
        raise SettingError(f"traffic_percent={traffic_percent}; expected 1 to 100.")
    if not 300 <= idle_shutdown_s <= 28_800:
        raise SettingError(
            f"idle_shutdown_s={idle_shutdown_s}; expected 300 to 28800 seconds, or always_on=True."
        )
    resource = _named(session, "endpoints", name)
    created = resource is None
    running = [] if created else resource.get("deployedModels", [])
    resource = resource or _create_endpoint(session, name)
    deployed_id = _deployed_id(model)
    split = _split(resource.get("trafficSplit", {}), deployed_id, traffic_percent)
    if deployed_id in [deployed["id"] for deployed in running]:
        _set_traffic(session, resource["name"], split)
        return find_endpoint(session, name)
    version, pool = "v1", {"minReplicaCount": 1, "maxReplicaCount": 1}
    if running:
        _keep_up(session, resource["name"], running)
    elif not always_on:
        version, idle = "v1beta1", f"{idle_shutdown_s}s"
        rest = {"idleScaledownPeriod": idle, "minScaleupPeriod": "300s"}
        pool |= {"minReplicaCount": 0, "initialReplicaCount": 1, "scaleToZeroSpec": rest}
        print(f"After {idle_shutdown_s} s without a request its machine stops, and the bill.")
    body = {
        "deployedModel": {
            "id": deployed_id,
            "model": model.resource_name,
            "displayName": f"{model.name} version {model.version}",
            "dedicatedResources": {"machineSpec": {"machineType": machine_type}} | pool,
        },
        "trafficSplit": {"0" if key == deployed_id else key: value for key, value in split.items()},
    }
    print(f'Deploying {model.name} version {model.version} to endpoint "{name}" ({machine_type}) …')
    endpoints = _api(session, "endpoints", version)
    try:
        request = endpoints.deployModel(endpoint=resource["name"], body=body)
        started = session.create(
            request, lambda: _find_deployed(session, resource["name"], deployed_id)
        )
        session.wait(started, version=version)
    except CloudError as error:
        if created and error.status != 401:
            delete_endpoint(session, resource["name"])
        if version == "v1beta1" and error.status in (400, 404, 501) and error.method:
            raise CloudError(
                f"Scaling to zero was refused: {error} If that is why, always_on=True does "
                "without it: the machine then bills until helpers.cleanup.",
                status=error.status,
                method=error.method,
            ) from error
        raise
    return find_endpoint(session, name)


def _create_endpoint(session: Session, name: str) -> dict:
    endpoints, endpoint_id = _api(session, "endpoints"), _id(name)
    body = {"displayName": name, "labels": LABELS, "dedicatedEndpointEnabled": True}
    made = endpoints.create(parent=session.parent, endpointId=endpoint_id, body=body)
    try:
        session.wait(session.call(made, repeatable=True))
    except CloudError as error:
        if error.status != 409:
            raise
    return session.call(endpoints.get(name=f"{session.parent}/endpoints/{endpoint_id}"))


def _keep_up(session: Session, endpoint: str, running: list[dict]) -> None:
    """Versions that share an endpoint can't scale to zero; end it for the one that may."""
    endpoints = _api(session, "endpoints", "v1beta1")
    for deployed in running:
        pool = deployed["dedicatedResources"]
        if not pool.get("minReplicaCount"):
            print("Two versions can't scale to zero: both stay up, and bill, until cleanup.")
            kept = {"machineSpec": pool["machineSpec"], "minReplicaCount": 1}
            body = {
                "deployedModel": {"id": deployed["id"], "dedicatedResources": kept},
                "updateMask": "dedicatedResources.minReplicaCount,"
                "dedicatedResources.initialReplicaCount,dedicatedResources.scaleToZeroSpec",
            }
            request = endpoints.mutateDeployedModel(endpoint=endpoint, body=body)
            session.wait(session.call(request, repeatable=True), version="v1beta1")


def find_endpoint(session: Session, name: str) -> Endpoint:
    """An endpoint by display name.

    Raises:
        NotFoundError: no such endpoint; the nearest name is given.
    """
    resource = _named(session, "endpoints", name)
    if not resource:
        raise _missing(session, "endpoints", name, "Run 03_deploy.ipynb first.")
    services = _api(session, "models")
    models, traffic = {}, {}
    for deployed in resource.get("deployedModels", []):
        full_name = f"{deployed['model'].split('@')[0]}@{deployed['modelVersionId']}"
        found = session.call(services.get(name=full_name))
        models[found["versionId"]] = _model(session, found, found["displayName"])
        traffic[found["versionId"]] = resource.get("trafficSplit", {}).get(deployed["id"], 0)
    host = resource.get("dedicatedEndpointDns", "")
    root = session.endpoint or (f"https://{host}" if host else session.root("aiplatform"))
    url = f"{root}/v1/{resource['name']}"
    return Endpoint(session, name, resource["name"], url, host, traffic, models)


def undeploy(session: Session, endpoint: str, body: dict) -> None:
    """Take a deployed model off an endpoint, with a body of `undeployModel`."""
    endpoints = _api(session, "endpoints")

    def find() -> dict | None:
        deployed = session.call(endpoints.get(name=endpoint)).get("deployedModels", [])
        if any(one["id"] == body["deployedModelId"] for one in deployed):
            return None
        return _under_way(session, "endpoints", endpoint) or {"done": True}

    session.wait(session.create(endpoints.undeployModel(endpoint=endpoint, body=body), find))


def delete_endpoint(session: Session, endpoint: str) -> None:
    """Undeploy every model of an endpoint, then delete it; done before is fine."""
    endpoints = _api(session, "endpoints")
    try:
        resource = session.call(endpoints.get(name=endpoint))
        left = [deployed["id"] for deployed in resource.get("deployedModels", [])]
        while left:
            body = {"deployedModelId": left.pop()}
            if left:  # only the last one may leave while it has traffic
                body["trafficSplit"] = dict.fromkeys(left, 0) | {left[0]: 100}
            undeploy(session, endpoint, body)
        session.wait(session.call(endpoints.delete(name=endpoint)))
    except CloudError as error:
        if error.status != 404:
            raise


def delete_model(session: Session, model: str) -> None:
    """Delete a model with all its versions; done before is fine."""
    try:
        session.wait(session.call(_api(session, "models").delete(name=model)))
    except CloudError as error:
        if error.status != 404:
            raise


def promote(session: Session, model: Model, *, name: str = "") -> Endpoint:
    """Give a deployed version all the traffic of its endpoint."""
    return _give_all(session, name or model.name, model.version)


def roll_back(session: Session, *, name: str) -> Endpoint:
    """Give all the traffic back to the newest version older than the one that has most of it."""
    endpoint = find_endpoint(session, name)
    serving = max(endpoint.traffic, key=endpoint.traffic.get, default="0")
    older = [v for v in endpoint.models if int(v) < int(serving)]
    if not older:
        raise NotDeployedError(
            f'Endpoint "{name}" has no version older than {serving} to go back to.'
        )
    return _give_all(session, name, max(older, key=int))


def make_missing(
    session: Session, *, model: str, endpoint: str = "", parameters: dict | None = None
) -> None:
    """On an empty local cloud, make what a later notebook needs; on Google say what to run.

    Args:
        model: display name a registered model must have.
        endpoint: display name a deployed endpoint must have; "" asks for none.
        parameters: of 01_prototype.ipynb; the epochs are few, because it only has to be there.
    """
    if not _named(session, "models", model):
        if session.cloud != "local":
            find_model(session, model)
        print(f'No model "{model}" yet: training one for 5 epochs, only to have one.')
        job = train(session, "01_prototype.ipynb", parameters={"EPOCHS": 5} | (parameters or {}))
        register(session, job, name=model)
    if endpoint and not _named(session, "endpoints", endpoint):
        if session.cloud != "local":
            find_endpoint(session, endpoint)
        deploy(session, find_model(session, model), name=endpoint)
    print("Everything this notebook needs is there.")


def _give_all(session: Session, name: str, version: str) -> Endpoint:
    endpoint = find_endpoint(session, name)
    if version not in endpoint.models:
        raise NotDeployedError(
            f'Version {version} is not deployed on "{name}" (there: {", ".join(endpoint.models)}).'
        )
    resource = _named(session, "endpoints", name)
    split = {
        d["id"]: 100 if d["modelVersionId"] == version else 0 for d in resource["deployedModels"]
    }
    _set_traffic(session, resource["name"], split)
    return find_endpoint(session, name)


def _set_traffic(session: Session, endpoint: str, split: dict[str, int]) -> None:
    endpoints = _api(session, "endpoints")
    body = {"trafficSplit": split}
    session.call(endpoints.patch(name=endpoint, updateMask="trafficSplit", body=body))


def _id(name: str, also: str = "") -> str:
    """A display name as a resource id: at most 63 of a-z 0-9 - (and `also`), a letter first."""
    text = re.sub(rf"[^a-z0-9{also}-]", "-", name.lower())
    return (text if text[:1].isalpha() else f"m-{text}")[:63].strip("-")


def _split(current: dict[str, int], deployed_id: str, percent: int) -> dict[str, int]:
    """Scale the others' shares to what is left; always sums to 100."""
    others = {key: share for key, share in current.items() if key != deployed_id}
    total, left = sum(others.values()), 100 - percent
    if not total:
        return dict.fromkeys(others, 0) | {deployed_id: 100}
    split = {key: share * left // total for key, share in others.items()}
    largest = max(split, key=split.get)
    split[largest] += left - sum(split.values())
    return split | {deployed_id: percent}


def _deployed_id(model: Model) -> str:
    """Chosen from the version, so that a repeated deploy meets itself (1-10 digits)."""
    return str(zlib.crc32(model.resource_name.encode()) % 10**9 + 1)


def _serving_container(image: str) -> dict:
    return {
        "imageUri": image,
        "command": ["/usr/bin/tensorflow_model_server"],
        "args": [
            f"--model_name={SERVED_NAME}",
            "--model_base_path=$(AIP_STORAGE_URI)",
            "--rest_api_port=8080",
            "--port=8500",
            "--file_system_poll_wait_seconds=31540000",
        ],
        "ports": [{"containerPort": 8080}],
        "predictRoute": f"/v1/models/{SERVED_NAME}:predict",
        "healthRoute": f"/v1/models/{SERVED_NAME}",
    }


def _check_serving(session: Session, artifact_uri: str) -> None:
    """A server older than the exporter can't be trusted to load its models."""
    uri = f"{artifact_uri}1/assets.extra/instance.yaml"
    try:
        exporter = json.loads(storage.read_bytes(session, uri)).get("x-tensorflow", "")
    except NotFoundError:
        return
    server = serving_version()
    minor = [tuple(map(int, v.split(".")[:2])) for v in (exporter, server) if v]
    if len(minor) == 2 and minor[1] < minor[0]:
        raise SettingError(
            f"The model was exported by TensorFlow {exporter}; TensorFlow Serving "
            f"{server} is older. Train with TensorFlow {server} or name a newer "
            "server in the environment variable SERVING_VERSION."
        )


def _api(session: Session, kind: str, version: str = "v1"):
    """The `models` or `endpoints` collection of the service."""
    return getattr(session.service("aiplatform", version).projects().locations(), kind)()


def _named(session: Session, kind: str, name: str) -> dict | None:
    """The model or endpoint of that display name."""
    chosen = f'displayName="{name}"'
    found = session.list(_api(session, kind), kind, parent=session.parent, filter=chosen)
    return next(iter(found), None)


def _under_way(session: Session, kind: str, name: str) -> dict | None:
    """The operation on a model or endpoint that has not ended."""
    try:
        found = session.list(_api(session, kind).operations(), "operations", name=name)
    except CloudError as error:
        if error.status != 404:
            raise
        return None
    return next((operation for operation in found if not operation.get("done")), None)


def _find_uploaded(session: Session, model: str, artifact_uri: str) -> dict | None:
    """The operation of an upload whose answer was lost, under way or done."""
    operation = _under_way(session, "models", model)
    if operation:
        return operation
    try:
        versions = _versions(session, model)
    except CloudError as error:
        if error.status != 404:
            raise
        return None
    for version in versions:
        if version.get("artifactUri") == artifact_uri:
            response = {"model": model, "modelVersionId": version["versionId"]}
            return {"done": True, "response": response}
    return None


def _find_deployed(session: Session, endpoint: str, deployed_id: str) -> dict | None:
    """The operation of a deployment whose answer was lost, under way or done."""
    operation = _under_way(session, "endpoints", endpoint)
    if operation:
        return operation
    resource = session.call(_api(session, "endpoints").get(name=endpoint))
    there = any(one["id"] == deployed_id for one in resource.get("deployedModels", []))
    return {"done": True} if there else None


def _missing(session: Session, kind: str, name: str, todo: str) -> NotFoundError:
    found = session.list(_api(session, kind), kind, parent=session.parent)
    hint = near(name, {item["displayName"] for item in found})
    return NotFoundError(f'No {kind[:-1]} named "{name}" in {session.location}.{hint} {todo}')


def _versions(session: Session, model: str) -> list[dict]:
    models = _api(session, "models")
    versions, token = [], None
    while token != "":
        answer = session.call(models.listVersions(name=model.split("@")[0], pageToken=token))
        versions += answer.get("models", [])
        token = answer.get("nextPageToken", "")
    return versions


def _with_aliases(session: Session, version: dict, name: str, aliases) -> Model:
    missing = [a for a in aliases if a not in version.get("versionAliases", [])]
    if missing:
        models = _api(session, "models")
        resource = f"{version['name'].split('@')[0]}@{version['versionId']}"
        body = {"versionAliases": missing}
        version = session.call(
            models.mergeVersionAliases(name=resource, body=body), repeatable=True
        )
    return _model(session, version, name)


def _model(session: Session, resource: dict, name: str) -> Model:
    version = resource["versionId"]
    return Model(
        session, name, version, tuple(resource.get("versionAliases", [])),
        resource["artifactUri"], f"{resource['name'].split('@')[0]}@{version}",
    )  # fmt: skip


def _schema(model: Model, kind: str) -> dict:
    uri = f"{model.artifact_uri}1/assets.extra/{kind}.yaml"
    return json.loads(storage.read_bytes(model.session, uri))
