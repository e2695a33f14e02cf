"""Own models of every kind: trained by notebooks of their own, registered, served, scored as their
makers call them in memory, compared, preempted and tuned; in google mode, as for Google's hosts.

What a kind sends is compared with tests/google_wire_kinds.txt (see test_google.py):

    UPDATE_WIRE=1 python -m pytest -n 0 tests/test_every_model.py -k travels
"""

import json
import os
import pickle
import re
import uuid
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression

import helpers
from helpers import storage
from helpers.errors import CloudError, DataError, JobError, NotFoundError, SchemaError, SettingError
from helpers.inputs.metrics import errors
from tests import every_model, once
from tests.emulator.conftest import start, until
from tests.emulator.test_jobs import preempt
from tests.test_google import led_to, written
from tests.test_sent import fits

pytestmark = pytest.mark.long
WIRE = Path(__file__).with_name("google_wire_kinds.txt")
SOURCES = {"keras_file": "model.keras"}
UNTOLD = ("sequential", "keras_file", "signatures")  # no examples travel with these
HALVES = np.array([[1.5, 2], [-3, 4]], "float16")
KINDS = [kind for kind in every_model.NOTEBOOKS if kind not in ("signatures", "scikit-learn")]


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    return once.made(tmp_path_factory, "tests.every_model")


PLACE = {"project": "every-model", "bucket": "every-model-bucket"}


@pytest.fixture(scope="module")
def cloud(tmp_path_factory):
    """A local cloud, with a project on it that is set up."""
    running = start(tmp_path_factory.mktemp("every") / "state")
    with pytest.MonkeyPatch.context() as patch:
        led_to(running, patch)
        helpers.setup(helpers.connect("google", **PLACE), apply=True)
    yield running
    running.stop()


@pytest.fixture
def sent(cloud, monkeypatch):
    return led_to(cloud, monkeypatch)


@pytest.fixture
def session(sent):
    """In google mode; what it sends goes to a local cloud."""
    return helpers.connect("google", **PLACE)


def told(made, kind: str) -> tuple:
    """A kind's inputs, and its maker's answers."""
    return pickle.loads((made / kind / "answers.pickle").read_bytes())


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
        return endpoint, *(told(made, kind) if kind != "signatures" else (None, None))

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


def in_rows(x) -> list:
    """Inputs in TensorFlow Serving's row form."""
    if not isinstance(x, dict):
        return x
    return [dict(zip(x, row, strict=True)) for row in zip(*x.values(), strict=True)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_travels(session, sent, served, made, kind):
    """Registered, deployed, scored online, by the article's call and in batch; its examples agree
    with its maker, and what is sent is Google's to the letter."""
    endpoint, x, expected = served(kind)
    source = made / kind / SOURCES.get(kind, "model")
    model = helpers.register(session, source, name=f"{kind} travels", aliases=["candidate"])
    same(helpers.predict(endpoint, some(x, slice(2))), some(expected, slice(2)))
    answers = helpers.predict_json(session.project, endpoint.name, in_rows(some(x, slice(2))))
    assert len(answers) == 2
    if not isinstance(expected, dict):
        np.testing.assert_allclose(answers, expected[:2], rtol=1e-3, atol=1e-5)
    examples = model.examples
    batch = helpers.batch_predict(session, model, examples.rows if examples else x)
    same(batch, expected)
    check_wire(kind, session, sent)

    same(helpers.predict(endpoint, x), expected)  # all at once, packed where it can be
    same(helpers.predict(endpoint, some(x, slice(1))), some(expected, slice(1)))
    if kind in UNTOLD:
        assert len(examples) == 0
    else:
        assert len(examples) == len(next(iter(x.values())) if isinstance(x, dict) else x)
        assert all(map(np.isfinite, helpers.score(examples.truth, batch).values()))


def check_wire(kind: str, session, sent: list) -> None:
    """Every call and answer is of the official types; what a kind shapes of them is as noted."""
    for method, _, target, body, response, content in sent:
        place, _, query = target.lstrip("/").partition("?")
        if response.status == 200:
            fits(method, place, query, body, content)
    posted = {call[2].partition("?")[0].rpartition("/")[2]: call for call in sent}
    upload, batch = (json.loads(posted[n][3]) for n in ("models:upload", "batchPredictionJobs"))
    upload["model"].pop("containerSpec")
    shaped = [(*posted["models:upload"][:3], json.dumps(upload), None)]
    shaped += [call for call in sent if call[2].rstrip("?").endswith(("predict", "rawPredict"))]
    (uri,) = batch["inputConfig"]["gcsSource"]["uris"]
    row = storage.read_bytes(session, uri).decode().splitlines()[0]
    lines = [*written(shaped), f"rows.jsonl {row}"]
    for pattern, word in SHORTENED.items():
        lines = [re.sub(pattern, word, line) for line in lines]
    noted = re.split(r"(?m)^# (\w+)\n", WIRE.read_text())
    parts, now = dict(zip(noted[1::2], noted[2::2], strict=True)), "\n".join(lines) + "\n"
    if os.environ.get("UPDATE_WIRE"):
        parts = {name: (parts | {kind: now}).get(name, "") for name in KINDS}
        WIRE.write_text("".join(f"# {name}\n{part}" for name, part in parts.items()))
    assert now == parts[kind]


SHORTENED = {
    r"keras_tensor_\d+": "keras_tensor",
    r"(?<=packed_)[0-9a-f]{8}|(?<=travels-)[0-9a-f]{12}": "HASH",
    r'(?<=loss )[\d.]+(?=")|-?\d+\.\d+(e-?\d+)?': "NUMBER",
    r"\[NUMBER(, NUMBER)+\]": "[NUMBER, …]",
    r"\[\d+(, \d+)+\]": "[INTEGER, …]",
    r"(\[(INTEGER|NUMBER), …\], )+\[": r"\1… [",
    r'"b64": "[^"]+"': '"b64": "…"',
}


WHOLE = [("several", True)]
LONG = [(kind, False) for kind in (*KINDS, "signatures")] + [
    (kind, True) for kind in KINDS if kind not in ("application", "sequential")
]


@pytest.mark.parametrize(
    ("kind", "resumed"),
    [*WHOLE, *(pytest.param(*way, marks=pytest.mark.soak) for way in LONG if way not in WHOLE)],
)
def test_a_notebook_goes_the_whole_way(session, cloud, made, tmp_path, kind, resumed):
    """Its job is preempted: it starts anew, or with `checkpoints` goes on, and leaves its model all
    the same. That is compared with a version that runs, promoted, and its rate is searched for."""
    path = every_model.write(kind, tmp_path, resumed=resumed)
    name, about = f"{kind} {'resumed' if resumed else 'anew'}", {"EPOCHS": 3 if resumed else 1}
    first = helpers.register(session, made / kind / SOURCES.get(kind, "model"), name=name)
    endpoint = helpers.deploy(session, first)
    job = preempted(session, cloud, str(path), about)
    assert job.left.startswith("Left: model (")
    model = helpers.register(session, job, name=name, aliases=["candidate"])
    calls = [one.signatures["serving_default"].inputs for one in (first, model)]
    assert (model.version, calls[1]) == ("2", calls[0])
    endpoint = helpers.deploy(session, model, traffic_percent=10)
    assert endpoint.traffic == {"1": 90, "2": 10}
    if examples := model.examples:
        scores = [
            helpers.score(examples.truth, helpers.batch_predict(session, version, examples.rows))
            for version in (first, model)
        ]
        old, new = map(errors, scores)
        assert old.keys() == new.keys()
        assert all(map(np.isfinite, [*old.values(), *new.values()]))
    endpoint = helpers.promote(session, model, name=endpoint.name)
    if kind == "signatures":
        same(helpers.predict(endpoint, HALVES)["doubled"], HALVES * 2)
    else:
        storage.download_file(
            session, f"{job.base_uri}/answers.pickle", tmp_path / kind / "answers.pickle"
        )
        x, expected = told(tmp_path, kind)
        same(helpers.predict(endpoint, x), expected)
    search = {"RATE": (1e-3, 1e-1, "log")}
    tuning = helpers.tune(session, str(path), search=search, metric="loss", trials=1)
    assert 1e-3 <= tuning.best["RATE"] <= 1e-1
    assert tuning.trials["loss"].notna().all()
    helpers.cleanup(session, name=endpoint.name)


def preempted(session, cloud, notebook: str, parameters: dict):
    """A job whose first start holds until its machine is taken away, then ends by itself."""
    job = helpers.train(
        session, notebook, parameters=parameters | {"HOLD": True}, spot=True, wait=False
    )

    def said(text: str) -> int:
        return sum(text in entry["textPayload"] for entry in job.logs())

    until(lambda: said("begun") or job.state in ("FAILED", "SUCCEEDED"), 300)
    uri = f"{job.base_uri}/input/parameters.json"  # read anew at every start
    storage.write_bytes(session, json.dumps(parameters).encode(), uri)
    assert preempt(cloud, job.name, "workerpool0-0").returncode == 0
    job.wait()
    assert said("was preempted. Restarting it") == 1
    assert said("Going on from epoch 1") == (parameters["EPOCHS"] > 1)
    return job


@pytest.mark.soak
def test_a_scikit_learn_notebook_ends_with_the_way_that_is_its_own(session, tmp_path):
    with pytest.raises(JobError, match=r"prebuilt\s+scikit-learn container"):
        helpers.train(session, str(every_model.write("scikit-learn", tmp_path)))


def test_own_signatures_are_called_by_name(served):
    endpoint, *_ = served("signatures")
    assert set(endpoint.model.signatures) == {"serving_default", "total", "kept"}
    found = helpers.predict(endpoint, HALVES)
    same(found, {"doubled": HALVES * 2, "yes": np.array([True, False])})
    ids = np.arange(10).reshape(2, 5)
    same(helpers.predict(endpoint, ids, signature="total"), ids.sum(axis=1))
    with pytest.raises(SchemaError, match='no signature "totl".*Did you mean "total"'):
        helpers.predict(endpoint, ids, signature="totl")
    given = {"ids": [2**64 - 1, 2**53 + 1], "words": ["ü", b"a"]}
    for rows in (slice(2), slice(1)):  # to the last digit and byte
        found = helpers.predict(endpoint, some(given, rows), signature="kept")
        assert found["ids"].tolist() == given["ids"][rows]
        assert found["words"].tolist() == ["ü", "a"][rows]
        assert found["code_bytes"].tolist() == [b"\xff\xc3\xbc", b"\xffa"][rows]
    given["words"] = ["a", b"\xff"]
    with pytest.raises(CloudError, match=r"'words' holds bytes that .* Name it \"words_bytes\""):
        helpers.predict(endpoint, given, signature="kept")


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
        (several, {"amounts": x[:, 0, :3], "kind": [1, 2, 3], "more": 1}, '"more" is not an input'),
        (picture, ["nowhere.png"], "nowhere.png is no file here"),
    ]:  # fmt: skip
        with pytest.raises(SchemaError, match=said):
            helpers.predict(endpoint, values)


def test_files_of_pictures_are_scored_online_and_in_batch(session, made, served):
    endpoint, _, expected = served("application")
    folder = made / "application" / "pictures"
    paths = sorted(folder.rglob("*.png"))
    same(helpers.predict(endpoint, paths), expected)
    same(helpers.predict(endpoint, [str(path) for path in paths]), expected)
    base = helpers.storage.upload_folder(session, folder, f"gs://{session.bucket}/{uuid.uuid4()}")
    for source in (f"{folder}/*/*.png", f"{base}*/*.png"):
        found = helpers.batch_predict(session, endpoint.model, source)
        assert [name.rpartition("/")[2] for name in found.index] == [path.name for path in paths]
        assert found["animal"].tolist() == [name.decode() for name in expected["animal"]]


def test_long_inputs_go_in_parts_by_bytes(session, served, monkeypatch):
    endpoint, x, expected = served("text")
    image, pictures, answers = served("image")
    monkeypatch.setattr("helpers.prediction.LIMIT_BYTES", {True: 2000, False: 2000})
    same(helpers.predict(endpoint, x), expected)
    same(helpers.predict(image, pictures), answers)
    plain = helpers.predict_json(session.project, image.name, pictures)
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
    gap = {"amounts": [[1, 2, 3], [1, np.nan, 3]], "kind": [1, 1]}
    with pytest.raises(SchemaError, match=r"gap \(NaN\) or infinity in row 1; a batch prediction"):
        helpers.batch_predict(session, model, gap)


def test_a_frame_can_be_the_columns_of_a_matrix(served):
    endpoint, x, expected = served("sequential")
    same(helpers.predict(endpoint, pd.DataFrame(x)), expected)
