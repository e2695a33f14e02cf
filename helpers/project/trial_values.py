"""Trials of a tuning job, as the service gives them."""

import math


def values(trial: dict) -> dict:
    """A trial's parameters; whole numbers, which the service gives as 32.0, are 32."""
    found = {given["parameterId"]: given["value"] for given in trial.get("parameters", [])}
    whole = {k: int(v) for k, v in found.items() if isinstance(v, float) and v.is_integer()}
    return found | whole


def measured(trial: dict) -> float:
    """What a trial reported; NaN when it reported nothing."""
    metrics = trial.get("finalMeasurement", {}).get("metrics", [{}])
    return metrics[0].get("value", math.nan)
