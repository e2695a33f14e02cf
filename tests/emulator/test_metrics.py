"""What Cloud Monitoring says of an endpoint, and the log's windows of time."""

import datetime

import pytest
from googleapiclient.errors import HttpError

from helpers.emulator.services import logs, metrics

NOW = datetime.datetime(2026, 11, 28, 0, 0, 30, tzinfo=datetime.UTC)


@pytest.fixture
def seen(monkeypatch):
    """An endpoint that was asked three times, once of it in vain, within two minutes."""
    monkeypatch.setattr(metrics, "_seen", {})
    for at, status, took_s in [(-60, 200, 0.01), (0, 200, 0.03), (0, 400, 0.05)]:
        monkeypatch.setattr(metrics.time, "time", lambda at=at: NOW.timestamp() + at)
        metrics.record("projects/p/locations/l/endpoints/e", "7", status, took_s)
    return list(metrics._series("p", NOW.timestamp() - 600, NOW.timestamp()))


def test_answers_are_counted_by_status_and_minute(seen):
    counts = {
        series["metric"]["labels"]["response_code"]: [
            point["value"]["int64Value"] for point in series["points"]
        ]
        for series in seen if series["metric"]["type"] == metrics.COUNT
    }  # fmt: skip
    assert counts == {"200": ["1", "1"], "400": ["1"]}
    (latency,) = [series for series in seen if series["metric"]["type"] == metrics.LATENCY]
    values = [point["value"]["distributionValue"] for point in latency["points"]]
    assert [(v["count"], round(v["mean"])) for v in values] == [("2", 40), ("1", 10)]
    assert latency["points"][0]["interval"]["endTime"] == "2026-11-28T00:00:30Z"
    assert list(metrics._series("q", 0, NOW.timestamp())) == []


def test_what_google_refuses_is_refused(emulator):
    series = emulator.session.service("monitoring", "v3").projects().timeSeries()
    with pytest.raises(HttpError, match="400"):
        series.list(name="projects/local", filter='metric.type="x"').execute()
    chosen = {"name": "projects/local", "filter": 'metric.type="x"',
              "interval_endTime": "2026-11-28T00:00:00Z"}  # fmt: skip
    assert series.list(**chosen).execute() == {}
    folder = emulator.session.service("cloudresourcemanager", "v3").projects()
    assert folder.get(name="projects/local").execute()["projectId"] == "local"


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ('timestamp>="2026-11-28T00:00:00Z"', b"2026-11-28T00:00:00.000000Z", b"~"),
        ('a="b" AND timestamp <= "2026-11-28T01:00:00+01:00"', b"", b"2026-11-28T00:00:00.000000Z"),
        ('timestamp>"2026-11-28T00:00:00Z" OR a="b"', b"", b"~"),
        ('NOT timestamp>"2026-11-28T00:00:00Z"', b"", b"~"),
        ('-timestamp>"2026-11-28T00:00:00Z"', b"", b"~"),
        ('timestamp>="yesterday"', b"", b"~"),
    ],
)
def test_a_filter_that_plainly_bounds_the_time_spares_reading(text, first, last):
    assert logs._within(logs._plain(text)) == (first, last)
