"""Cloud Monitoring of endpoints: requests and their latency by the minute.

Only what this run of the server has seen, of the last hour; one point a minute, none for a minute
without a request.
"""

import datetime
import time
from collections.abc import Iterator

from helpers.emulator.front.calls import ApiError, Call, method, page

COUNT = "aiplatform.googleapis.com/prediction/online/response_count"
LATENCY = "aiplatform.googleapis.com/prediction/online/prediction_latencies"
KEPT_MINUTES = 60
# (endpoint, deployed model's id) → minute → HTTP status → [answers, milliseconds of all]
_seen: dict[tuple[str, str], dict[int, dict[int, list[float]]]] = {}


def record(endpoint: str, deployed_id: str, status: int, took_s: float) -> None:
    """Count an answer; called by the event loop alone."""
    minute, minutes = int(time.time() // 60), _seen.setdefault((endpoint, deployed_id), {})
    if minute not in minutes:
        for old in [each for each in minutes if each < minute - KEPT_MINUTES]:
            del minutes[old]
    slot = minutes.setdefault(minute, {}).setdefault(status, [0, 0.0])
    slot[0] += 1
    slot[1] += 1000 * took_s


@method("monitoring.projects.timeSeries.list")
def listed(call: Call) -> dict:
    """Time series that the filter chooses, the newest point first."""
    if not call.query.get("filter") or not call.query.get("interval.endTime"):
        raise ApiError(400, "Fields filter and interval.endTime must be set.")
    if call.query.get("orderBy"):
        raise ApiError(400, "Field order_by is unsupported: it must be left blank.")
    end = _unix(call.query["interval.endTime"])
    start = _unix(call.query.get("interval.startTime") or call.query["interval.endTime"])
    project = call.path["name"].split("/")[1]
    found = [series for series in _series(project, start, end) if series["points"]]
    if call.query.get("view") == "HEADERS":
        found = [{k: v for k, v in series.items() if k != "points"} for series in found]
    return page(call, found, "timeSeries")


def _series(project: str, start: float, end: float) -> Iterator[dict]:
    for (endpoint, deployed_id), minutes in list(_seen.items()):
        _, owner, _, location, _, endpoint_id = endpoint.split("/")
        if owner != project:
            continue
        labels = {"project_id": project, "location": location, "endpoint_id": endpoint_id}
        resource = {"type": "aiplatform.googleapis.com/Endpoint", "labels": labels}
        chosen = [
            (minute, dict(slots)) for minute, slots in sorted(minutes.items(), reverse=True)
            if start <= min(60 * minute + 60, time.time()) <= end + 60
        ]  # fmt: skip
        for status in sorted({status for _, slots in chosen for status in slots}):
            points = [
                _point(minute, {"int64Value": str(slots[status][0])})
                for minute, slots in chosen if status in slots
            ]  # fmt: skip
            about = {"deployed_model_id": deployed_id, "response_code": str(status)}
            yield _one(COUNT, about, resource, "INT64", points)
        points = []
        for minute, slots in chosen:
            count = sum(slot[0] for slot in slots.values())
            mean = sum(slot[1] for slot in slots.values()) / count
            value = {"distributionValue": {"count": str(count), "mean": mean}}
            points.append(_point(minute, value))
        about = {"deployed_model_id": deployed_id, "latency_type": "total"}
        yield _one(LATENCY, about, resource, "DISTRIBUTION", points)


def _one(metric: str, labels: dict, resource: dict, kind: str, points: list[dict]) -> dict:
    return {
        "metric": {"type": metric, "labels": labels}, "resource": resource,
        "metricKind": "DELTA", "valueType": kind, "points": points,
    }  # fmt: skip


def _point(minute: int, value: dict) -> dict:
    """The minute under way ends now."""
    ends = [60 * minute, min(60 * minute + 60, time.time())]
    start, end = (
        datetime.datetime.fromtimestamp(at, datetime.UTC).isoformat().replace("+00:00", "Z")
        for at in ends
    )
    return {"interval": {"startTime": start, "endTime": end}, "value": value}


def _unix(moment: str) -> float:
    return datetime.datetime.fromisoformat(moment).timestamp()
