"""What a model is measured by: the numbers of a metrics.json, and how they come about."""

import json
import math
import os
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.errors import SettingError
from helpers.inputs.answers import SHARES, probability_name

NAME = "metrics.json"
COMPARED = "biufOSU"  # numbers, texts, objects: no dates, no complex numbers


def metrics(
    *, folder: str | os.PathLike | None = None, baselines=None, about=None, **numbers: float
) -> Path:
    """Write metrics.json: what this notebook's model was measured by; a job brings it home.

    Args:
        folder: where to; default: the job's folder (the environment variable OUTPUT_DIR), else the
            current one.
        baselines: name of a rival -> its numbers, of the same names.
        about: what else is to be known, such as {"epochs": 5, "rows_test": 400}.
        numbers: by name, such as accuracy=0.97; tuning can choose by them.
    Raises:
        SettingError: a value is not a finite number, as JSON needs it.
    """
    report = dict(about or {}) | {"metrics": _numbers(numbers)}
    if baselines is not None:
        report["baselines"] = {name: _numbers(values) for name, values in baselines.items()}
    path = Path(os.environ.get("OUTPUT_DIR") or "." if folder is None else folder, NAME)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1, allow_nan=False) + "\n")
    return path


def reported(measured: dict) -> dict[str, float]:
    """The numbers of a metrics.json by name, those under `metrics` first."""
    named = measured | measured.get("metrics", {})
    return {key: value for key, value in named.items() if type(value) in (int, float)}


def errors(scores: dict[str, float]) -> dict[str, float]:
    """The numbers of `score` that decide between two models; less is better."""
    found = {name: v for name, v in scores.items() if name.endswith(("mae", "log_loss"))}
    for name, share in scores.items():
        of = name.removesuffix("accuracy")
        if of != name and f"{of}log_loss" not in scores:
            found[f"{of}wrong"] = 1 - share
    return found


def pairs(truth, answers, name: str = "answer") -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Truth and answer side by side, (n,) each, by output; classes as texts.

    Args:
        name: what one output without a name is called.
    """
    if isinstance(truth, dict):
        return {k: v for n, t in truth.items() for k, v in pairs(t, answers[n], n).items()}
    truth = _array(truth)
    if isinstance(answers, pd.DataFrame | dict):
        others = [n for n in answers if not n.startswith(SHARES)] or [*answers]
        return pairs(truth, answers[others[0]], others[0])
    answers = _array(answers)
    if "accuracy" in score(truth, answers):
        if truth.ndim > 1 and truth.shape[1] > 1:
            truth = truth.argmax(axis=1)
        answers = answers.reshape(len(answers), -1)
        if answers.shape[1] > 1:
            answers = answers.argmax(axis=1)
        elif answers.dtype.kind == "f":
            answers = answers > 0.5
        truth = truth.astype(int) if truth.dtype.kind in "fb" else truth
        answers = answers.astype(int) if answers.dtype.kind in "fb" else answers
        return {name: (truth.reshape(-1).astype(str), answers.reshape(-1).astype(str))}
    return {name: (truth.reshape(-1).astype(float), answers.reshape(-1).astype(float))}


def score(truth, answers) -> dict[str, float]:
    """Compare answers with the truth, by what kind they are.

    Args:
        truth: (n, …) numbers, class numbers or texts; a dict of these for several outputs.
        answers: what `helpers.predict` gives: a frame, an array or a dict of arrays.
    Returns:
        For numbers mae and rmse in their unit, and r2; for classes accuracy, and log_loss where
        probabilities are known. For several outputs, each number has the output's name before it.
    Raises:
        SettingError: they are not of the same rows, or it can't be told what answers what.
    """
    if isinstance(truth, pd.DataFrame):
        truth = {name: truth[name] for name in truth}
    if isinstance(truth, dict):
        _check(all(name in answers for name in truth), truth, answers)
        each = {name: score(values, answers[name]) for name, values in truth.items()}
        if len(each) == 1:
            return next(iter(each.values()))
        return {f"{name}_{key}": v for name, scores in each.items() for key, v in scores.items()}
    truth = _array(truth)
    if isinstance(answers, pd.DataFrame | dict):
        return _of_named(truth, {name: _array(answers[name]) for name in answers})
    answers = _array(answers)
    _check(_alike_in_rows(truth, answers), truth, answers)
    if truth.ndim == 1 or truth.shape[1:] == (1,):
        return _of_one(truth.reshape(-1), answers.reshape(len(answers), -1))
    _check(truth.shape == answers.shape, truth, answers)
    if truth.ndim == 2 and np.isin(truth, (0, 1)).all() and (truth.sum(axis=1) == 1).all():
        return _of_one(truth.argmax(axis=1), answers)  # one-hot
    return _of_numbers(truth, answers)


def _of_named(truth: np.ndarray, answers: dict[str, np.ndarray]) -> dict[str, float]:
    """An answer beside its probabilities, in columns of their own or in one matrix."""
    shares = {name: values for name, values in answers.items() if name.startswith(SHARES)}
    others = [name for name in answers if name not in shares]
    _check(len(others) == 1 or (not others and len(shares) == 1), truth, answers)
    if not others:
        return score(truth, next(iter(shares.values())))
    answer = answers[others[0]]
    if not shares:
        return score(truth, answer)
    _check(_alike_in_rows(truth, answer), truth, answer)
    found = {"accuracy": _alike(truth, answer)}
    names = {value: probability_name(value) for value in set(truth.tolist())}
    matrix = next(iter(shares.values()))
    if set(names.values()) <= set(shares):
        columns = {name: place for place, name in enumerate(shares)}
        places = np.array([columns[names[value]] for value in truth.tolist()])
        found["log_loss"] = _log_loss(np.column_stack([*shares.values()]), places)
    elif len(shares) == 1 and matrix.ndim == 2 and truth.dtype.kind in "iu":
        found["log_loss"] = _log_loss(matrix, truth)
    return found


def _alike_in_rows(truth: np.ndarray, answers: np.ndarray) -> bool:
    """Whether both are numbers or classes, and some, and as many."""
    known = truth.dtype.kind in COMPARED and answers.dtype.kind in COMPARED
    return known and truth.ndim and answers.ndim and 0 < len(truth) == len(answers)


def _of_one(truth: np.ndarray, answers: np.ndarray) -> dict[str, float]:
    """(n,) truth, (n, width) answers."""
    width = answers.shape[1]
    if truth.dtype.kind in "OSU":
        _check(width == 1 and answers.dtype.kind in "OSU", truth, answers)
        return {"accuracy": _alike(truth, answers[:, 0])}
    whole = truth.dtype.kind in "iub" or bool((truth % 1 == 0).all())
    if width > 1:
        _check(whole and truth.min() >= 0 and truth.max() < width, truth, answers)
        places = truth.astype(int)
        found = {"accuracy": float((answers.argmax(axis=1) == places).mean())}
        if (answers >= 0).all() and np.allclose(answers.sum(axis=1), 1, atol=1e-3):
            found["log_loss"] = _log_loss(answers, places)
        return found
    answers = answers[:, 0]
    if whole and answers.dtype.kind in "iub" and truth.dtype.kind in "iub":
        return {"accuracy": _alike(truth, answers)}
    if np.isin(truth, (0, 1)).all() and ((answers >= 0) & (answers <= 1)).all():
        shares = np.column_stack([1 - answers, answers])
        found = {"accuracy": float(((answers > 0.5) == truth.astype(bool)).mean())}
        return found | {"log_loss": _log_loss(shares, truth.astype(int))}
    return _of_numbers(truth, answers)


def _of_numbers(truth: np.ndarray, answers: np.ndarray) -> dict[str, float]:
    truth, answers = truth.astype("float64"), answers.astype("float64")
    error = answers - truth
    spread = float(((truth - truth.mean(axis=0)) ** 2).sum())
    return {
        "mae": float(np.abs(error).mean()),
        "rmse": float((error**2).mean() ** 0.5),
        "r2": 1 - float((error**2).sum()) / (spread or 1.0),
    }


def _array(values) -> np.ndarray:
    """Values as an array; bytes, as TensorFlow gives texts, as texts."""
    values = np.asarray(values)
    if values.dtype.kind not in "OS":
        return values
    texts = np.empty(values.size, object)
    texts[:] = [
        value.decode(errors="replace") if isinstance(value, bytes) else value
        for value in values.reshape(-1).tolist()
    ]
    return texts.reshape(values.shape)


def _alike(truth: np.ndarray, answers: np.ndarray) -> float:
    return float((truth.astype(str) == answers.reshape(len(truth), -1)[:, 0].astype(str)).mean())


def _log_loss(shares: np.ndarray, places: np.ndarray) -> float:
    chosen = np.clip(shares[np.arange(len(shares)), places].astype("float64"), 1e-7, 1)
    return float(-np.log(chosen).mean())


def _numbers(found: dict) -> dict[str, float]:
    made = {}
    for name, value in found.items():
        value = value.item() if hasattr(value, "item") else value
        if type(value) not in (int, float) or not math.isfinite(value):
            raise SettingError(f"{name}={value!r} is no metric; expected a finite number.")
        made[name] = value
    return made


def _check(fits: bool, truth, answers) -> None:
    def shown(value) -> str:
        if isinstance(value, dict | pd.DataFrame):
            return f"outputs {', '.join(map(str, value))}"
        return f"{value.dtype} of shape {value.shape}" if hasattr(value, "shape") else repr(value)

    if not fits:
        raise SettingError(
            f"The truth ({shown(truth)}) can't be compared with the answers ({shown(answers)}). "
            "Give numbers or classes, one a row for each output; a dict where there are several."
        )
