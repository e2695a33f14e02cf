"""v1beta1 beside v1, and etags, as Google's own clients see them."""

import pytest
from google.api_core import exceptions
from google.cloud import aiplatform
from google.cloud import aiplatform_v1beta1 as beta
from google.cloud.aiplatform.preview import models as preview
from google.cloud.aiplatform_v1beta1.services.endpoint_service.transports import (
    rest as endpoint_rest,
)
from google.cloud.aiplatform_v1beta1.services.model_service.transports import rest as model_rest

from helpers import storage
from helpers.cloud import buckets
from tests.emulator.saved_models import saved_models  # noqa: F401
from tests.emulator.test_sdk import MACHINE, TF_IMAGE, _point, name, sdk  # noqa: F401


@pytest.fixture
def clients(emulator):
    """The generated clients of v1beta1, for endpoints and for models."""
    about = {"host": emulator.url.removeprefix("http://"), "url_scheme": "http",
             "credentials": emulator.session.credentials}  # fmt: skip
    return (
        beta.EndpointServiceClient(transport=endpoint_rest.EndpointServiceRestTransport(**about)),
        beta.ModelServiceClient(transport=model_rest.ModelServiceRestTransport(**about)),
    )


@pytest.fixture
def model(sdk, name, saved_models) -> aiplatform.Model:  # noqa: F811
    buckets.create_bucket(sdk.session)
    storage.upload_folder(sdk.session, saved_models / "one" / "1", f"gs://local-bucket/{name}/")
    return aiplatform.Model.upload(
        display_name=name, artifact_uri=f"gs://local-bucket/{name}/",
        serving_container_image_uri=TF_IMAGE,
    )  # fmt: skip


def test_operations_carry_the_version_they_were_made_with(emulator, clients, name, saved_models):  # noqa: F811
    endpoints, models = clients
    buckets.create_bucket(emulator.session)
    made = endpoints.create_endpoint(parent=emulator.parent, endpoint={"display_name": name})
    assert isinstance(made.result(timeout=60), beta.Endpoint)
    assert isinstance(made.metadata, beta.CreateEndpointOperationMetadata)
    storage.upload_folder(emulator.session, saved_models / "one" / "1", f"gs://local-bucket/{name}")
    wanted = {"display_name": name, "artifact_uri": f"gs://local-bucket/{name}",
              "container_spec": {"image_uri": TF_IMAGE}}  # fmt: skip
    registered = models.upload_model(parent=emulator.parent, model=wanted).result(timeout=60)
    assert isinstance(registered, beta.UploadModelResponse)
    resources = {"machine_spec": {"machine_type": MACHINE}, "min_replica_count": 1}
    deployed = {
        "model": registered.model, "dedicated_resources": resources, "id": "7",
        "enable_container_logging": True,
    }  # fmt: skip
    place = made.result().name
    deploying = endpoints.deploy_model(
        endpoint=place, deployed_model=deployed, traffic_split={"0": 100}
    )
    assert deploying.result(timeout=120).deployed_model.enable_container_logging
    # What v1 has no word for is not shown to it, and what it asked for not to v1beta1.
    _, by_v1 = emulator.request("GET", f"/v1/{place}")
    assert "enableContainerLogging" not in by_v1["deployedModels"][0]
    _, by_beta = emulator.request("GET", f"/v1beta1/{place}")
    assert by_beta["deployedModels"][0]["enableContainerLogging"] is True
    undeploying = endpoints.undeploy_model(endpoint=place, deployed_model_id="7")
    assert isinstance(undeploying.result(timeout=60), beta.UndeployModelResponse)
    endpoints.delete_endpoint(name=place).result(timeout=60)
    models.delete_model(name=registered.model).result(timeout=60)


def test_preview_deploys(sdk, name, model):  # noqa: F811
    endpoint = aiplatform.Endpoint.create(display_name=name)
    shown = preview.Model(model.resource_name)
    shown.deploy(preview.Endpoint(endpoint.resource_name), machine_type=MACHINE)
    assert endpoint.predict([{"a": 1.0, "b": 1.0}]).predictions == [5.0]
    endpoint.delete(force=True)


def test_a_models_etag_is_its_versions(sdk, name, model):  # noqa: F811
    place = f"/v1/{model.resource_name}"
    etags = {sdk.request("GET", f"{place}{end}")[1]["etag"] for end in ("", "@1", "@default")}
    assert len(etags) == 1
    endpoint = aiplatform.Endpoint.create(display_name=name)
    model.deploy(endpoint, machine_type=MACHINE, traffic_percentage=100)
    assert sdk.request("GET", place)[1]["etag"] in etags
    changed = model.update(description="better", labels={"phase": "test"})
    assert changed.to_dict()["description"] == "better"
    assert sdk.request("GET", place)[1]["etag"] not in etags
    stale = {"description": "old", "etag": etags.pop()}
    status, answer = sdk.request("PATCH", f"{place}?updateMask=description", json_body=stale)
    assert status == 409
    assert answer["error"]["status"] == "ABORTED"
    endpoint.delete(force=True)


def test_an_endpoints_etag_guards_its_changes(sdk, name):  # noqa: F811
    endpoint = aiplatform.Endpoint.create(display_name=name, description="one")
    client = endpoint.api_client
    first = client.get_endpoint(name=endpoint.resource_name)
    assert first.etag
    for text in ("two", "one"):  # back to what it was is a change, too
        endpoint.update(description=text)
    first.description = "mine"
    with pytest.raises(exceptions.Conflict, match="etag"):
        client.update_endpoint(endpoint=first, update_mask={"paths": ["description"]})
    newest = client.get_endpoint(name=endpoint.resource_name)
    newest.description = "mine"
    changed = client.update_endpoint(endpoint=newest, update_mask={"paths": ["description"]})
    assert changed.description == "mine"
    assert changed.etag == client.get_endpoint(name=newest.name).etag != newest.etag
    endpoint.delete()
