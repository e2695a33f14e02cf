"""The model registry: versions, aliases, copied artifacts, refusals."""

import uuid

import pytest

from helpers import storage
from helpers.errors import CloudError
from tests.emulator.saved_models import register

PREBUILT = "us-docker.pkg.dev/vertex-ai/prediction/tf2-cpu.2-15:latest"


@pytest.fixture
def models(emulator):
    """The models collection and a name nobody else has."""
    return emulator.api("aiplatform").projects().locations().models()


@pytest.fixture
def name() -> str:
    return f"m{uuid.uuid4().hex[:8]}"


@pytest.fixture
def artifact(tmp_path):
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "saved_model.pb").write_bytes(b"graph")
    return tmp_path


def versions(emulator, models, model: str) -> dict[str, list[str]]:
    found, token = {}, ""
    while token or not found:  # one a page
        request = models.listVersions(name=model, pageSize=1, pageToken=token)
        answer = emulator.session.call(request)
        (shown,), token = answer["models"], answer.get("nextPageToken", "")
        assert shown["versionId"] not in found
        found[shown["versionId"]] = shown.get("versionAliases", [])
    return found


def test_versions_count_up_and_an_alias_means_one_of_them(emulator, models, artifact, name):
    first = register(emulator, artifact, name, versionAliases=["v1", "candidate"])
    assert first["modelVersionId"] == "1"
    model = first["model"]
    assert model.endswith(f"/models/{name}")
    second = register(emulator, artifact, name, parent=model, versionAliases=["candidate"])
    assert (second["model"], second["modelVersionId"]) == (model, "2")
    assert versions(emulator, models, model) == {"1": ["v1", "default"], "2": ["candidate"]}
    third = register(emulator, artifact, name, parent=model, versionAliases=["default"])
    assert third["modelVersionId"] == "3"
    assert versions(emulator, models, model) == {"1": ["v1"], "2": ["candidate"], "3": ["default"]}
    for wanted, expected in {
        "": "3",
        "@default": "3",
        "@v1": "1",
        "@candidate": "2",
        "@2": "2",
    }.items():
        got = emulator.session.call(models.get(name=model + wanted))
        assert got["versionId"] == expected
        assert got["supportedDeploymentResourcesTypes"] == ["DEDICATED_RESOURCES"]
        assert got["containerSpec"]["ports"] == [{"containerPort": 8080}]
        assert got["etag"]
    listed = models.list(parent=emulator.parent, filter=f'displayName="{name}"')
    assert [m["versionId"] for m in emulator.session.call(listed)["models"]] == ["3"]


def test_aliases_are_given_moved_and_removed(emulator, models, artifact, name):
    model = register(emulator, artifact, name, versionAliases=["v1"])["model"]
    register(emulator, artifact, name, parent=model)
    body = {"versionAliases": ["default", "v1", "best"]}
    merged = emulator.session.call(models.mergeVersionAliases(name=f"{model}@2", body=body))
    assert merged["versionId"] == "2"
    assert versions(emulator, models, model) == {"1": [], "2": ["default", "v1", "best"]}
    body = {"versionAliases": ["-best"]}
    emulator.session.call(models.mergeVersionAliases(name=f"{model}@default", body=body))
    assert versions(emulator, models, model) == {"1": [], "2": ["default", "v1"]}
    body = {"versionAliases": ["-default"]}
    with pytest.raises(CloudError, match="default"):
        emulator.session.call(models.mergeVersionAliases(name=f"{model}@2", body=body))
    body = {"versionAliases": ["3"]}
    with pytest.raises(CloudError, match="Invalid alias"):
        emulator.session.call(models.mergeVersionAliases(name=f"{model}@2", body=body))


def test_artifacts_are_copied(emulator, artifact, name):
    response = register(emulator, artifact, name)
    for uri in storage.list_uris(emulator.session, f"gs://local-bucket/{name}/"):
        bucket, _, path = uri.removeprefix("gs://").partition("/")
        (emulator.folder / "buckets" / bucket / path).unlink()
    copies = [p for p in (emulator.folder / "models").rglob("saved_model.pb") if name in str(p)]
    assert [copy.read_bytes() for copy in copies] == [b"graph"]
    assert copies[0].parts[-3:] == ("1", "1", "saved_model.pb")
    assert response["modelVersionId"] == "1"


def test_a_missing_artifact_registers_nothing(emulator, models, name):
    body = {
        "modelId": name,
        "model": {
            "displayName": name,
            "artifactUri": f"gs://local-bucket/{name}/nothing/",
            "containerSpec": {"imageUri": PREBUILT},
        },
    }
    operation = emulator.session.call(models.upload(parent=emulator.parent, body=body))
    with pytest.raises(CloudError, match=f"no files under .*{name}/nothing/"):
        emulator.session.wait(operation)
    with pytest.raises(CloudError, match="does not exist"):
        emulator.session.call(models.get(name=f"{emulator.parent}/models/{name}"))


@pytest.mark.parametrize(
    ("change", "status", "said"),
    [
        ({"parentModel": "projects/local/locations/us-central1/models/none"}, 404, "none"),
        ({"modelId": "Not OK"}, 400, "model_id"),
        ({"model": {"displayName": "x"}}, 400, "container_spec"),
        ({"model": {"containerSpec": {"imageUri": PREBUILT}}}, 400, "display_name"),
        ({"model": {"displayName": "x", "containerSpec": {}}}, 400, "image_uri"),
        ({"model": {"displayName": "x", "artifactURI": "gs://b/x"}}, 400, "artifactURI"),
    ],
)
def test_uploads_google_would_refuse_are_refused(emulator, change, status, said):
    body = {"model": {"displayName": "x", "containerSpec": {"imageUri": PREBUILT}}} | change
    path = f"/v1/{emulator.parent}/models:upload"
    found, answer = emulator.request("POST", path, json_body=body)
    assert found == status
    assert said in answer["error"]["message"]


def test_an_id_is_taken_once(emulator, artifact, name):
    register(emulator, artifact, name)
    with pytest.raises(CloudError, match="already exists"):
        register(emulator, artifact, name)


def test_patch_changes_the_model_or_the_version(emulator, models, artifact, name):
    model = register(emulator, artifact, name, labels={"a": "1"})["model"]
    body = {"description": "new", "labels": {"b": "2"}}
    patch = models.patch(name=model, body=body, updateMask="description,labels")
    assert emulator.session.call(patch)["description"] == "new"
    body = {"versionDescription": "first", "labels": {"c": "3"}}
    patch = models.patch(name=f"{model}@1", body=body, updateMask="versionDescription,labels")
    changed = emulator.session.call(patch)
    assert (changed["description"], changed["versionDescription"]) == ("new", "first")
    assert changed["labels"] == {"b": "2", "c": "3"}
    for body in ({}, {"description": None}, {"description": "", "labels": {}, "etag": ""}):
        patch = models.patch(name=model, body=body, updateMask="description,labels")
        cleared = emulator.session.call(patch)
        assert not cleared.get("description")
        assert cleared["labels"] == {"c": "3"}  # the version's own
    for body in ({}, {"displayName": ""}):
        with pytest.raises(CloudError, match="display_name is required"):
            emulator.session.call(models.patch(name=model, body=body, updateMask="displayName"))
    with pytest.raises(CloudError, match="updateMask"):
        emulator.session.call(models.patch(name=model, body={}, updateMask="artifactUri"))
    stale = {"description": "late", "etag": "AMEwAAAA"}
    with pytest.raises(CloudError, match="etag"):
        emulator.session.call(models.patch(name=model, body=stale, updateMask="description"))


def test_versions_and_models_are_deleted_with_their_files(emulator, models, artifact, name):
    model = register(emulator, artifact, name)["model"]
    register(emulator, artifact, name, parent=model)
    with pytest.raises(CloudError, match="default"):
        emulator.session.call(models.deleteVersion(name=f"{model}@1"))
    emulator.session.wait(emulator.session.call(models.deleteVersion(name=f"{model}@2")))
    assert versions(emulator, models, model) == {"1": ["default"]}
    assert register(emulator, artifact, name, parent=model)["modelVersionId"] == "3"
    emulator.session.wait(emulator.session.call(models.delete(name=model)))
    with pytest.raises(CloudError, match="does not exist"):
        emulator.session.call(models.get(name=model))
    assert not [p for p in (emulator.folder / "models").rglob("*") if name in str(p)]


def test_uploads_at_the_same_time_get_versions_of_their_own(emulator, models, artifact, name):
    model = register(emulator, artifact, name)["model"]
    body = {
        "parentModel": model,
        "model": {
            "displayName": name,
            "artifactUri": f"gs://local-bucket/{name}/",
            "versionAliases": ["default"],
            "containerSpec": {"imageUri": PREBUILT},
        },
    }
    started = [
        emulator.session.call(models.upload(parent=emulator.parent, body=body)) for _ in range(6)
    ]
    made = [emulator.session.wait(operation)["modelVersionId"] for operation in started]
    assert sorted(made) == ["2", "3", "4", "5", "6", "7"]
    aliases = versions(emulator, models, model).values()
    assert [a for a in aliases if a] == [["default"]]


def test_what_was_registered_survives_a_kill(start_emulator, artifact):
    running = start_emulator()
    model = register(running, artifact, "kept")["model"]
    running.kill()
    again = start_emulator()
    models = again.api("aiplatform").projects().locations().models()
    assert again.session.call(models.get(name=f"{model}@1"))["displayName"] == "kept"


def test_what_is_not_emulated_says_so(emulator, artifact, name):
    model = register(emulator, artifact, name)["model"]
    for path in (f"{emulator.parent}/models:copy", f"{model}:export"):
        status, answer = emulator.request("POST", f"/v1/{path}", json_body={})
        assert status == 501
        assert "not emulated" in answer["error"]["message"]
