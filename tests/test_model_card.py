"""The page that `register` writes beside a model, and what the registry keeps of it."""

import uuid

import helpers
from helpers import storage


def version(session, model) -> dict:
    models = session.service("aiplatform").projects().locations().models()
    return session.call(models.get(name=model.resource_name))


def test_a_card_says_what_a_stranger_needs(session, artifact):
    uri, name = artifact(), f"card-{uuid.uuid4().hex[:6]}"
    base = uri.rstrip("/").rsplit("/", 1)[0]
    storage.write_bytes(session, b'{"cells": []}', f"{base}/input/rooms.ipynb")
    model = helpers.register(session, uri, name=name, labels={"data": "own"})
    card = storage.read_bytes(session, f"{base}/card.md").decode()
    assert model.card == card
    for line in (
        "# Predicts price from rooms",
        "| predicts | price (regression in $) |",
        "| size | number | 10.",
        ", may be missing |",
        "| kind | string | a, b, may be missing |",
        "| this model | 1 |",
        "| notebook | rooms.ipynb, sha256 ",
    ):
        assert line in card
    kept = version(session, model)
    assert kept["versionDescription"] == "Predicts price from rooms. mae 1"
    assert kept["labels"]["data"] == "own"
    assert (kept["labels"]["target"], kept["labels"]["task"]) == ("price", "regression")


def test_a_model_without_metrics_has_a_card_too(session, trained):
    base = f"gs://{session.bucket}/bare/{uuid.uuid4().hex[:8]}"
    uri = storage.upload_folder(session, trained / "numbers", f"{base}/model")
    model = helpers.register(session, uri, name=f"bare-{uuid.uuid4().hex[:6]}")
    assert "| predicts | price (multiclass) |" in model.card
    assert "On the test rows" not in model.card
    assert version(session, model)["versionDescription"] == "Predicts price from numbers."
