"""Register, deploy, share traffic, predict, and what it costs: through the public names."""

import io
import json
import uuid

import numpy as np
import pandas as pd
import pytest

import helpers
from helpers import storage
from helpers.errors import (
    CloudError,
    NotDeployedError,
    NotFoundError,
    SchemaError,
    SettingError,
)


@pytest.fixture
def rows() -> pd.DataFrame:
    from tests.rooms import rooms

    return rooms()[["size", "kind"]][80:]


@pytest.fixture
def endpoint(session, artifact):
    """The worker's endpoint for tests that only ask it."""
    try:
        return helpers.find_endpoint(session, "asked")
    except NotFoundError:
        model = helpers.register(session, artifact(), name="asked")
        return helpers.deploy(session, model)


def test_versions_traffic_and_removal(session, artifact, rows, trained, capsys):
    """The life of two versions on one endpoint."""
    name = f"life-{uuid.uuid4().hex[:6]}"
    first_uri = artifact()
    first = helpers.register(session, first_uri, name=name, aliases=["candidate"])
    assert (first.version, set(first.aliases)) == ("1", {"default", "v1", "candidate"})
    assert helpers.register(session, first_uri, name=name).version == "1"
    assert first.metrics["metrics"] == {"mae": 1.0}
    endpoint = helpers.deploy(session, first)
    assert endpoint.traffic == {"1": 100}
    assert helpers.deploy(session, first).resource_name == endpoint.resource_name
    scores = helpers.predict(endpoint, rows)
    expected = pd.read_json(io.StringIO((trained / "model-answers.json").read_text()))
    np.testing.assert_allclose(scores["price"], expected["price"], rtol=1e-4)
    assert list(scores.index) == list(rows.index)

    second = helpers.register(session, artifact(), name=name, aliases=["candidate"])
    assert helpers.find_model(session, name, "candidate").version == "2"
    assert helpers.find_model(session, name, "v1").version == "1"
    endpoint = helpers.deploy(session, second, traffic_percent=10)
    assert endpoint.traffic == {"1": 90, "2": 10}
    with pytest.raises(NotDeployedError, match="can't choose version"):
        helpers.predict_json("local", name, {"size": 12.0, "kind": "a"}, version="v2")
    assert helpers.promote(session, second).traffic == {"1": 0, "2": 100}
    answer = helpers.predict_json("local", name, {"size": 12.0, "kind": "a"}, version="v2")
    assert len(answer) == 1
    assert helpers.roll_back(session, name=name).traffic == {"1": 100, "2": 0}

    other = helpers.register(session, first_uri, name=f"{name}-other")  # its version is 1, too
    endpoint = helpers.deploy(session, other, name=name, traffic_percent=20)
    key = f"{other.resource_name.rpartition('/')[2].partition('@')[0]}@1"
    assert endpoint.traffic == {"1": 80, "2": 0, key: 20}
    assert (endpoint.model.name, endpoint.models[key].name) == (name, f"{name}-other")
    promoted = helpers.promote(session, other, name=name)
    assert promoted.model.name == f"{name}-other"
    assert sorted(promoted.traffic.values()) == [0, 0, 100]
    with pytest.raises(NotDeployedError, match="no version older than 1"):
        helpers.roll_back(session, name=name)
    assert helpers.promote(session, first).traffic == {"1": 100, "2": 0, key: 0}

    bill = helpers.costs(session)
    bill = bill[bill["name"] == name]
    assert list(bill["price"]) == ["free"] * 3  # the versions' machines, the other model's
    assert list(bill["usd_per_day"]) == [0] * 3
    helpers.cleanup(session, name=name)
    helpers.cleanup(session, name=f"{name}-other")
    helpers.cleanup(session, name=name)
    assert "nothing to stop" in capsys.readouterr().out
    assert name not in set(helpers.costs(session)["name"])
    with pytest.raises(NotFoundError):
        helpers.find_endpoint(session, name)


def test_a_missing_number_and_an_unseen_category_are_answered(endpoint):
    rows = pd.DataFrame({"kind": ["a", None, "never seen"], "size": [np.nan, 20, 30]})
    assert np.isfinite(helpers.predict(endpoint, rows)["price"]).all()


def test_one_row_of_the_example(endpoint):
    row = pd.DataFrame([endpoint.model.instance_schema["example"]])
    assert helpers.predict(endpoint, row).shape == (1, 1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: rows.drop(columns="size"), 'Column "size" is missing'),
        (lambda rows: rows.rename(columns={"size": "sizes"}), 'Did you mean "sizes"'),
        (lambda rows: rows.assign(extra=1), 'Column "extra" is not an input'),
        (lambda rows: rows.assign(size="big"), "'big' in row 80; expected a number"),
        (lambda rows: rows.assign(size=np.inf), "expected a number"),
        (lambda rows: rows[:0], "no rows"),
    ],
)
def test_rows_that_do_not_fit_are_refused_unsent(endpoint, rows, change, said):
    with pytest.raises(SchemaError, match=said):
        helpers.predict(endpoint, change(rows))


def test_predict_json_explains_what_it_cannot_do(session, endpoint):
    with pytest.raises(NotFoundError, match="not the one connected to"):
        helpers.predict_json("other", "asked", [{}])
    with pytest.raises(NotFoundError, match='Did you mean "asked"'):
        helpers.predict_json("local", "askd", [{}])
    with pytest.raises(CloudError, match="answered 400"):
        helpers.predict_json("local", "asked", [{"wrong": 1}])


def test_a_name_that_is_not_there_names_the_nearest(session, endpoint):
    with pytest.raises(NotFoundError, match='Did you mean "asked".*02_train'):
        helpers.find_model(session, "askd")
    with pytest.raises(NotFoundError, match="has no version"):
        helpers.find_model(session, "asked", "v9")
    with pytest.raises(NotFoundError, match='Did you mean "asked".*03_deploy'):
        helpers.find_endpoint(session, "askd")


def test_registrations_that_cannot_work(session, artifact, monkeypatch):
    with pytest.raises(NotFoundError, match="No exported model"):
        helpers.register(session, "gs://local-bucket/nowhere/model", name="never")
    uri = artifact()
    with pytest.raises(SettingError, match='Alias "2"'):
        helpers.register(session, uri, name="never", aliases=["2"])
    monkeypatch.setenv("SERVING_VERSION", "2.1.0")
    with pytest.raises(SettingError, match="2.1.0 is older"):
        helpers.register(session, uri, name="never")
    with pytest.raises(NotFoundError):
        helpers.find_model(session, "never")


def test_a_first_version_gets_all_the_traffic(session, artifact):
    name = f"share-{uuid.uuid4().hex[:6]}"
    model = helpers.register(session, artifact(), name=name)
    with pytest.raises(SettingError, match="traffic_percent=0"):
        helpers.deploy(session, model, traffic_percent=0)
    with pytest.raises(NotFoundError):
        helpers.find_endpoint(session, name)
    assert helpers.deploy(session, model, traffic_percent=10).traffic == {"1": 100}
    helpers.cleanup(session, name=name)


def test_a_server_that_does_not_start_leaves_no_endpoint(session):
    name = f"broken-{uuid.uuid4().hex[:6]}"
    uri = f"gs://{session.bucket}/{name}/model/"
    storage.write_bytes(session, b"not a model", f"{uri}1/saved_model.pb")
    storage.write_bytes(session, json.dumps({}).encode(), f"{uri}1/assets.extra/instance.yaml")
    model = helpers.register(session, uri, name=name)
    with pytest.raises(CloudError):
        helpers.deploy(session, model)
    with pytest.raises(NotFoundError):
        helpers.find_endpoint(session, name)
    assert name not in set(helpers.costs(session)["name"])


def test_setup_shows_then_makes_then_finds(session):
    other = helpers.connect("local", project="fresh-project", bucket="fresh-project-b")
    plan = helpers.setup(other)
    assert set(plan["state"]) == {"missing", "there"}
    assert set(helpers.setup(other, apply=True)["state"]) == {"made", "there"}
    assert set(helpers.setup(other)["state"]) == {"there"}
