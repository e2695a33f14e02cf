"""What a later notebook needs, made on an empty local cloud."""

import sys

from helpers.cloud.client import Session
from helpers.cloud.resources import named
from helpers.endpoints import deploy, find_endpoint
from helpers.registry import find_model, register
from helpers.training import train


def make_missing(
    session: Session, *, model: str, endpoint: str = "", parameters: dict | None = None
) -> None:
    """On an empty local cloud, make what a later notebook needs; on Google say what to run.

    Args:
        model: display name a registered model must have.
        endpoint: display name a deployed endpoint must have; "" asks for none.
        parameters: of 01_prototype.ipynb; the epochs are few, because it only has to be there.
    """
    if not named(session, "models", model):
        if session.cloud != "local":
            find_model(session, model)
        print(f'No model "{model}" yet: training one for 5 epochs, only to have one.')
        if "google.colab" in sys.modules:
            print(
                "(What another tab trained is on that tab's machine: each Colab notebook has one.)"
            )
        job = train(session, "01_prototype.ipynb", parameters={"EPOCHS": 5} | (parameters or {}))
        register(session, job, name=model)
    if endpoint and not named(session, "endpoints", endpoint):
        if session.cloud != "local":
            find_endpoint(session, endpoint)
        deploy(session, find_model(session, model), name=endpoint)
    print("Everything this notebook needs is there.")
