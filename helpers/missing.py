"""What a later notebook needs, made on an empty local cloud."""

import sys

from helpers.cloud.client import Session
from helpers.cloud.resources import every, named
from helpers.endpoints import deploy, find_endpoint
from helpers.registry import find_model, register
from helpers.training import find_job, train


def make_missing(
    session: Session,
    *,
    model: str = "",
    endpoint: str = "",
    job: bool = False,
) -> None:
    """On an empty local cloud, make what a later notebook needs; on Google say what to run.

    Args:
        model: display name a registered model must have; "" asks for none.
        endpoint: display name a deployed endpoint must have; "" asks for none.
        job: a training job must be there.
    """
    no_job = job and not every(session, "customJobs")
    no_model = model and not named(session, "models", model)
    if no_job or no_model:
        if session.cloud != "local":
            find_model(session, model) if no_model else find_job(session)
        what = f'model "{model}"' if no_model else "training job"
        print(f"No {what} yet: training one for 5 epochs, only to have one.")
        if "google.colab" in sys.modules:
            print("(Each Colab notebook has a machine of its own; what others made is on theirs.)")
        made = train(session, "01_prototype.ipynb", parameters={"EPOCHS": 5})
        if no_model:
            register(session, made, name=model)
    if endpoint and not named(session, "endpoints", endpoint):
        if session.cloud != "local":
            find_endpoint(session, endpoint)
        deploy(session, find_model(session, model), name=endpoint)
    print("Everything this notebook needs is there.")
