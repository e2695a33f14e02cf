"""What a trial of a tuning job reports."""

import json
import math
import os
import time
from pathlib import Path

from helpers.errors import near
from helpers.inputs.metrics import reported


def report_metric(metric: str, path: Path) -> str:
    """Hand the notebook's metric to the service, at the end of a trial (see main.py).

    The service reads the file that the package cloudml-hypertune (0.1.0.dev6, 2019) would write.

    Args:
        path: the metrics.json that the notebook left.
    Returns:
        What is wrong with the metric, or "".
    """
    if not path.exists():
        path.write_text("{}")  # nothing was measured: for `tune` to see
    try:
        found = reported(json.loads(path.read_text()))
    except (ValueError, TypeError, AttributeError) as error:
        return f"metrics.json is no JSON object ({error})."
    if not math.isfinite(found.get(metric, math.nan)):
        return f'metrics.json has no finite number "{metric}".{near(metric, found)}'
    line = {
        "timestamp": time.time(),
        "trial": os.environ.get("CLOUD_ML_TRIAL_ID", "0"),
        metric: str(found[metric]),
        "global_step": str(int(found.get("epochs", 0))),
    }
    target = Path(os.environ.get("CLOUD_ML_HP_METRIC_FILE", "/tmp/hypertune/output.metrics"))
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(line) + "\n")
    return ""
