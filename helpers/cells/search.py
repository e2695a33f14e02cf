"""What a tuning job searches, as the service takes it."""

import math
import re
from pathlib import Path

from helpers.cells.notebook_file import NotebookFile
from helpers.cells.parameters import check_parameters
from helpers.cells.places import DATA_FILE
from helpers.errors import SettingError


def check_counts(search: dict, trials: int, parallel: int) -> None:
    """Refuse a search of nothing."""
    if min(trials, parallel) < 1 or not search:
        raise SettingError(
            f"{len(search)} parameters to search, trials={trials}, parallel={parallel}; "
            "expected 1 or more of each."
        )


def search_study(file: NotebookFile, search: dict, metric: str, goal: str) -> dict:
    """What is searched for, as the service takes it; every value is one the notebook takes."""
    if goal not in ("minimize", "maximize") or not re.fullmatch(r"\S+", metric):
        raise SettingError(
            f'metric="{metric}", goal="{goal}"; expected a name of metrics.json without spaces, '
            'and "minimize" or "maximize".'
        )
    return {
        "metrics": [{"metricId": metric, "goal": goal.upper()}],
        "parameters": [_parameter(file, name, values) for name, values in search.items()],
    }


def _parameter(file: NotebookFile, name: str, values: tuple | list) -> dict:
    """A ParameterSpec; every value is one the notebook takes."""
    given, scale = values if isinstance(values, tuple | list) else (), "linear"
    if isinstance(values, tuple) and len(values) == 3:
        *given, scale = values
    kept = [check_parameters(file.path, {name: value})[name] for value in given]
    for value in kept:
        if isinstance(value, str) and DATA_FILE.fullmatch(value) and Path(value).is_file():
            raise SettingError(
                f'search["{name}"] names {value} on this machine, which trials do not have. Put it '
                "into the bucket (helpers.storage.upload_file), and search its gs:// address."
            )
    numbers = bool(kept) and all(type(value) in (int, float) for value in kept)
    about = {"parameterId": name}
    if isinstance(values, list) and numbers:
        return about | {"discreteValueSpec": {"values": sorted({float(v) for v in kept})}}
    if isinstance(values, list) and kept:
        return about | {"categoricalValueSpec": {"values": list(dict.fromkeys(map(str, kept)))}}
    floor = {"linear": -math.inf, "log": 0}.get(scale, math.inf)
    if not numbers or len(kept) != 2 or not floor < kept[0] < kept[1]:
        raise SettingError(
            f'search["{name}"] is {values!r}; expected (low, high) with low below high, '
            '(low, high, "log") with low above 0, or a list of values.'
        )
    kind, number = ("integer", str) if type(kept[0]) is int else ("double", float)
    ends = {"minValue": number(kept[0]), "maxValue": number(kept[1])}
    return about | {f"{kind}ValueSpec": ends, "scaleType": f"UNIT_{scale.upper()}_SCALE"}
