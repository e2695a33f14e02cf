"""Prediction in bulk: as bytes or columns, in parts, in order, whatever happens on the way."""

import _thread
import concurrent.futures
import contextlib
import importlib
import itertools
import json
import os
import random
import signal
import threading
from pathlib import Path

import httplib2
import numpy as np
import pandas as pd
import psutil
import pytest
from tqdm import tqdm

import helpers
from helpers.errors import CloudError, NotFoundError, SchemaError

module = importlib.import_module("helpers.prediction")


@pytest.fixture
def numbers(session, artifact):
    """An endpoint whose model takes two numbers."""
    try:
        return helpers.find_endpoint(session, "numbers")
    except NotFoundError:
        return helpers.deploy(
            session, helpers.register(session, artifact("numbers"), name="numbers")
        )


@pytest.fixture
def mixed(session, artifact):
    """An endpoint whose model takes a number and a text."""
    try:
        return helpers.find_endpoint(session, "mixed")
    except NotFoundError:
        return helpers.deploy(session, helpers.register(session, artifact(), name="mixed"))


def frame(rows: int, second: str = "two") -> pd.DataFrame:
    draw = np.random.default_rng(5)
    made = pd.DataFrame({"size": draw.uniform(10, 50, rows)})
    made[second] = draw.choice([0.0, 1.0] if second == "two" else ["a", "b"], rows)
    return made


def in_rows(endpoint, rows: pd.DataFrame) -> pd.DataFrame:
    """What other people's clients get: TensorFlow Serving's row form."""
    return pd.DataFrame(helpers.predict_json("local", endpoint.name, rows.to_dict("records")))


def test_bytes_columns_and_rows_give_the_same_answers(numbers, mixed):
    rows = frame(300)
    packed, plain = helpers.predict(numbers, rows), in_rows(numbers, rows)
    assert list(packed.columns) == [
        "price",
        "probability_high",
        "probability_low",
        "probability_middle",
    ]
    np.testing.assert_allclose(packed.iloc[:, 1:], plain[packed.columns[1:]], rtol=1e-6, atol=1e-9)
    assert packed["price"].tolist() == plain["price"].tolist()
    assert packed["price"].nunique() > 1
    rows = frame(300, "kind")
    answers = in_rows(mixed, rows)[0]
    np.testing.assert_allclose(helpers.predict(mixed, rows)["price"], answers, rtol=1e-6)


def test_any_column_name_reaches_the_endpoint(session, artifact, trained):
    """Clients send the table's own names, online, as instances and in batch."""
    model = helpers.register(session, artifact("names"), name="names")
    endpoint = helpers.deploy(session, model)
    rows, known = model.examples.rows, pd.read_json(trained / "names-answers.json")
    assert list(rows.columns) == model.instance_schema["required"]
    assert len(rows.columns) >= 200
    assert {"class", "", "x" * 300, "a/b", "self"} <= set(rows.columns)
    answers = helpers.predict(endpoint, rows)
    np.testing.assert_allclose(answers.to_numpy(), known.to_numpy(), rtol=1e-4)
    whole = rows.notna().all(axis=1).to_numpy()  # JSON has no NaN
    plain = helpers.predict_json("local", "names", rows[whole].to_dict("records"))
    np.testing.assert_allclose(plain, known.to_numpy()[whole, 0], rtol=1e-4)
    batch = helpers.batch_predict(session, model, rows)
    np.testing.assert_allclose(batch.to_numpy(), known.to_numpy(), rtol=1e-4)
    helpers.cleanup(session, name="names")


def test_the_schema_says_how_rows_are_packed(numbers, mixed):
    names = {one.model.instance_schema["x-packed"] for one in (numbers, mixed)}
    assert len(names) == 2
    assert all(name.startswith("packed_") for name in names)


def test_texts_of_any_kind_arrive_as_they_are(mixed):
    """Each is sent once, and found by its place; also what only looks equal."""
    odd = ["", "ünïcode €", 'a "quoted" \\', "line\nbreak", "\x00", "x" * 3000, "a", "b", "A"]
    rows = pd.concat([frame(3, "kind")] * 9, ignore_index=True)
    rows["kind"] = odd * 3
    np.testing.assert_allclose(helpers.predict(mixed, rows)["price"], in_rows(mixed, rows)[0], 1e-6)
    loose = rows.head(6).assign(kind=[1, True, 1.0, "1", None, np.nan])
    plain = rows.head(6).assign(kind=["1", "True", "1.0", "1", "", ""])
    pd.testing.assert_frame_equal(helpers.predict(mixed, loose), helpers.predict(mixed, plain))
    gaps = rows.head(6).assign(kind=["NA", "null", "?", "None", "nan", None])
    pd.testing.assert_frame_equal(
        helpers.predict(mixed, gaps), helpers.predict(mixed, gaps.assign(kind=""))
    )
    pd.testing.assert_frame_equal(  # pandas has codes beside a gap as floats
        helpers.predict(mixed, gaps.assign(kind=[1, 2, 3, 4, 5, np.nan])),
        helpers.predict(mixed, gaps.assign(kind=["1", "2", "3", "4", "5", ""])),
    )
    rows = rows[rows["kind"] != "\x00"]  # for pandas' categories a text ends there
    for kind in ("category", "string"):
        pd.testing.assert_frame_equal(
            helpers.predict(mixed, rows.astype({"kind": kind})), helpers.predict(mixed, rows)
        )


@pytest.mark.parametrize("second", ["two", "kind"])
def test_long_frames_go_in_parts_and_keep_order_and_index(numbers, mixed, second):
    endpoint = numbers if second == "two" else mixed
    rows = frame(50_000, second)
    rows.index = np.arange(50_000) // 2  # an index may repeat
    scores = helpers.predict(endpoint, rows)
    assert scores.index.equals(rows.index)
    for start in (0, 19_999, 49_900):
        part = helpers.predict(endpoint, rows.iloc[start : start + 100])
        column = part.columns[-1]
        np.testing.assert_allclose(
            scores[column].iloc[start : start + 100], part[column], rtol=1e-6, atol=1e-9
        )


def test_texts_longer_than_at_the_head_are_split_again(mixed, monkeypatch):
    monkeypatch.setattr(module, "LIMIT_BYTES", {True: 100_000, False: 100_000})
    rows = frame(2_000, "kind")
    rows.loc[1_500:, "kind"] = "x" * 900
    assert len(helpers.predict(mixed, rows)) == 2_000


def test_booleans_integers_and_gaps(numbers):
    rows = pd.DataFrame({"two": [True, False, True], "size": pd.array([20, None, 30], "Int64")})
    plain = pd.DataFrame({"size": [20.0, np.nan, 30.0], "two": [1.0, 0.0, 1.0]})
    pd.testing.assert_frame_equal(helpers.predict(numbers, rows), helpers.predict(numbers, plain))
    words = rows.astype(object).assign(size=[20, "n/a", "30"])
    pd.testing.assert_frame_equal(helpers.predict(numbers, words), helpers.predict(numbers, plain))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (np.inf, "holds inf in row 7"),
        (1e39, "in row 7; expected a number"),
        ("many", "holds 'many' in row 7"),
        ([1, 2], r"holds \[1, 2\] in row 7"),
    ],
)
def test_a_value_that_is_no_number_is_named_before_anything_is_sent(numbers, value, said):
    rows = frame(10).astype(object)
    rows.at[7, "size"] = value
    with pytest.raises(SchemaError, match=f'Column "size" {said}' if "holds" in said else said):
        helpers.predict(numbers, rows)


def test_integers_beyond_float32_are_rounded_as_in_training(numbers):
    rows = pd.DataFrame({"size": [2**24, 2**24 + 1], "two": [0, 1]})
    exact = rows.assign(size=np.float32(2**24), two=rows["two"].astype(float))
    pd.testing.assert_frame_equal(helpers.predict(numbers, rows), helpers.predict(numbers, exact))


def test_an_answer_that_is_no_text_says_which_name_would_make_it_one(numbers, monkeypatch):
    helpers.predict(numbers, frame(1))  # all else is known
    answer = httplib2.Response({"status": 200}), b'{"outputs": "\xff"}'  # as TensorFlow Serving's
    monkeypatch.setattr(httplib2.Http, "request", lambda *_, **__: answer)
    with pytest.raises(CloudError, match="is no UTF-8 text.* ends in _bytes"):
        helpers.predict(numbers, frame(1))


# An interrupt that meets an object's finalizer is dropped by Python, with a word about it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_sends_nothing_more(numbers, monkeypatch):
    sent, post = [], module.post

    def interrupted(*arguments, **more):
        sent.append(1)
        if len(sent) in (5, 25, 45):  # one may be dropped
            _thread.interrupt_main()
        return post(*arguments, **more)

    monkeypatch.setattr(module, "post", interrupted)
    monkeypatch.setattr(module, "ROWS", 100)
    rows = frame(20_000)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # test workers ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            helpers.predict(numbers, rows)
    finally:
        signal.signal(signal.SIGINT, before)
        tqdm.set_lock(threading.RLock())  # the interrupt may have come while the bar held it
    assert len(sent) < 100  # of 200 parts


def test_a_model_that_changed_its_inputs_is_refused_not_misread(numbers):
    """The same number of columns under other names: bytes alone would not show it."""
    rows = {"rows": [{"b64": "AAAAAAAAAAA="}]}
    known = numbers.model.instance_schema["x-packed"]
    session, url = numbers.session, numbers.url

    def post(body: str) -> dict:
        return module.post(session, url, "rawPredict", body, host=numbers.host)

    assert post(json.dumps({"signature_name": known, "inputs": rows}))
    body = json.dumps({"signature_name": "packed_00000000", "inputs": rows})
    with pytest.raises(CloudError, match="packed_00000000.*not found"):
        post(body)


def test_a_server_that_dies_on_the_way_loses_no_row(numbers):
    """kill -9 of the model server under load: every row answered once, in order."""
    rows = frame(60_000)
    expected = helpers.predict(numbers, rows)
    done = threading.Event()

    def kill() -> None:
        for _ in range(2):
            done.wait(0.05)
            for process in psutil.process_iter(["cmdline"]):
                words = process.info["cmdline"] or []
                with contextlib.suppress(psutil.NoSuchProcess):
                    if any(w.endswith("model_server.py") for w in words) and _is_ours(process):
                        process.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    scores = helpers.predict(numbers, rows)
    done.set()
    killer.join()
    pd.testing.assert_frame_equal(scores, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("clients", "rows"), [(8, 5_000), pytest.param(32, 31_250, marks=pytest.mark.soak)]
)
def test_every_row_is_answered_once_while_versions_switch_and_calls_fail(
    session, artifact, monkeypatch, clients, rows
):
    """Clients under way, traffic given back and forth, every twentieth call lost."""
    name = f"switched-{clients}"
    first = helpers.register(session, artifact("numbers"), name=name)
    second = helpers.register(session, artifact("other"), name=name)
    endpoint = helpers.deploy(session, first)
    frames = [frame(rows).assign(size=lambda f, n=n: f["size"] + n / 7) for n in range(clients)]
    expected = {1: [helpers.predict(endpoint, f).iloc[:, 1:].to_numpy() for f in frames]}
    endpoint = helpers.deploy(session, second)
    expected[2] = [helpers.predict(endpoint, f).iloc[:, 1:].to_numpy() for f in frames]
    assert not np.allclose(expected[1][0], expected[2][0], atol=0.01)

    calls, lock, request = itertools.count(1), threading.Lock(), httplib2.Http.request

    def lossy(self, uri, *arguments, **more):
        with lock:
            lost = next(calls) % 20 == 0 and ":rawPredict" in uri
        if lost and random.random() < 0.5:
            raise ConnectionResetError("lost before it arrived")
        answer = request(self, uri, *arguments, **more)
        if lost:
            raise ConnectionResetError("lost on the way back")
        return answer

    monkeypatch.setattr(httplib2.Http, "request", lossy)
    monkeypatch.setattr(module, "ROWS", 500)
    done = threading.Event()

    def switch() -> None:
        while not done.is_set():
            helpers.roll_back(session, name=name)
            helpers.promote(session, second)

    switcher = threading.Thread(target=switch)
    switcher.start()
    try:
        with concurrent.futures.ThreadPoolExecutor(clients) as pool:
            answers = list(pool.map(lambda f: helpers.predict(endpoint, f), frames))
    finally:
        done.set()
        switcher.join()
    by = {1: 0, 2: 0}
    for n, answer in enumerate(answers):
        assert len(answer) == rows
        got = answer.iloc[:, 1:].to_numpy()
        fits = {v: np.isclose(got, expected[v][n], atol=1e-6).all(axis=1) for v in (1, 2)}
        assert (fits[1] | fits[2]).all()
        by = {v: by[v] + fits[v].sum() for v in (1, 2)}
    assert min(by.values()) > 0
    helpers.cleanup(session, name=name)


def _is_ours(process: psutil.Process) -> bool:
    """A model server of this worker's local cloud, not of another's."""
    known = json.loads(Path(os.environ["LOCAL_CLOUD_DIR"], "emulator.json").read_text())
    return known["pid"] in {above.pid for above in process.parents()}
