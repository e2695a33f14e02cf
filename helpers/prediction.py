"""Score rows online; and the 2020 article's own call."""

import concurrent.futures
import itertools
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from helpers.connection import last
from helpers.endpoints import Endpoint, find_endpoint
from helpers.errors import NotDeployedError, NotFoundError
from helpers.inputs import new_rows, requests
from helpers.inputs.signature import DEFAULT
from helpers.project.online import post
from helpers.registry import find_model

LIMIT_BYTES = {True: 10_000_000, False: 1_500_000}  # request bodies: dedicated, shared endpoint
ROWS = 20_000  # in one request, at most: the wire stays busy and no answer waits long
CONNECTIONS = 4
PROBE_ROWS = 256


def predict(endpoint: Endpoint, values, *, signature: str = "", timeout_s: float = 60):
    """Score rows online: what `model.predict` takes, and what it gives.

    Rows of numbers travel as bytes, others as JSON columns: TensorFlow Serving's own contract
    either way. What is long goes in parts, a few at a time; only a part that failed is sent again.

    Args:
        endpoint: from `deploy` or `find_endpoint`.
        values: of a table's model a frame (n, features) of raw values, one column a model input,
            in any order; numbers become float32, as they did in training: integers beyond 2**24
            are rounded; a word for a gap (NA, null, …) is one. Of any other model an array, a
            list of texts, bytes or `Path`s of files, or a dict of these by the input's name
            (`endpoint.model.signatures` shows them).
        signature: another of the model's signatures by name.
        timeout_s: seconds to wait for each request.
    Returns:
        For a table's frame (n, outputs) in the target's own unit, same order and index: the
        target's column; for a classification one `probability_…` column a class beside it. Else
        an array (n, …), or of several outputs a dict of them by name, in alphabetical order: a
        SavedModel keeps no other.
    Raises:
        NotDeployedError: no model serves on the endpoint.
        SchemaError: a name, value, type or shape does not fit; nothing was sent.
        CloudError: refused, or not answered after several tries.
    Source: REST v1 projects.locations.endpoints.rawPredict
    """
    asked = requests.request(endpoint.model, values, signature)
    session, about = endpoint.session, {"host": endpoint.host, "timeout_s": timeout_s}
    limit, n, step = LIMIT_BYTES[bool(endpoint.host)], asked.rows, asked.step
    few = min(n, max(step, PROBE_ROWS // step * step))
    probe = len(asked.body(0, few)) / few
    rows = max(step, min(ROWS, int(0.8 * limit / probe)) // step * step)

    def score(start: int, stop: int) -> list:
        body = asked.body(start, stop)
        if len(body) > limit and stop - start > step:  # longer texts than at the head
            middle = requests.halves(asked, start, stop)
            return score(start, middle) + score(middle, stop)
        outputs = post(session, endpoint.url, "rawPredict", body, **about)["outputs"]
        return [asked.read(outputs, start, stop)]

    if n <= rows:  # in this thread, whose connection is kept
        return asked.join(score(0, n))
    starts = range(0, n, rows)
    return asked.join(_in_parts(score, starts, [min(start + rows, n) for start in starts]))


def _in_parts(score: Callable, *arguments) -> list:
    """Call for each part, some at a time; the lists they give, joined in order."""
    count = len(arguments[0])
    pool = concurrent.futures.ThreadPoolExecutor(CONNECTIONS)
    try:
        parts = pool.map(score, *arguments)
        shown = {"desc": "predict", "unit": "part", "file": sys.stdout, "disable": count < 20}
        return list(itertools.chain.from_iterable(tqdm(parts, total=count, **shown)))
    finally:
        pool.shutdown(cancel_futures=True)  # an interrupt sends nothing more


def predict_file(endpoint: Endpoint, source: str | Path) -> pd.DataFrame:
    """Score a file of new rows, and write the answers beside it as `…-predictions.csv`.

    Args:
        source: a path, URL or gs:// address of a CSV or JSON lines file, or of pictures: a folder,
            or a path with a `*`. Columns the model does not take are named and left aside; what
            a table's training took as missing (NA, None, null, …) is so here, too.
    Returns:
        The file's rows in their order, with all of its columns, then the answers.
    Raises:
        SchemaError: a column the model takes is missing, or a value does not fit.
        NotFoundError: there is no such file.
    """
    model, session, source = endpoint.model, endpoint.session, str(source)
    taken = model.signatures.get(DEFAULT) or next(iter(model.signatures.values()))
    found = new_rows.read(source, model.instance_schema, taken, session)
    frame = new_rows.with_answers(found, predict(endpoint, found.rows))
    print(f"Written: {new_rows.write(frame, source, session)} ({len(frame):,} rows)")
    return frame


def predict_json(project: str, model: str, instances, version: str | None = None) -> list:
    """The 2020 article's call, argument for argument, on today's service.

    Args:
        project: must be the project of the last `connect()`.
        model: an endpoint's display name.
        instances: one dict or a list of them, as TensorFlow Serving's row form takes them; or an
            array, one row each. What is long goes in parts.
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
    rows, limit = requests.instances(instances), LIMIT_BYTES[bool(endpoint.host)]
    if requests.is_renamed(rows):
        rows = requests.renamed(rows, endpoint.model.instance_schema)

    def score(start: int, stop: int) -> list:
        body = requests.instances_body(rows[start:stop])
        if len(body) > limit and stop - start > 1:
            middle = (start + stop) // 2
            return score(start, middle) + score(middle, stop)
        return post(session, endpoint.url, "predict", body, host=endpoint.host)["predictions"]

    return score(0, len(rows))
