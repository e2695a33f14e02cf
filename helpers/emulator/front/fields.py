"""What becomes of the fields of requests: each one that a discovery document knows is kept and
honoured, or kept and listed here as without effect, or listed here and refused with 501.

Messages go by their names in the documents, without the prefix of service and version; a field
stands for all that is below it. tests/emulator/test_fields.py sends every one of them.
"""

import re
from collections.abc import Iterator
from typing import Any

from helpers.emulator.front.calls import ApiError, camel, not_emulated

PREFIX = re.compile(
    r"Google(CloudAiplatform|DevtoolsArtifactregistry|CloudBillingBudgets)V1(beta1)?"
)  # fmt: skip

# Taken, and shown again where the message is shown: there are no machines, networks, keys and bills
# here, and no models of Google's own.
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
NOT_EMULATED = {
    "BatchPredictionJob": "encryptionSpec endpoint explanationSpec generateExplanation "
                          "modelMonitoringConfig unmanagedContainerModel",
    "BatchPredictionJobInputConfig": "bigquerySource vertexMultimodalDatasetSource",
    "BatchPredictionJobOutputConfig": "bigqueryDestination vertexMultimodalDatasetDestination",
    "Build": "artifacts availableSecrets dependencies gitConfig secrets",
    "BuildOptions": "pubsubTopic secretEnv volumes",
    "BuildStep": "allowExitCodes allowFailure dir entrypoint results script secretEnv volumes",
    "CustomJob": "encryptionSpec",
    "CustomJobSpec": "experiment experimentRun models protectedArtifactLocationId tensorboard",
    "DeployedModel": "fullFineTunedResources gdcConnectedModel rolloutOptions "
                     "speculativeDecodingSpec",
    "Endpoint": "enablePrivateServiceConnect encryptionSpec gdcConfig genAiAdvancedFeaturesConfig "
                "network predictRequestResponseLoggingConfig privateServiceConnectConfig "
                "publisherModelConfig",
    "HyperparameterTuningJob": "encryptionSpec",
    "ListLogEntriesRequest": "projectIds",
    "Model": "encryptionSpec",
    "Repository": "kmsKeyName mavenConfig remoteRepositoryConfig virtualRepositoryConfig",
    "Source": "connectedRepository developerConnectConfig gitSource repoSource "
              "storageSourceManifest",
    "StorageSource": "generation",
    "StudySpecMetricSpec": "safetyConfig",
    "StudySpecParameterSpec": "conditionalParameterSpecs",
    "WorkerPoolSpec": "lustreMounts nfsMounts",
}  # fmt: skip
# The service sets these itself, whatever a request says; the documents do not mark them as such.
ASSIGNED = {
    "BatchPredictionJob": "modelMonitoringStatsAnomalies", "Budget": "etag", "Endpoint": "name",
    "Model": "name", "Repository": "name", "ServiceAccount": "name",
}  # fmt: skip
# Parameters of queries, by method; the first line is for every one.
QUERY_WITHOUT_EFFECT = {
    "*": "$.xgafv access_token key oauth_token prettyPrint quotaUser uploadType "
         "upload_protocol",
    "cloudbuild.projects.locations.builds.create": "projectId",
    "cloudbuild.projects.locations.builds.get": "id projectId",
    "cloudbuild.projects.locations.builds.list": "projectId",
    "operations.list": "returnPartialSuccess",
    "operations.wait": "timeout",
    "repositories.getIamPolicy": "options.requestedPolicyVersion",
    "serviceAccounts.getIamPolicy": "options.requestedPolicyVersion",
    "serviceusage.services.consumerQuotaMetrics.get": "view",
}  # fmt: skip
QUERY_NOT_EMULATED = {
    "*": "callback",
    "aiplatform.projects.locations.endpoints.list": "gdcZone",
    "monitoring.projects.timeSeries.list":
        "aggregation.alignmentPeriod aggregation.crossSeriesReducer aggregation.groupByFields "
        "aggregation.perSeriesAligner orderBy secondaryAggregation.alignmentPeriod "
        "secondaryAggregation.crossSeriesReducer secondaryAggregation.groupByFields "
        "secondaryAggregation.perSeriesAligner",
}  # fmt: skip


def names(table: dict[str, str], message: str) -> set[str]:
    """The fields that a table has for a message; for methods, those of the end of an id, too."""
    ends = [line for name, line in table.items() if name in ("*", message)
            or message.endswith(f".{name}")]  # fmt: skip
    return set(" ".join(ends).split())


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
    for name in names(QUERY_NOT_EMULATED, method.id) & query.keys():
        raise not_emulated(f"{name} of {method.id}")
    if query.get("alt", "json") not in ("json", "media"):
        raise not_emulated(f"alt={query['alt']}")
    schemas, request = method.document["schemas"], method.about.get("request", {})
    for part in filter(None, query.get("updateMask", "").split(",")):
        name = camel(part.strip().split(".")[0])
        about = schemas[request["$ref"]]["properties"].get(name) if "$ref" in request else {}
        fixed = about is None or is_output(about) or about.get("description", "").startswith(
            ("Immutable", "Identifier"))  # fmt: skip
        if fixed:
            raise ApiError(400, f"updateMask names {name}, which can't be updated.")


def check_body(method: Any, body: dict) -> None:
    """The same for a body that was checked against the document.

    Raises:
        ApiError: 501.
    """
    schemas, request = method.document["schemas"], method.about.get("request", {})
    for message, name in _set_fields(schemas, request, body):
        if name in names(NOT_EMULATED, message):
            raise not_emulated(f"{name} of {message}")


def without_effect(schemas: dict, reference: str, value: dict) -> set[str]:
    """The names of the fields that a message sets and nothing here goes by."""
    found = _set_fields(schemas, {"$ref": reference}, value)
    return {name for message, name in found if name in names(WITHOUT_EFFECT, message)}


def _set_fields(schemas: dict, schema: dict, value: Any) -> Iterator[tuple[str, str]]:
    """(message, field) of all that a body sets; a field at its default counts as not set."""
    message = short(schema.get("$ref", ""))
    schema = schemas[schema["$ref"]] if "$ref" in schema else schema
    if isinstance(value, list):
        for item in value:
            yield from _set_fields(schemas, schema.get("items", {}), item)
    elif isinstance(value, dict):
        free = schema.get("additionalProperties", {})
        for name, inner in value.items():
            if _is_set(inner):
                yield message, name
                about = schema.get("properties", {}).get(name, free)
                yield from _set_fields(schemas, about, inner)


def _is_set(value: Any) -> bool:
    if isinstance(value, dict):
        return not value or any(map(_is_set, value.values()))
    return value not in (None, False, 0, "", "0", [])
