"""What Google's filters find: of logs in their own language, of other lists in AIP-160's."""

import uuid

import pytest

from helpers.emulator.front.filters import compile_filter
from helpers.emulator.services.logs import SEVERITIES
from tests.emulator.conftest import until

LINES = """
import sys
print("Hello world")
print("second line, with a OR b")
print("it failed badly: 42", file=sys.stderr)
"""


@pytest.fixture(scope="module")
def jobs(emulator) -> list[str]:
    """Two jobs that printed the same three lines; their numbers."""
    return ran(emulator, LINES, 2)


def ran(emulator, code: str, count: int = 1) -> list[str]:
    """Jobs that have run a script; their numbers."""
    task = {"imageUri": "python:3.11", "command": ["python", "-c", code]}
    pool = {"machineSpec": {"machineType": "n1-standard-4"}, "replicaCount": "1"}
    spec = {"workerPoolSpecs": [pool | {"containerSpec": task}]}
    names = []
    for _ in range(count):
        body = {"displayName": f"filters-{uuid.uuid4().hex[:6]}", "jobSpec": spec}
        path = f"/v1/{emulator.parent}/customJobs"
        names.append(emulator.request("POST", path, json_body=body)[1]["name"])
    for name in names:
        until(lambda name=name: emulator.request("GET", f"/v1/{name}")[1]["state"].endswith("DED"))
    return [name.rpartition("/")[2] for name in names]


def found(emulator, text: str, **more) -> list[dict]:
    body = {"resourceNames": ["projects/local"], "filter": text, "pageSize": 1000} | more
    status, answer = emulator.request("POST", "/v2/entries:list", json_body=body)
    assert status == 200, answer
    return answer.get("entries", [])


def ids(entries: list[dict]) -> set[str]:
    return {entry["resource"]["labels"].get("job_id") for entry in entries}


def test_labels_of_a_resource_narrow_as_the_filter_says(emulator, jobs):
    one, two = (f'resource.labels.job_id="{job}"' for job in jobs)
    said = 'resource.labels.task_name="workerpool0-0"'
    for text, expected in {
        one: {jobs[0]}, f"{one} OR {two}": {*jobs}, f"{one} AND {two}": set(),
        f"{said} AND ({one} OR {two})": {*jobs}, f"resource.labels.job_id=({jobs[0]})": {jobs[0]},
        f'resource.labels.job_id=("{jobs[0]}" OR "{jobs[1]}")': {*jobs},
    }.items():  # fmt: skip
        assert ids(found(emulator, text)) == expected, text
    others = found(emulator, f"NOT {one}")
    assert jobs[1] in ids(others)
    assert jobs[0] not in ids(others)
    assert {*jobs} <= ids(found(emulator, said))
    assert {*jobs} <= ids(found(emulator, 'resource.labels.project_id="local"'))
    assert {*jobs} <= ids(found(emulator, f'NOT textPayload:"resource.labels.job_id={jobs[0]}"'))


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ('textPayload:"hello"', 1),
        ('textPayload:"a OR b"', 1),
        ('textPayload=~"^Hello"', 1),
        ('textPayload=~"^hello"', 0),
        ('textPayload!~"l"', 0),
        ('"HELLO"', 1),
        ('"hello" OR "failed"', 2),
        ("severity>=ERROR", 1),
        ("severity>=warning", 1),
        ("severity<ERROR", 2),
        ('severity=("ERROR" OR "INFO")', 3),
        ('severity="INFO" OR severity="ERROR" AND textPayload:"nothing of this"', 0),
        ('textPayload:"hello" OR NOT severity=INFO AND NOT textPayload:"second"', 2),
        ('textPayload:("hello" AND "world")', 1),
    ],
)
def test_lines_are_found_as_the_logging_language_says(emulator, jobs, text, lines):
    mine = f'resource.labels.job_id="{jobs[0]}" AND resource.labels.task_name="workerpool0-0"'
    assert len(found(emulator, f"{mine} AND ({text})")) == lines


def test_lines_that_come_between_two_pages_are_not_told_twice(emulator):
    mark = uuid.uuid4().hex
    code = f"for number in range(5): print('{mark}', number)"
    ran(emulator, code)
    body = {"resourceNames": ["projects/local"], "filter": f'textPayload:"{mark}"', "pageSize": 2,
            "orderBy": "timestamp desc"}  # fmt: skip
    _, first = emulator.request("POST", "/v2/entries:list", json_body=body)
    ran(emulator, code)  # the newest come first
    told, token = first["entries"], first["nextPageToken"]
    while token:
        more = body | {"pageToken": token}
        _, answer = emulator.request("POST", "/v2/entries:list", json_body=more)
        told += answer["entries"]
        token = answer.get("nextPageToken", "")
    assert [entry["textPayload"] for entry in told] == [f"{mark} {n}" for n in range(4, -1, -1)]
    for wrong in (
        {"pageToken": "x"},
        {"pageToken": first["nextPageToken"], "filter": "severity>INFO"},
    ):
        assert emulator.request("POST", "/v2/entries:list", json_body=body | wrong)[0] == 400


@pytest.mark.parametrize(
    "body",
    [
        {"pageSize": -1}, {"filter": "severity>=LOUD"}, {"filter": 'textPayload=~"("'},
        {"filter": 'a=("b" OR "c"'}, {"filter": 'a=("b" OR "c" AND "d")'},
    ],
)  # fmt: skip
def test_what_is_no_filter_of_logs_is_refused(emulator, body):
    body = {"resourceNames": ["projects/local"]} | body
    assert emulator.request("POST", "/v2/entries:list", json_body=body)[0] == 400


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("a=1 OR b=2 AND c=3", False),  # (a OR b) AND c
        ("c=4 AND a=1 OR b=9", True),
        ("(a=1 AND c=9) OR b=2", True),
        ("-a=1", False),
        ('name="Seen"', True),
        ('name="seen"', False),
        ("a=(1 OR 7)", True),
    ],
)
def test_or_binds_closer_than_and(text, holds):
    assert compile_filter(text)({"a": 1, "b": 2, "c": 4, "name": "Seen"}) is holds


@pytest.mark.parametrize("text", ["seen", 'a=~"x"', "a=(", "OR a=1"])
def test_what_only_logs_have_is_refused_elsewhere(text):
    with pytest.raises(ValueError, match="expected|logs|parenthesis"):
        compile_filter(text)


def test_severities_are_in_the_order_of_their_numbers():
    at_least = compile_filter("severity>=NOTICE", ranks={"severity": SEVERITIES})
    kept = [name for name in SEVERITIES if at_least({"severity": name})]
    assert kept == ["NOTICE", "WARNING", "ERROR", "CRITICAL", "ALERT", "EMERGENCY"]
