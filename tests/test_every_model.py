"""Own models of every kind: registered, served and scored as their makers call them in memory."""

import json
import pickle
import uuid

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression

import helpers
from helpers.errors import DataError, NotFoundError, SchemaError, SettingError
from tests import every_model, once

pytestmark = pytest.mark.long
SOURCES = {"keras_file": "model.keras"}
HALVES = np.array([[1.5, 2], [-3, 4]], "float16")


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    return once.made(tmp_path_factory, "tests.every_model")


@pytest.fixture
def served(session, made):
    """A kind on its endpoint, made once a worker; gives it, its inputs and its maker's answers."""

    def serve(kind: str):
        name = f"every-{kind}"
        try:
            endpoint = helpers.find_endpoint(session, name)
        except NotFoundError:
            source = made / kind / SOURCES.get(kind, "model")
            model = helpers.register(session, source, name=name)
            endpoint = helpers.deploy(session, model)
        stored = made / f"{kind}.pickle"
        return endpoint, *(pickle.loads(stored.read_bytes()) if stored.exists() else (None, None))

    return serve


def same(found, expected) -> None:
    if isinstance(expected, dict):
        assert list(found) == sorted(expected)
        for name, values in expected.items():
            same(found[name], values)
    elif expected.dtype == object:
        texts = [v.decode() if isinstance(v, bytes) else v for v in expected.tolist()]
        assert found.tolist() == texts
    else:
        assert found.dtype == expected.dtype
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


def some(x, rows):
    if isinstance(x, dict):
        return {name: values[rows] for name, values in x.items()}
    return x[rows]


KINDS = [kind for kind in every_model.NOTEBOOKS if kind != "signatures"]


@pytest.mark.parametrize("kind", KINDS)
def test_predict_gives_what_the_model_in_memory_gives(served, kind):
    endpoint, x, expected = served(kind)
    same(helpers.predict(endpoint, x), expected)
    same(helpers.predict(endpoint, some(x, slice(1))), some(expected, slice(1)))


@pytest.mark.parametrize("kind", KINDS)
def test_batch_and_rows_in_json_give_the_same(session, served, kind):
    endpoint, x, expected = served(kind)
    same(helpers.batch_predict(session, endpoint.model, x), expected)
    first = some(x, slice(2))
    rows = [dict(zip(first, pair, strict=True)) for pair in zip(*first.values(), strict=True)] if (
        isinstance(first, dict)) else first  # fmt: skip
    answers = helpers.predict_json("local", endpoint.name, rows)
    assert len(answers) == 2
    if not isinstance(expected, dict):
        np.testing.assert_allclose(answers, expected[:2], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kind", [k for k in KINDS if k not in ("sequential", "keras_file")])
def test_examples_travel_with_the_model(session, served, kind):
    endpoint, _, expected = served(kind)
    examples = endpoint.model.examples
    assert len(examples) == (6 if kind == "application" else 60)
    answers = helpers.predict(endpoint, examples.rows)
    if kind != "application":  # its rows are in the order they came, too, but compared as texts
        same(answers, expected)
    assert all(np.isfinite(v) for v in helpers.score(examples.truth, answers).values())


def test_own_signatures_are_called_by_name(served):
    endpoint, *_ = served("signatures")
    assert set(endpoint.model.signatures) == {"serving_default", "total"}
    found = helpers.predict(endpoint, HALVES)
    same(found, {"doubled": HALVES * 2, "yes": np.array([True, False])})
    ids = np.arange(10).reshape(2, 5)
    same(helpers.predict(endpoint, ids, signature="total"), ids.sum(axis=1))
    with pytest.raises(SchemaError, match='no signature "totl".*Did you mean "total"'):
        helpers.predict(endpoint, ids, signature="totl")


def test_names_types_and_shapes_are_checked_before_anything_is_sent(served, monkeypatch):
    several, text, image, picture = (
        served(kind)[0] for kind in ("several", "text", "image", "application")
    )

    def sent(*_, **__):
        raise AssertionError("sent")

    monkeypatch.setattr("helpers.prediction.post", sent)
    x = np.zeros((3, 8, 8), "uint8")
    for endpoint, values, said in [
        (image, x[0], r"shape 8 × 8; expected uint8, n × 8 × 8. It looks like one row"),
        (image, x[:, :7], r"shape 3 × 7 × 8; expected uint8, n × 8 × 8"),
        (image, x / 2 + 0.25, r"holds 0.25; expected uint8, .*: whole numbers from 0 to 255"),
        (image, x.astype(int) - 1, "holds -1; expected uint8"),
        (image, x[:0], "no rows"),
        (image, {"imgae": x}, 'Input "image" is missing. Did you mean "imgae"'),
        (image, [["a"] * 8] * 8, "is text; expected uint8"),
        (image, [[1, 2], [3]], "is no array"),
        (text, "good", "is one str; put it into a list"),
        (text, [1, 2], "holds 1 in row 0; expected text or bytes"),
        (several, x, r"takes 2 inputs \(amounts, kind\); found ndarray"),
        (several, {"amounts": x[:, 0, :3]}, 'Input "kind" is missing'),
        (several, {"amounts": x[:, 0, :3], "kind": [1, 2]}, "differ in their number of rows"),
        (several, {"amounts": x[:, 0, :3], "kind": [1, 2, 2**40]}, r"expected int32"),
        (several, {"amounts": x[:, 0, :3], "kind": [1, 2, 3], "more": 1}, 'Input "more" is none'),
        (picture, ["nowhere.png"], "nowhere.png is no file here"),
    ]:  # fmt: skip
        with pytest.raises(SchemaError, match=said):
            helpers.predict(endpoint, values)


def test_files_of_pictures_are_scored_online_and_in_batch(session, made, served):
    endpoint, _, expected = served("application")
    folder = made / "application" / "pictures"
    paths = sorted(folder.glob("*.png"))
    same(helpers.predict(endpoint, paths), expected)
    same(helpers.predict(endpoint, [str(path) for path in paths]), expected)
    base = helpers.storage.upload_folder(session, folder, f"gs://{session.bucket}/{uuid.uuid4()}")
    for source in (f"{folder}/*.png", f"{base}*.png"):
        found = helpers.batch_predict(session, endpoint.model, source)
        assert [name.rpartition("/")[2] for name in found.index] == [path.name for path in paths]
        assert found["animal"].tolist() == [name.decode() for name in expected["animal"]]


def test_long_inputs_go_in_parts_by_bytes(served, monkeypatch):
    endpoint, x, expected = served("text")
    image, pictures, answers = served("image")
    monkeypatch.setattr("helpers.prediction.LIMIT_BYTES", {True: 2000, False: 2000})
    same(helpers.predict(endpoint, x), expected)
    same(helpers.predict(image, pictures), answers)
    plain = helpers.predict_json("local", image.name, pictures)
    np.testing.assert_allclose(plain, answers, rtol=1e-3, atol=1e-5)


def test_the_registry_says_what_a_model_takes(session, served):
    model = served("several")[0].model
    models = session.service("aiplatform").projects().locations().models()
    kept = session.call(models.get(name=model.resource_name))
    assert "predictSchemata" not in kept
    said = kept["versionDescription"]
    assert said.startswith("Takes amounts (float32, n × 3), kind (int32, n × 1); answers price")
    assert kept["labels"]["takes"] == "amounts-kind"
    assert "## Signatures" in model.card
    assert "unknown" not in model.card


def test_the_same_folder_is_one_version_and_another_server_is_refused(
    session, made, served, monkeypatch
):
    model = served("windows")[0].model
    again = helpers.register(session, str(made / "windows" / "model"), name=model.name)
    assert (again.version, again.artifact_uri) == (model.version, model.artifact_uri)
    inner = helpers.register(session, made / "windows" / "model" / "1", name=model.name)
    assert inner.artifact_uri == model.artifact_uri
    monkeypatch.setenv("SERVING_VERSION", "2.1.0")
    with pytest.raises(SettingError, match=r"TensorFlow Serving 2\.1\.0 is older"):
        helpers.register(session, made / "text" / "model", name="older")


def test_models_under_one_parent_have_cards_of_their_own(session, made):
    base = f"gs://{session.bucket}/parent-{uuid.uuid4().hex[:6]}"
    models = []
    for kind in ("image", "text"):
        helpers.storage.upload_folder(session, made / kind / "model", f"{base}/{kind}")
        models.append(helpers.register(session, f"{base}/{kind}", name=f"{kind}-of-{base[-6:]}"))
    cards = [model.card for model in models]
    assert "image (uint8" in cards[0]
    assert "text (string" in cards[1]


def test_what_is_no_model_is_refused(session, tmp_path, made):
    with pytest.raises(SettingError, match=r"export a sklearn.*prebuilt scikit-learn"):
        helpers.register(session, LinearRegression(), name="no")
    (tmp_path / "notes.txt").write_text("no model")
    with pytest.raises(SettingError, match="holds no SavedModel"):
        helpers.register(session, tmp_path, name="no")
    uri = f"gs://{session.bucket}/none-{uuid.uuid4().hex[:6]}"
    helpers.storage.upload_file(session, tmp_path / "notes.txt", f"{uri}/notes.txt")
    with pytest.raises(NotFoundError, match=r"No exported model in .*There: notes.txt"):
        helpers.register(session, f"{uri}/model", name="no")
    helpers.storage.write_bytes(session, _without_signatures(made), f"{uri}/model/1/saved_model.pb")
    with pytest.raises(DataError, match="has no signatures"):
        helpers.register(session, f"{uri}/model", name="no")


def _without_signatures(made) -> bytes:
    from helpers.inputs import signature

    content = (made / "signatures" / "model" / "1" / "saved_model.pb").read_bytes()
    saved = signature.message("SavedModel", content)
    del saved.meta_graphs[0].signatures[:]
    return saved.SerializeToString()


def test_rows_of_a_bucket_are_scored_where_they_lie(session, served):
    model = served("several")[0].model
    uri = f"gs://{session.bucket}/rows-{uuid.uuid4().hex[:6]}.jsonl"
    rows = [{"amounts": [1.0, 2.0, 3.0], "kind": [1]}] * 3
    helpers.storage.write_bytes(session, "\n".join(map(json.dumps, rows)).encode(), uri)
    folder = helpers.batch_predict(session, model, uri)
    found = helpers.storage.list_uris(session, folder)
    assert any("prediction.results" in one for one in found)


def test_a_frame_can_be_the_columns_of_a_matrix(served):
    endpoint, x, expected = served("sequential")
    same(helpers.predict(endpoint, pd.DataFrame(x)), expected)
