"""What Google refuses and its discovery documents say only in prose.

Each rule cites where it is written: [P] the field's comment in the API's proto file (also the
description in the discovery document), [D] cloud.google.com/vertex-ai/docs, [E] observed errors.
"""

import re
from collections.abc import Callable, Iterator

from helpers.emulator.front.calls import ApiError, not_emulated

# Numbers of enum values that are not their place in the document's list [P]; keyed by the first
# value's name. Every other enum of the emulated methods counts from 0.
ENUM_NUMBERS = {
    "ACCELERATOR_TYPE_UNSPECIFIED": {
        "TPU_V2": 6, "TPU_V3": 7, "NVIDIA_TESLA_A100": 8, "NVIDIA_A100_80GB": 9, "TPU_V4_POD": 10,
        "NVIDIA_L4": 11, "TPU_V5_LITEPOD": 12, "NVIDIA_H100_80GB": 13, "NVIDIA_H100_MEGA_80GB": 14,
        "NVIDIA_H200_141GB": 15, "NVIDIA_B200": 16, "NVIDIA_GB200": 17, "NVIDIA_RTX_PRO_6000": 18,
    },
    "ALGORITHM_UNSPECIFIED": {"GRID_SEARCH": 2, "RANDOM_SEARCH": 3},
    "STRATEGY_UNSPECIFIED": {"FLEX_START": 6},
    "COLOR_MAP_UNSPECIFIED": {"PINK_WHITE_GREEN": 5, "RED_GREEN": 6},
}  # fmt: skip

# Regions of the training and prediction services [D: general/locations].
LOCATIONS = {
    "africa-south1", "asia-east1", "asia-east2", "asia-northeast1", "asia-northeast2",
    "asia-northeast3", "asia-south1", "asia-south2", "asia-southeast1", "asia-southeast2",
    "australia-southeast1", "australia-southeast2", "europe-central2", "europe-north1",
    "europe-southwest1", "europe-west1", "europe-west12", "europe-west2", "europe-west3",
    "europe-west4", "europe-west6", "europe-west8", "europe-west9", "me-central1",
    "me-central2", "me-west1", "northamerica-northeast1", "northamerica-northeast2",
    "southamerica-east1", "southamerica-west1", "us-central1", "us-east1", "us-east4",
    "us-east5", "us-south1", "us-west1", "us-west2", "us-west3", "us-west4",
}  # fmt: skip

# Where the service takes serving images from [P] ModelContainerSpec.image_uri.
REGISTRY = re.compile(r"([a-z0-9-]+-docker\.pkg\.dev|([a-z]+\.)?gcr\.io)/[^\s]+")
MODEL = re.compile(r"projects/[^/]+/locations/[^/]+/models/[^/@]+(@[^/@]+)?")
BUCKET_URI = re.compile(r"gs://[a-z0-9][a-z0-9._-]+(/.*)?")
Problems = Iterator[tuple[str, str]]
RULES: dict[str, list[Callable[[dict, dict], Problems]]] = {}
AIPLATFORM = "aiplatform.projects.locations."


def rule(*methods: str) -> Callable:
    def register(function: Callable) -> Callable:
        for name in methods:
            RULES.setdefault(AIPLATFORM + name, []).append(function)
        return function

    return register


# [P] Binding.members, Binding.role
MEMBER = re.compile(
    r"(deleted:)?(user|serviceAccount|group):[^@\s]+@\S+|domain:\S+|(deleted:)?principal(Set)?://\S+"
    r"|project(Owner|Editor|Viewer):\S+|allUsers|allAuthenticatedUsers"
)
ROLE = re.compile(r"((projects|organizations)/[^/\s]+/)?roles/[\w.]+")


def check_bindings(bindings: list[dict]) -> None:
    """Roles and members of an IAM policy, as they are written.

    Raises:
        ApiError: one that is none.
    """
    for binding in bindings:
        role = binding.get("role", "")
        if not ROLE.fullmatch(role):
            raise ApiError(400, f"Role {role!r} is invalid; expected roles/NAME.")
        for member in binding.get("members", []):
            if not MEMBER.fullmatch(member):
                raise ApiError(400, f"Invalid member: {member!r}; expected user:EMAIL or its like.")


def check_names(method_id: str, path: dict[str, str]) -> None:
    """Project ids and regions in resource names.

    Raises:
        ApiError: malformed, or a region where the service does not exist.
    """
    for name in path.values():
        parts = re.match(r"projects/([^/]+)(?:/locations/([^/]+))?", name)
        if not parts:
            continue
        if not re.fullmatch(r"([a-z0-9.-]+:)?[a-z0-9-]{1,63}", parts[1]):
            raise ApiError(400, f"Invalid resource name: project {parts[1]!r}.")
        if method_id.startswith("aiplatform.") and parts[2] and parts[2] not in LOCATIONS:
            raise ApiError(
                400,
                f"Unsupported region: {parts[2]}. Supported: {', '.join(sorted(LOCATIONS))}.",
            )


def check(method_id: str, path: dict, query: dict, body: dict) -> None:
    """Apply the rules of a method.

    Raises:
        ApiError: every violation is listed.
    """
    found = [p for function in RULES.get(method_id, ()) for p in function(body, query)]
    if found:
        listed = "\t".join(f"{i}.Field: {f}; Message: {m}" for i, (f, m) in enumerate(found, 1))
        violations = [{"field": f, "description": m} for f, m in found]
        kind = "type.googleapis.com/google.rpc.BadRequest"
        details = [{"@type": kind, "fieldViolations": violations}]
        raise ApiError(400, f"List of found errors:\t{listed}\t", details=details)


@rule("customJobs.create", "endpoints.create", "endpoints.patch", "models.patch",
      "batchPredictionJobs.create", "hyperparameterTuningJobs.create")  # fmt: skip
def display_name_and_labels(body: dict, query: dict) -> Problems:
    """[P] display_name: up to 128 characters; labels as the field's comment says."""
    if len(body.get("displayName", "")) > 128:
        yield "display_name", "Display name must be at most 128 characters."
    labels = body.get("labels", {})
    if len(labels) > 64:
        yield "labels", "No more than 64 labels can be associated with one resource."
    for key, value in labels.items():
        if not re.fullmatch(r"[\w-]{1,63}", key) or key != key.lower() or not key[0].isalpha():
            yield f"labels[{key!r}]", "Label keys start with a lowercase letter, then a-z 0-9 _ -."
        elif not re.fullmatch(r"[\w-]{0,63}", value) or value != value.lower():
            yield f"labels[{key!r}]", f"Label value {value!r}; expected at most 63 of a-z 0-9 _ -."


@rule("models.upload")
def model(body: dict, query: dict) -> Problems:
    """[P] UploadModelRequest, Model."""
    inner = body["model"]
    for name, message in display_name_and_labels(inner, query):
        yield f"model.{name}", message
    if body.get("modelId") and body.get("parentModel"):
        yield "model_id", "model_id and parent_model can't both be set."
    if body.get("modelId") and not re.fullmatch(r"[a-z_][a-z0-9_-]{0,62}", body["modelId"]):
        yield "model_id", "Up to 63 characters of [a-z0-9_-], no number or hyphen first."
    yield from _model_name(body.get("parentModel"), "parent_model")
    if inner.get("artifactUri") and not BUCKET_URI.fullmatch(inner["artifactUri"]):
        yield "model.artifact_uri", "Must be a Cloud Storage directory (gs://)."
    yield from _aliases(inner.get("versionAliases", []), "model.version_aliases")
    for name in ("instanceSchemaUri", "parametersSchemaUri", "predictionSchemaUri"):
        uri = inner.get("predictSchemata", {}).get(name)
        if uri and not uri.startswith("gs://"):
            yield f"model.predict_schemata.{name}", "Must be a Cloud Storage file (gs://)."
    if "containerSpec" not in inner:
        yield "model.container_spec", "Required field is not set."
    yield from _container(inner.get("containerSpec", {}), "model.container_spec")


@rule("models.mergeVersionAliases")
def merged_aliases(body: dict, query: dict) -> Problems:
    """[P] `-` before an alias removes it; `default` can't be removed."""
    if "-default" in body["versionAliases"]:
        yield "version_aliases", "The default alias can't be removed, only moved."
    yield from _aliases([a.removeprefix("-") for a in body["versionAliases"]], "version_aliases")


@rule("customJobs.create")
def custom_job(body: dict, query: dict) -> Problems:
    yield from job_spec(body["jobSpec"], "job_spec")


@rule("hyperparameterTuningJobs.create")
def tuning_job(body: dict, query: dict) -> Problems:
    """[P] HyperparameterTuningJob, StudySpec; what is not emulated is refused."""
    yield from job_spec(body["trialJobSpec"], "trial_job_spec")
    for name in ("maxTrialCount", "parallelTrialCount"):
        if int(body.get(name, 0)) < 1:
            yield name, "Must be at least 1."
    if body.get("maxFailedTrialCount", 0) < 0:
        yield "maxFailedTrialCount", "Must not be negative."
    study = body["studySpec"]
    metrics, parameters = study.get("metrics", []), study.get("parameters", [])
    if len(metrics) > 1:
        raise not_emulated("a study of several metrics")
    names = [part["parameterId"] for part in parameters]
    for name in names + [metric["metricId"] for metric in metrics]:
        if re.search(r"\s", name):
            yield "study_spec", f"{name!r}: an id must not contain whitespaces."
    if len(names) != len(set(names)):
        yield "study_spec.parameters", "parameter_id must be unique."
    if any(metric["goal"] == "GOAL_TYPE_UNSPECIFIED" for metric in metrics):
        yield "study_spec.metrics[0].goal", "Required field is not set."
    for i, parameter in enumerate(parameters):
        for problem in _parameter(parameter, study.get("algorithm") == "GRID_SEARCH"):
            yield f"study_spec.parameters[{i}]", problem


def _parameter(parameter: dict, grid: bool) -> Iterator[str]:
    """[P] StudySpec.ParameterSpec."""
    kinds = [kind for kind in parameter if kind.endswith("ValueSpec")]
    if len(kinds) != 1:
        yield "Exactly one of the value specs must be set."
        return
    kind, spec, scale = kinds[0], parameter[kinds[0]], parameter.get("scaleType", "")
    values = spec.get("values", [])
    if kind in ("doubleValueSpec", "integerValueSpec"):
        low, high = (float(spec.get(end, 0)) for end in ("minValue", "maxValue"))
        if not low <= high < float("inf"):
            yield f"min_value {low:g} must not exceed max_value {high:g}."
        values = [low]
    elif not values:
        yield "values must not be empty."
    elif kind == "discreteValueSpec" and (values != sorted(set(values)) or len(values) > 1000):
        yield "values must be in increasing order, at most 1,000."
    if "LOG" in scale and (kind == "categoricalValueSpec" or min(values, default=1) <= 0):
        yield "With a logarithmic scale the feasible space must be strictly positive."
    if scale == "UNIT_REVERSE_LOG_SCALE":
        raise not_emulated("a reverse logarithmic scale")
    if grid and kind == "doubleValueSpec":
        yield "Grid search takes INTEGER, CATEGORICAL and DISCRETE parameters only."


def job_spec(spec: dict, where: str) -> Problems:
    """[P] CustomJobSpec, WorkerPoolSpec, Scheduling; [D: training/distributed-training]."""
    pools = spec.get("workerPoolSpecs", [])
    if len(pools) > 4:
        yield f"{where}.worker_pool_specs", "At most 4 worker pools."
    for i, pool in enumerate(pools):
        place = f"{where}.worker_pool_specs[{i}]"
        kinds = [kind for kind in ("containerSpec", "pythonPackageSpec") if kind in pool]
        if not pool and i:
            continue  # an empty pool keeps its index free
        if len(kinds) != 1:
            yield place, "Exactly one of container_spec and python_package_spec must be set."
        replicas = int(pool.get("replicaCount", 1))
        if replicas < 1 or (i == 0 and replicas != 1):
            yield f"{place}.replica_count", f"{replicas}; the first pool has exactly one replica."
        yield from _machine(pool.get("machineSpec", {}), f"{place}.machine_spec")
        for kind in kinds:
            yield from _variables(pool[kind].get("env", []), f"{place}.{kind}.env")
        if len(pool.get("pythonPackageSpec", {}).get("packageUris", [])) > 100:
            yield f"{place}.python_package_spec.package_uris", "The maximum number is 100."
    prefix = spec.get("baseOutputDirectory", {}).get("outputUriPrefix", "gs://bucket")
    if not BUCKET_URI.fullmatch(prefix):
        yield f"{where}.base_output_directory.output_uri_prefix", "Must be a gs://BUCKET address."
    for name in ("timeout", "maxWaitDuration"):
        if spec.get("scheduling", {}).get(name, "").startswith("-"):
            yield f"{where}.scheduling.{name}", "Must not be negative."


@rule("endpoints.create")
def endpoint(body: dict, query: dict) -> Problems:
    """[P] CreateEndpointRequest.endpoint_id."""
    chosen = query.get("endpointId", "")
    if chosen and not re.fullmatch(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?|[1-9][0-9]{0,8}", chosen):
        yield "endpoint_id", (f"{chosen!r}; expected up to 63 of [a-z0-9-], a letter first and no "
                              "hyphen last, or up to 9 digits.")  # fmt: skip
    if body.get("trafficSplit"):
        yield "traffic_split", "Must be empty: the endpoint has no deployed models yet."


@rule("endpoints.deployModel")
def deployment(body: dict, query: dict) -> Problems:
    """[P] DeployModelRequest, DeployedModel, DedicatedResources."""
    deployed = body["deployedModel"]
    if "model" not in deployed:
        yield "deployed_model.model", "Required field is not set."
    yield from _model_name(deployed.get("model"), "deployed_model.model")
    kinds = ("dedicatedResources", "automaticResources", "sharedResources")
    if sum(kind in deployed for kind in kinds) != 1:
        yield "deployed_model.prediction_resources", "Exactly one kind of resources must be set."
    elif "dedicatedResources" not in deployed:
        yield "deployed_model.prediction_resources", "Custom models take dedicated_resources only."
    if deployed.get("id") and not re.fullmatch(r"[0-9]{1,10}", deployed["id"]):
        yield "deployed_model.id", "Must be 1-10 characters of [0-9]."
    yield from dedicated_resources(
        deployed.get("dedicatedResources"), "deployed_model.dedicated_resources"
    )
    yield from traffic(body.get("trafficSplit", {}), "traffic_split")


@rule("endpoints.undeployModel", "endpoints.patch")
def undeployment(body: dict, query: dict) -> Problems:
    yield from traffic(body.get("trafficSplit", {}), "traffic_split")


@rule("batchPredictionJobs.create")
def batch_prediction(body: dict, query: dict) -> Problems:
    """[P] BatchPredictionJob."""
    if not body.get("model"):
        yield "model", "Required field is not set."
    given, output = body["inputConfig"], body["outputConfig"]
    if "gcsSource" not in given or "gcsDestination" not in output:
        raise not_emulated("a batch prediction job on anything but Cloud Storage")
    if given["instancesFormat"] not in ("jsonl", "csv"):
        raise not_emulated(f"instances_format {given['instancesFormat']!r}")
    if output["predictionsFormat"] != "jsonl":
        raise not_emulated(f"predictions_format {output['predictionsFormat']!r}")
    uris = [*given["gcsSource"]["uris"], output["gcsDestination"]["outputUriPrefix"]]
    for uri in uris:
        if not BUCKET_URI.fullmatch(uri):
            yield "uri", f"{uri!r}; expected gs://BUCKET/NAME."
    yield from dedicated_resources(
        body.get("dedicatedResources"), "dedicated_resources", batch=True
    )


def dedicated_resources(resources: dict | None, where: str, *, batch: bool = False) -> Problems:
    """[P] DedicatedResources: min_replica_count >= 1, max >= min; BatchDedicatedResources.
    [D: predictions/autoscaling] 0 with scale_to_zero_spec, of v1beta1."""
    if resources is None:
        return
    yield from _machine(resources.get("machineSpec", {}), f"{where}.machine_spec")
    if batch:
        return
    low, zero = resources.get("minReplicaCount", 0), resources.get("scaleToZeroSpec")
    first = resources.get("initialReplicaCount", 1 if zero is not None else 0)
    if zero is None and low < 1:
        yield f"{where}.min_replica_count", f"{low}; must be at least 1."
    elif zero is not None and low:
        yield f"{where}.scale_to_zero_spec", f"min_replica_count is {low}; it must be 0."
    elif first != 0 if zero is None else not 0 < first <= resources.get("maxReplicaCount", 1):
        yield f"{where}.initial_replica_count", f"{first}; 1 to max_replica_count, from zero only."
    elif resources.get("maxReplicaCount", low) < low:
        yield f"{where}.max_replica_count", f"Must be at least min_replica_count ({low})."
    for name in ("idleScaledownPeriod", "minScaleupPeriod"):
        if not 300 <= float((zero or {}).get(name, "300s")[:-1]) <= 28_800:
            yield f"{where}.scale_to_zero_spec.{name}", f"{zero[name]}; must be 300s to 28800s."
    for i, metric in enumerate(resources.get("autoscalingMetricSpecs", [])):
        if not 1 <= metric.get("target", 60) <= 100:
            yield f"{where}.autoscaling_metric_specs[{i}].target", "Must be between 1 and 100."


def traffic(split: dict[str, int], where: str) -> Problems:
    """[P] Endpoint.traffic_split: percentages by deployed model id, 100 in all."""
    if any(share < 0 for share in split.values()) or (split and sum(split.values()) != 100):
        yield where, f"The percentages sum to {sum(split.values())}; they must add up to 100."


def _machine(machine: dict, where: str) -> Problems:
    """[P] MachineSpec."""
    kind, count = machine.get("machineType", ""), machine.get("acceleratorCount", 0)
    if kind and not re.fullmatch(r"[a-z][a-z0-9]*-[a-z0-9-]+", kind):
        yield f"{where}.machine_type", f"Machine type {kind!r} is not supported."
    if not kind:
        yield f"{where}.machine_type", "Required field is not set."
    accelerator = machine.get("acceleratorType", "ACCELERATOR_TYPE_UNSPECIFIED")
    if (accelerator != "ACCELERATOR_TYPE_UNSPECIFIED") != (count > 0):
        yield f"{where}.accelerator_count", "accelerator_type and accelerator_count go together."


def _aliases(aliases: list[str], where: str) -> Problems:
    """[P] Model.version_aliases: [a-z][a-zA-Z0-9-]{0,126}[a-z0-9], at most 50 a version."""
    for alias in aliases:
        if not re.fullmatch(r"[a-z][a-zA-Z0-9-]{0,126}[a-z0-9]", alias):
            yield where, f"Invalid alias {alias!r}; a number alone is a version id, not an alias."
    if len(aliases) > 50:
        yield where, "At most 50 aliases."


def _model_name(name: str | None, where: str) -> Problems:
    if name and not MODEL.fullmatch(name):
        form = "projects/PROJECT/locations/LOCATION/models/MODEL[@VERSION]"
        yield where, f"{name!r} is not a resource name; expected {form}."


def _variables(variables: list[dict], where: str) -> Problems:
    """[P] EnvVar: C identifiers, at most 100, each once."""
    names = [variable["name"] for variable in variables]
    if len(names) > 100:
        yield where, "Maximum limit is 100."
    if len(names) != len(set(names)):
        yield where, "Names must be unique."
    for name in names:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            yield where, f"{name!r} is not a valid C identifier."


def _container(spec: dict, where: str) -> Problems:
    """[P] ModelContainerSpec."""
    if spec.get("imageUri") and not REGISTRY.fullmatch(spec["imageUri"]):
        yield f"{where}.image_uri", "Must be an image in Artifact Registry or Container Registry."
    yield from _variables(spec.get("env", []), f"{where}.env")
    for name in ("predictRoute", "healthRoute"):
        if spec.get(name) and not spec[name].startswith("/"):
            yield f"{where}.{name}", "Must be a path that starts with /."
    for i, port in enumerate(spec.get("ports", [])):
        if not 1 <= port.get("containerPort", 0) <= 65535:
            yield f"{where}.ports[{i}]", "container_port must be between 1 and 65535."
