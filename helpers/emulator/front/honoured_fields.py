"""What becomes of the fields that Google knows; discovery.py refuses those it does not know.

Each is honoured, or kept without effect, or set by the service alone; what is in none of the tables
is refused with 501, also what a newer document brings. Cloud Storage has tables of its own
(services/storage_fields.py).

Messages go by their names in the documents, without the prefix of service and version.
tests/emulator/test_fields.py sends every field of them and names the tests of those honoured.
"""

import re
from collections.abc import Iterator
from typing import Any

from helpers.emulator.front.calls import ApiError, camel, not_emulated

PREFIX = re.compile(
    r"Google(CloudAiplatform|DevtoolsArtifactregistry|CloudBillingBudgets)V1(beta1)?"
)  # fmt: skip

HONOURED = {
    "AutomaticResources": "maxReplicaCount minReplicaCount",
    "BatchDedicatedResources": "machineSpec",
    "BatchEnableServicesRequest": "serviceIds",
    "BatchPredictionJob": "dedicatedResources disableContainerLogging displayName inputConfig "
                          "instanceConfig labels manualBatchTuningParameters model "
                          "modelParameters outputConfig serviceAccount",
    "BatchPredictionJobInputConfig": "gcsSource instancesFormat",
    "BatchPredictionJobInstanceConfig": "excludedFields includedFields instanceType keyField",
    "BatchPredictionJobOutputConfig": "gcsDestination predictionsFormat",
    "Binding": "members role",
    "Budget": "displayName",
    "Build": "images options source steps substitutions tags",
    "BuildStep": "args name",
    "ClientConnectionConfig": "inferenceTimeout",
    "ContainerSpec": "args command env imageUri",
    "CreateServiceAccountRequest": "accountId serviceAccount",
    "CustomJob": "displayName jobSpec labels",
    "CustomJobSpec": "baseOutputDirectory scheduling serviceAccount workerPoolSpecs",
    "DedicatedResources": "machineSpec minReplicaCount scaleToZeroSpec",
    "DedicatedResourcesScaleToZeroSpec": "idleScaledownPeriod",
    "DeployModelRequest": "deployedModel trafficSplit",
    "DeployedModel": "automaticResources dedicatedResources disableContainerLogging displayName "
                     "enableContainerLogging id model serviceAccount sharedResources",
    "DockerRepositoryConfig": "immutableTags",
    "Endpoint": "clientConnectionConfig dedicatedEndpointEnabled description displayName etag "
                "labels trafficSplit",
    "EnvVar": "name value",
    "GcsDestination": "outputUriPrefix",
    "GcsSource": "uris",
    "GetIamPolicyRequest": "options",
    "HyperparameterTuningJob": "displayName labels maxFailedTrialCount maxTrialCount "
                               "parallelTrialCount studySpec trialJobSpec",
    "ListLogEntriesRequest": "filter orderBy pageSize pageToken resourceNames",
    "ManualBatchTuningParameters": "batchSize",
    "MergeVersionAliasesRequest": "versionAliases",
    "Model": "artifactUri containerSpec dataStats description displayName etag labels metadata "
             "metadataSchemaUri pipelineJob predictSchemata versionAliases versionDescription",
    "ModelContainerSpec": "args command deploymentTimeout env healthRoute imageUri ports "
                          "predictRoute",
    "ModelDataStats": "testAnnotationsCount testDataItemsCount trainingAnnotationsCount "
                      "trainingDataItemsCount validationAnnotationsCount validationDataItemsCount",
    "MutateDeployedModelRequest": "deployedModel updateMask",
    "Policy": "bindings etag version",
    "Port": "containerPort",
    "PredictRequest": "instances parameters",
    "PredictSchemata": "instanceSchemaUri parametersSchemaUri predictionSchemaUri",
    "ProjectBillingInfo": "billingAccountName",
    "PythonPackageSpec": "args env executorImageUri packageUris pythonModule",
    "Repository": "description dockerConfig format labels mode",
    "Scheduling": "disableRetries restartJobOnWorkerRestart timeout",
    "ServiceAccount": "description displayName",
    "SetIamPolicyRequest": "policy updateMask",
    "Source": "storageSource",
    "StorageSource": "bucket object",
    "StudySpec": "algorithm measurementSelectionType metrics parameters",
    "StudySpecMetricSpec": "goal metricId",
    "StudySpecParameterSpec": "categoricalValueSpec discreteValueSpec doubleValueSpec "
                              "integerValueSpec parameterId scaleType",
    "StudySpecParameterSpecCategoricalValueSpec": "values",
    "StudySpecParameterSpecDiscreteValueSpec": "values",
    "StudySpecParameterSpecDoubleValueSpec": "maxValue minValue",
    "StudySpecParameterSpecIntegerValueSpec": "maxValue minValue",
    "TestIamPermissionsRequest": "permissions",
    "UndeployModelRequest": "deployedModelId trafficSplit",
    "UploadModelRequest": "model modelId parentModel",
    "WorkerPoolSpec": "containerSpec machineSpec pythonPackageSpec replicaCount",
}  # fmt: skip
# Taken with all that is below, and shown again where the message is shown: there are no machines,
# networks and bills here, and no models of Google's own.
WITHOUT_EFFECT = {
    "BatchDedicatedResources": "flexStart maxReplicaCount spot startingReplicaCount",
    "Binding": "condition",
    "Budget": "amount budgetFilter notificationsRule ownershipScope spendCap thresholdRules",
    "Build": "logsBucket queueTtl serviceAccount timeout",
    "BuildOptions": "automapSubstitutions defaultLogsBucketBehavior diskSizeGb "
                    "dynamicSubstitutions enableStructuredLogging env logStreamingOption logging "
                    "machineType pool rankedMachineSeries requestedVerifyOption "
                    "sourceProvenanceHash substitutionOption workerPool workerRelease",
    "BuildStep": "automapSubstitutions env id timeout waitFor",
    "CustomJobSpec": "enableDashboardAccess enableWebAccess network persistentResourceId "
                     "pscInterfaceConfig reservedIpRanges",
    "DedicatedResources": "autoscalingMetricSpecs flexStart initialReplicaCount maxReplicaCount "
                          "requiredReplicaCount spot",
    "DedicatedResourcesScaleToZeroSpec": "minScaleupPeriod",
    "DeployedModel": "checkpointId disableExplanations enableAccessLogging explanationSpec "
                     "fasterDeploymentConfig systemLabels",
    "GetPolicyOptions": "requestedPolicyVersion",
    "MachineSpec": "acceleratorCount acceleratorType gpuPartitionSize machineType "
                   "minGpuDriverVersion multihostGpuNodeCount reservationAffinity tpuTopology",
    "Model": "baseModelSource defaultCheckpointId explanationSpec",
    "ModelContainerSpec": "grpcPorts healthProbe invokeRoutePrefix livenessProbe "
                          "sharedMemorySizeMb startupProbe",
    "Policy": "auditConfigs",
    "PredictRequest": "labels",
    "RawPredictRequest": "httpBody",  # only the documents wrap the body, which goes on as it is
    "Repository": "cleanupPolicies cleanupPolicyDryRun disallowUnspecifiedMode "
                  "platformLogsConfig vulnerabilityScanningConfig",
    "Scheduling": "maxWaitDuration strategy",
    "ServiceAccount": "etag",
    "StorageSource": "sourceFetcher",
    "StudySpec": "convexAutomatedStoppingSpec convexStopConfig decayCurveStoppingSpec "
                 "medianAutomatedStoppingSpec observationNoise studyStoppingConfig "
                 "transferLearningConfig",
    "StudySpecParameterSpecCategoricalValueSpec": "defaultValue",
    "StudySpecParameterSpecDiscreteValueSpec": "defaultValue",
    "StudySpecParameterSpecDoubleValueSpec": "defaultValue",
    "StudySpecParameterSpecIntegerValueSpec": "defaultValue",
    "UploadModelRequest": "serviceAccount",
    "WorkerPoolSpec": "diskSpec",
}  # fmt: skip
# The service sets these itself, whatever a request says; the documents do not mark them as such.
ASSIGNED = {
    "BatchPredictionJob": "modelMonitoringStatsAnomalies", "Budget": "etag", "Endpoint": "name",
    "Model": "name", "Repository": "name", "ServiceAccount": "name",
}  # fmt: skip
# Parameters of queries, by the end of the method's id.
QUERY_HONOURED = {
    "*": "alt fields", "budgets.list": "scope", "builds.create": "parent",
    "builds.get": "name", "builds.list": "parent", "endpoints.create": "endpointId",
    "list": "filter orderBy pageSize pageToken readMask", "patch": "updateMask",
    "listVersions": "filter orderBy pageSize pageToken readMask", "operations.get": "name",
    "repositories.create": "repositoryId", "services.batchGet": "names",
    "timeSeries.list": "interval.endTime interval.startTime view",
}  # fmt: skip
QUERY_WITHOUT_EFFECT = {
    "*": "$.xgafv access_token key oauth_token prettyPrint quotaUser uploadType upload_protocol",
    "consumerQuotaMetrics.get": "view", "getIamPolicy": "options.requestedPolicyVersion",
    "locations.builds.create": "projectId", "locations.builds.get": "id projectId",
    "locations.builds.list": "projectId", "operations.list": "returnPartialSuccess",
    "operations.wait": "timeout",
}  # fmt: skip


def kind(message: str, name: str) -> str:
    """`honoured`, `without effect`, `assigned`, or "" of a field that is not emulated."""
    tables = {"honoured": HONOURED, "without effect": WITHOUT_EFFECT, "assigned": ASSIGNED}
    found = (kind for kind, table in tables.items() if name in table.get(message, "").split())
    return next(found, "")


def query_kind(method_id: str, name: str) -> str:
    """The same of a parameter of a query."""
    tables = {"honoured": QUERY_HONOURED, "without effect": QUERY_WITHOUT_EFFECT}
    for kind, table in tables.items():
        ends = (line for end, line in table.items() if end == "*" or method_id.endswith(f".{end}"))
        if name in " ".join(ends).split():
            return kind
    return ""


def short(reference: str) -> str:
    """A message's name without the prefix of its service."""
    return PREFIX.sub("", reference, count=1)


def is_output(about: dict) -> bool:
    """Whether only the service writes this field."""
    return about.get("readOnly") or about.get("description", "").startswith("Output only")


def check_query(method: Any, query: dict) -> None:
    """Refuse what Google would do and the local cloud does not.

    Args:
        method: of a discovery document, against which the query was checked.
    Raises:
        ApiError: 501, or 400 for an updateMask that no update can have.
    """
    if method.document["name"] == "storage":
        return
    known = method.document["parameters"].keys() | method.about.get("parameters", {}).keys()
    for name in query.keys() & known:
        if not query_kind(method.id, name) and is_set(query[name]):
            raise not_emulated(f"{name} of {method.id}")
    if query.get("alt", "json") != "json":
        raise not_emulated(f"alt={query['alt']}")
    properties = (
        method.document["schemas"]
        .get(method.about.get("request", {}).get("$ref"), {})
        .get("properties", {})
    )
    for part in filter(None, query.get("updateMask", "").split(",")):
        name = camel(part.strip().split(".")[0])
        about = properties.get(name, {"readOnly": True})
        if is_output(about) or about.get("description", "").startswith(("Immutable", "Identifier")):
            raise ApiError(400, f"updateMask names {name}, which can't be updated.")


def check_body(method: Any, body: dict) -> None:
    """The same for a body that was checked against the document.

    Raises:
        ApiError: 501.
    """
    if method.document["name"] == "storage":
        return
    schemas, request = method.document["schemas"], method.about.get("request", {})
    for message, name in _set_fields(schemas, request, body):
        if not kind(message, name):
            raise not_emulated(f"{name} of {message}")


def without_effect(schemas: dict, reference: str, value: dict) -> set[str]:
    """The names of the fields that a message sets and nothing here goes by."""
    found = _set_fields(schemas, {"$ref": reference}, value)
    return {name for message, name in found if kind(message, name) == "without effect"}


def is_set(value: Any) -> bool:
    """Whether a field or parameter has another value than its default."""
    if isinstance(value, dict):
        return not value or any(map(is_set, value.values()))
    return value not in (None, False, 0, "", "0", [])


def _set_fields(schemas: dict, schema: dict, value: Any) -> Iterator[tuple[str, str]]:
    """(message, field) of all that a body sets, but for what is below a field without effect."""
    message = short(schema.get("$ref", ""))
    schema = schemas[schema["$ref"]] if "$ref" in schema else schema
    if isinstance(value, list):
        for item in value:
            yield from _set_fields(schemas, schema.get("items", {}), item)
    elif isinstance(value, dict) and "properties" in schema:
        for name, inner in value.items():
            if is_set(inner):
                yield message, name
                if kind(message, name) == "honoured":
                    yield from _set_fields(schemas, schema["properties"].get(name, {}), inner)
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _set_fields(schemas, schema.get("additionalProperties", {}), inner)
