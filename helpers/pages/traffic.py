"""Requests and latency of an endpoint's last minutes, as Cloud Monitoring has them."""

import datetime

from helpers.errors import CloudError
from helpers.pages import drawings
from helpers.pages.views import Session

MINUTES = 15
COUNT = "aiplatform.googleapis.com/prediction/online/response_count"
LATENCY = "aiplatform.googleapis.com/prediction/online/prediction_latencies"


def minutes(session: Session, endpoint: str) -> dict | None:
    """Requests a minute and their mean latency; None where monitoring can't be asked.

    Source: REST v3 projects.timeSeries.list
    """
    now = datetime.datetime.now(datetime.UTC)
    counts, times, last = [0] * MINUTES, [[] for _ in range(MINUTES)], ""
    try:
        for series in _series(session, COUNT, endpoint, now):
            for point in series["points"]:
                place, value = _minute(point, now), int(point["value"]["int64Value"])
                if place is not None and value:
                    counts[place] += value
                    last = max(last, point["interval"]["endTime"])
        for series in _series(session, LATENCY, endpoint, now):
            for point in series["points"]:
                place, value = _minute(point, now), point["value"]["distributionValue"]
                if place is not None and int(value.get("count", 0)):
                    times[place].append((int(value["count"]), value["mean"]))
    except CloudError as error:
        if error.status in (403, 404, 501):
            return None
        raise
    ago = range(-MINUTES + 1, 1)
    means = [sum(n * m for n, m in t) / sum(n for n, _ in t) if t else None for t in times]
    lines = [(x, y) for x, y in zip(ago, means, strict=True) if y is not None]
    return {
        "count": sum(counts), "minutes": MINUTES, "last": last,
        "requests": drawings.chart({"requests": list(zip(ago, counts, strict=True))}, x="minutes"),
        "latency": drawings.chart(
            {"mean latency": lines}, x="minutes", unit="ms", span=(ago[0], 0)
        ),
    }  # fmt: skip


def _series(session: Session, metric: str, endpoint: str, now: datetime.datetime) -> list[dict]:
    start = now - datetime.timedelta(minutes=MINUTES)
    chosen = f'metric.type="{metric}" AND resource.labels.endpoint_id="{endpoint}"'
    collection = session.service("monitoring", "v3").projects().timeSeries()
    return session.list(
        collection, "timeSeries", name=f"projects/{session.project}", filter=chosen,
        interval_startTime=start.isoformat(), interval_endTime=now.isoformat(),
    )  # fmt: skip


def _minute(point: dict, now: datetime.datetime) -> int | None:
    end = datetime.datetime.fromisoformat(point["interval"]["endTime"])
    passed = max(0, int((now - end).total_seconds() // 60))  # the minute under way ends later
    return MINUTES - 1 - passed if passed < MINUTES else None
