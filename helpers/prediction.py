"""Score rows online; and the 2020 article's own call."""

import base64
import concurrent.futures
import json
import sys

import numpy as np
import pandas as pd
from tqdm import tqdm

from helpers.cloud.client import RETRIED
from helpers.connection import last
from helpers.endpoints import Endpoint, find_endpoint
from helpers.errors import CloudError, NotDeployedError, NotFoundError, SchemaError, near
from helpers.registry import find_model

LIMIT_BYTES = {True: 10_000_000, False: 1_500_000}  # request bodies: dedicated, shared endpoint
ROWS = 20_000  # in one request, at most: the wire stays busy and no answer waits long
CONNECTIONS = 4
PROBE_ROWS = 256
WAKING = 400  # tries while a machine starts; with the pauses between them, 20 minutes


def predict(endpoint: Endpoint, frame: pd.DataFrame, *, timeout_s: float = 60) -> pd.DataFrame:
    """Score rows online.

    Rows of numbers travel as bytes, others as JSON columns: TensorFlow Serving's own contract
    either way. Long frames go in parts, a few at a time; only a part that failed is sent again.

    Args:
        endpoint: from `deploy` or `find_endpoint`.
        frame: (n, features) raw values, one column a model input, in any order. Numbers become
            float32, as they did in training: integers beyond 2**24 are rounded.
        timeout_s: seconds to wait for each request.
    Returns:
        (n, outputs) in the target's own unit, same order and index as `frame`: the target's
        column; for a classification one `probability_…` column a class beside it.
    Raises:
        NotDeployedError: no model serves on the endpoint.
        SchemaError: a column or a value does not fit; nothing was sent.
        CloudError: refused, or not answered after several tries.
    Source: REST v1 projects.locations.endpoints.rawPredict
    """
    model = endpoint.model
    schema, answer = model.instance_schema, model.prediction_schema
    columns, n = check_columns(schema, frame), len(frame)
    limit = LIMIT_BYTES[bool(endpoint.host)]
    write = _packed if schema.get("x-packed") else _as_json
    probe = len(write(schema, columns, 0, min(n, PROBE_ROWS))) / min(n, PROBE_ROWS)
    rows = max(1, min(ROWS, int(0.8 * limit / probe)))

    def score(start: int, stop: int) -> pd.DataFrame:
        body = write(schema, columns, start, stop)
        if len(body) > limit and stop - start > 1:  # longer texts than at the frame's head
            middle = (start + stop) // 2
            return pd.concat([score(start, middle), score(middle, stop)])
        outputs = post(endpoint, "rawPredict", body, timeout_s=timeout_s)["outputs"]
        return _read(answer, outputs, frame.index[start:stop])

    if n <= rows:  # in this thread, whose connection is kept
        return score(0, n)
    starts = range(0, n, rows)
    pool = concurrent.futures.ThreadPoolExecutor(CONNECTIONS)
    try:
        parts = pool.map(score, starts, (min(start + rows, n) for start in starts))
        shown = {"desc": "predict", "unit": "part", "file": sys.stdout, "disable": len(starts) < 20}
        return pd.concat(list(tqdm(parts, total=len(starts), **shown)))
    finally:
        pool.shutdown(cancel_futures=True)  # an interrupt sends nothing more


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
    woken = []

    def patience(error: CloudError) -> int:
        if not (woken or (error.status == 429 and "scale-up from zero" in str(error))):
            return 0
        if not woken:
            print("The endpoint had scaled to zero; its machine starts again (minutes) …")
            woken.append(error)
        return WAKING if error.status in {0, *RETRIED} else 0

    method = f"aiplatform.projects.locations.endpoints.{verb}"
    return endpoint.session.post(
        f"{endpoint.url}:{verb}", body, method=method, timeout_s=timeout_s, host=endpoint.host,
        patience=patience,
    )  # fmt: skip


def check_columns(schema: dict, frame: pd.DataFrame) -> dict[str, np.ndarray]:
    """Check a frame against a model's inputs; each column as the model takes it, gaps filled in.

    Returns:
        name -> (n,) float64, or objects that are all `str`.
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
    return {name: _checked(name, schema, frame[name]) for name in wanted}


def encode_columns(schema: dict, frame: pd.DataFrame) -> dict[str, list]:
    """`check_columns`, with each column as JSON takes it."""
    return {name: values.tolist() for name, values in check_columns(schema, frame).items()}


def _checked(name: str, schema: dict, column: pd.Series) -> np.ndarray:
    about, sentinel = schema["properties"][name], schema["x-missing"]
    empty = column.isna().to_numpy()
    if empty.any() and not about["nullable"]:
        row = column.index[empty.argmax()]
        raise SchemaError(
            f'Column "{name}" is empty (NaN) in row {row}; the model was trained on data without '
            "gaps there. Fill it in, or drop the row."
        )
    if about["type"] == "string":
        return column.astype("string").fillna(sentinel["string"]).to_numpy(object)
    try:
        numbers = pd.to_numeric(column, errors="coerce").to_numpy("float64", na_value=np.nan)
    except TypeError:  # lists, dates and other objects
        numbers = np.full(len(column), np.nan)
    bad = ~empty & ~(np.abs(numbers) <= np.finfo("float32").max)
    if bad.any():
        row = bad.argmax()
        raise SchemaError(
            f'Column "{name}" holds {column.iloc[row]!r} in row {column.index[row]}; '
            "expected a number."
        )
    return np.where(empty, sentinel["number"], numbers)


def _as_json(schema: dict, columns: dict, start: int, stop: int) -> bytes:
    inputs = {name: values[start:stop].tolist() for name, values in columns.items()}
    return json.dumps({"inputs": inputs}, separators=(",", ":")).encode()


def _packed(schema: dict, columns: dict, start: int, stop: int) -> bytes:
    """A block of little-endian float32, a row's columns together (see `helpers.export`)."""
    block = np.column_stack([values[start:stop] for values in columns.values()]).astype("<f4")
    rows = base64.b64encode(block.tobytes())
    head = json.dumps({"signature_name": schema["x-packed"]})[:-1].encode()
    return head + b',"inputs":{"rows":[{"b64":"' + rows + b'"}]}}'


def _read(schema: dict, outputs, index: pd.Index) -> pd.DataFrame:
    """What a server answered to `_as_json` or `_packed`, as a frame."""
    names = list(schema.get("properties", [schema["title"]]))
    if isinstance(outputs, list) and isinstance(outputs[0], dict):
        # a serialized tensor; its content comes last
        content = base64.b64decode(outputs[0]["b64"])
        width = max(1, len(names) - 1)
        values = np.frombuffer(content[-4 * width * len(index) :], "<f4").reshape(-1, width)
        frame = pd.DataFrame(values.astype("float64"), index=index, columns=names[-width:])
        if len(names) > 1:
            classes = np.array(schema["properties"][names[0]]["enum"], object)
            frame.insert(0, names[0], classes[values.argmax(axis=1)])
        return frame
    if len(names) == 1:
        return pd.DataFrame({names[0]: np.asarray(outputs, "float64")}, index=index)
    return pd.DataFrame(outputs, index=index)[names]
