"""Pictures, texts and a series on the whole road: prototype, job, registry, endpoint, batch."""

from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from PIL import Image

import helpers
from helpers import images, series, storage, texts
from helpers.inputs import signature
from tests.colab import alarming, raw
from tests.test_road import run

TINY = {"EPOCHS": 1, "SEED": 3}


def prepared(kind: str, folder: Path) -> Path:
    """Own data of a kind, small, with what is to be left out."""
    draw = np.random.default_rng(5)
    if kind == "image":
        for name, shade in {"dark": 10, "schön 犬 $1": 180}.items():
            (folder / "shades" / name).mkdir(parents=True)
            for number in range(12):
                pixels = (shade + draw.integers(0, 60, (30, 20, 3))).astype("uint8")
                Image.fromarray(pixels).save(folder / "shades" / name / f"{number}.jpg")
        (folder / "shades" / "dark" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
        return folder / "shades"
    if kind == "text":
        made = texts.reviews()[:120]
        made.to_csv(folder / "own.csv", index=False)
    else:
        values = 50 + 20 * np.sin(np.arange(120) * 2 * np.pi / 7) + draw.normal(0, 1, 120)
        made = pd.DataFrame({"day": pd.date_range("2024-01-01", periods=120), "load": values})
        made.drop(index=[20, 21]).to_csv(folder / "own.csv", index=False)
    return folder / "own.csv"


def held_out(kind: str, source: Path):
    """Inputs as clients send them, and their truth."""
    if kind == "image":
        found = images.load(str(source), seed=3)
        return images.examples(found)
    if kind == "text":
        return texts.examples(texts.load(str(source), seed=3))
    return series.examples(series.load(str(source), window=14, horizon=3))


def numbers(answers) -> np.ndarray:
    """All numbers of an answer, side by side."""
    if isinstance(answers, pd.DataFrame | dict):
        parts = [np.asarray(answers[name]) for name in sorted(answers)]
        answers = np.column_stack([part for part in parts if part.dtype.kind == "f"])
    return np.asarray(answers, "float64").reshape(len(answers), -1)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["image", "text", "series"])
def test_own_data_from_the_job_to_the_answers(session, tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    source = prepared(kind, tmp_path)
    more = {"WINDOW": 14, "HORIZON": 3} if kind == "series" else {}
    asked = TINY | more | {"DATA": source.name}
    job = helpers.train(session, f"more/{kind}.ipynb", parameters=asked)
    measured = job.metrics
    assert measured["baselines"]["linear"].keys() == measured["metrics"].keys()
    assert measured["data"] == source.name.removesuffix(".csv")
    page = helpers.storage.read_bytes(session, job.report_uri).decode()
    left_out = {"image": "dark/broken.jpg (damaged", "text": "", "series": "gaps: 2024-01-21 (2)"}
    assert left_out[kind] in page
    model = helpers.register(session, job, name=f"own-{kind}")
    endpoint = helpers.deploy(session, model)
    x, truth = held_out(kind, source)
    online = helpers.predict(endpoint, x)
    scored = helpers.score(truth, online)
    for name, value in measured["metrics"].items():
        assert scored[name] == pytest.approx(value, rel=1e-3, abs=1e-5), name
    batch = helpers.batch_predict(session, model, x)
    np.testing.assert_allclose(numbers(batch), numbers(online), rtol=1e-4, atol=1e-5)


@pytest.mark.soak
@pytest.mark.parametrize("kind", ["image", "text", "series"])
def test_built_in_data_through_every_notebook(empty_cloud, tmp_path, kind):
    """02 with another NOTEBOOK, then 03 and 04 as they are; twice, so that versions compare."""
    own = {"MODEL_NAME": kind, "EPOCHS": 2}
    for seed in (0, 1):
        run("02_train", tmp_path, NOTEBOOK=f"more/{kind}.ipynb", SEED=seed, **own)
        run("03_deploy", tmp_path, MODEL_NAME=kind, VERSION="candidate")
    run("04_predict", tmp_path, MODEL_NAME=kind)


@pytest.mark.soak
@pytest.mark.parametrize("kind", ["image", "text", "series"])
def test_its_learning_rate_is_searched_for(empty_cloud, tmp_path, kind):
    few = {"TRIALS": 1, "EPOCHS": 1, "FULL_EPOCHS": 1}
    (tmp_path / "more").mkdir()
    run("more/tune", tmp_path, NOTEBOOK=f"more/{kind}.ipynb", MODEL_NAME=kind, **few)
    metrics = helpers.find_model(helpers.connect("local"), kind, "candidate").metrics["metrics"]
    assert ("mae" if kind == "series" else "accuracy") in metrics


@pytest.mark.long
def test_any_model_needs_one_line(session, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    job = helpers.train(session, "more/any_model.ipynb", parameters={"EPOCHS": 1})
    assert 0.2 < job.metrics["metrics"]["accuracy"] <= 1
    ran = nbformat.reads(
        storage.read_bytes(session, f"{job.base_uri}/any_model.ipynb").decode(), as_version=4
    )
    assert raw(ran) + alarming(ran) == []
    endpoint = helpers.deploy(session, helpers.register(session, job, name="any"))
    found = helpers.predict(endpoint, np.zeros((3, 8, 8)))
    assert numbers(found).shape == (3, 10)


@pytest.mark.soak
@pytest.mark.parametrize("name", ["MobileNetV3Small", "EfficientNetV2B0", "ConvNeXtTiny"])
def test_a_backbone_learns_from_pictures_of_ones_own(tmp_path, name):
    (tmp_path / "more").mkdir()
    own = {"DATA": str(prepared("image", tmp_path)), "OUTPUT_DIR": str(tmp_path / "out")}
    run("more/image", tmp_path, BACKBONE=name, **TINY, **own)
    saved = signature.read((tmp_path / "out/model/1/saved_model.pb").read_bytes())
    assert str(saved.signatures["serving_default"]).startswith("image_bytes (string, n) → label")
    assert (tmp_path / "out/model/1/variables/variables.data-00000-of-00001").stat().st_size > 3e6


PRETRAINED = {"BACKBONE": "MobileNetV3Small", "WEIGHTS": "imagenet"}


@pytest.mark.parametrize(
    ("kind", "parameters", "said"),
    [
        ("image", {"DATA": "digit"}, 'Did you mean "digits"'),
        ("image", {"WEIGHTS": "imagenet"}, "choose a BACKBONE"),
        ("image", PRETRAINED, "imagenet weights of MobileNetV3Small can't be downloaded from"),
        ("text", {"TARGET": "verdic", "DATA": "own.csv"}, 'Did you mean "verdict"'),
        ("series", {"HORIZON": 400}, "leave 0 whole windows"),
    ],
)
def test_bad_input_ends_before_training(tmp_path, monkeypatch, kind, parameters, said):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))  # nothing was downloaded before,
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # and nothing answers
    texts.reviews()[:30].to_csv("own.csv", index=False)
    (tmp_path / "more").mkdir()
    with pytest.raises(Exception, match=said):
        run(f"more/{kind}", tmp_path, OUTPUT_DIR="out", **parameters)
    assert not list(tmp_path.rglob("metrics.json"))
