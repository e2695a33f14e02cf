"""Score rows: online through an endpoint, or as files; and the 2020 article's own call."""

import concurrent.futures
import json

import numpy as np
import pandas as pd

from helpers.deploy import Endpoint, find_endpoint, find_model
from helpers.errors import CloudError, NotDeployedError, NotFoundError, SchemaError, near
from helpers.session import RETRIED, last, pause

LIMIT_BYTES = {True: 10_000_000, False: 1_500_000}  # request bodies: dedicated, shared endpoint
CONNECTIONS = 4
PROBE_ROWS = 256


def predict(endpoint: Endpoint, frame: pd.DataFrame, *, timeout_s: float = 60) -> pd.DataFrame:
    """Score rows online.

    Args:
        endpoint: from `deploy` or `find_endpoint`.
        frame: (n, features) raw values, one column a model input, in any order.
        timeout_s: seconds to wait for each request.
    Returns:
        (n, outputs) in the target's own unit, same order and index as `frame`: the target's
        column; for a classification one `probability_…` column a class beside it.
    Raises:
        NotDeployedError: no model serves on the endpoint.
        SchemaError: a column or a value does not fit; nothing was sent.
    Source: REST v1 projects.locations.endpoints.predict
    """
    model = endpoint.model
    columns = encode_columns(model.instance_schema, frame)
    names, n = list(columns), len(frame)
    probe = json.dumps(_instances(columns, names, 0, min(PROBE_ROWS, n)))
    limit = LIMIT_BYTES[bool(endpoint.host)] * 0.8
    rows = max(1, int(limit / (len(probe) / min(PROBE_ROWS, n)))) if n > PROBE_ROWS else n

    def score(start: int) -> list:
        return _send(endpoint, columns, names, start, min(start + rows, n), timeout_s)

    with concurrent.futures.ThreadPoolExecutor(CONNECTIONS) as pool:
        answers = [row for part in pool.map(score, range(0, n, rows)) for row in part]
    return _frame(model.prediction_schema, answers, frame.index)


def predict_json(project: str, model: str, instances, version: str | None = None) -> list:
    """The 2020 article's call, argument for argument, on today's service.

    Args:
        project: must be the project of the last `connect()`.
        model: an endpoint's display name.
        instances: one dict or a list of them, as TensorFlow Serving's row form takes them.
        version: a version id or alias; it must have all of the endpoint's traffic, because a
            predict call can't choose one.
    Returns:
        One prediction an instance, as the model server gives them.
    Raises:
        NotDeployedError: `version` does not have all the traffic; the choices are named.
    """
    session = last()
    if project != session.project:
        raise NotFoundError(
            f'Project "{project}" is not the one connected to ("{session.project}").'
        )
    endpoint = find_endpoint(session, model)
    if version is not None:
        serving = [v for v, share in endpoint.traffic.items() if share == 100]
        wanted = find_model(session, endpoint.model.name, version).version
        if serving != [wanted]:
            raise NotDeployedError(
                f'A predict call can\'t choose version "{version}": traffic of "{model}" is '
                f"{endpoint.traffic}. helpers.promote gives one version all of it."
            )
    body = json.dumps({"instances": instances if isinstance(instances, list) else [instances]})
    return post(endpoint, "predict", body)["predictions"]


def post(endpoint: Endpoint, verb: str, body: str | bytes, *, timeout_s: float = 60) -> dict:
    """POST a body to an endpoint and give its JSON answer.

    Raises:
        CloudError: refused; the server's words are in the message.
    """
    session = endpoint.session
    headers = {"Content-Type": "application/json"}
    if endpoint.host:
        headers["Host"] = endpoint.host
    method = f"aiplatform.projects.locations.endpoints.{verb}"
    for attempt in range(4):
        http = session.http()
        http.timeout = timeout_s
        try:
            answer, content = http.request(f"{endpoint.url}:{verb}", "POST", body, headers)
        except OSError as error:
            failure = CloudError(
                f"{method}: no answer from {endpoint.url} ({error}).", method=method
            )
            failure.__cause__ = error
        else:
            if answer.status == 200:
                return json.loads(content)
            failure = CloudError(
                f"{method} answered {answer.status}: {_said(content)}",
                status=answer.status,
                method=method,
            )
            if answer.status not in RETRIED:
                break
        pause(attempt)
    raise failure


def encode_columns(schema: dict, frame: pd.DataFrame) -> dict[str, list]:
    """Check a frame against a model's inputs and give each column as the wire takes it.

    Raises:
        SchemaError: names the column, the row and what was expected.
    """
    if len(frame) == 0:
        raise SchemaError("The frame has no rows; expected at least one to score.")
    wanted = schema["required"]
    missing = [name for name in wanted if name not in frame.columns]
    extra = [str(name) for name in frame.columns if name not in wanted]
    if missing:
        hint = near(missing[0], extra) if extra else ""
        raise SchemaError(
            f'Column "{missing[0]}" is missing.{hint} The model\'s inputs are {", ".join(wanted)}.'
        )
    if extra:
        raise SchemaError(
            f'Column "{extra[0]}" is not an input of the model; drop it. '
            f"The model's inputs are {', '.join(wanted)}."
        )
    return {name: _encode(name, schema, frame[name]) for name in wanted}


def _encode(name: str, schema: dict, column: pd.Series) -> list:
    about, sentinel = schema["properties"][name], schema["x-missing"]
    empty = column.isna()
    if empty.any() and not about["nullable"]:
        row = column.index[empty.to_numpy().argmax()]
        raise SchemaError(
            f'Column "{name}" is empty (NaN) in row {row}; the model was trained on data without '
            "gaps there. Fill it in, or drop the row."
        )
    if about["type"] == "string":
        return column.astype("string").fillna(sentinel["string"]).tolist()
    numbers = pd.to_numeric(column, errors="coerce")
    bad = (numbers.isna() & ~empty) | np.isinf(numbers.astype("float64"))
    if bad.any():
        row = column.index[bad.to_numpy().argmax()]
        raise SchemaError(f'Column "{name}" holds {column[row]!r} in row {row}; expected a number.')
    return numbers.astype("float64").fillna(sentinel["number"]).tolist()


def _instances(columns: dict[str, list], names: list[str], start: int, stop: int) -> list[dict]:
    rows = zip(*(columns[name][start:stop] for name in names), strict=True)
    return [dict(zip(names, row, strict=True)) for row in rows]


def _send(endpoint, columns, names, start: int, stop: int, timeout_s: float) -> list:
    body = json.dumps({"instances": _instances(columns, names, start, stop)}, separators=(",", ":"))
    if len(body) > LIMIT_BYTES[bool(endpoint.host)] and stop - start > 1:
        middle = (start + stop) // 2
        return _send(endpoint, columns, names, start, middle, timeout_s) + _send(
            endpoint, columns, names, middle, stop, timeout_s
        )
    return post(endpoint, "predict", body, timeout_s=timeout_s)["predictions"]


def _frame(schema: dict, answers: list, index: pd.Index) -> pd.DataFrame:
    if schema["type"] == "object":
        return pd.DataFrame(answers, index=index)[list(schema["properties"])]
    return pd.DataFrame({schema["title"]: np.asarray(answers, dtype="float64")}, index=index)


def _said(content: bytes) -> str:
    try:
        error = json.loads(content)["error"]
        return error["message"] if isinstance(error, dict) else str(error)
    except (ValueError, KeyError, TypeError):
        return content[:300].decode(errors="replace")
