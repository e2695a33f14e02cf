"""What training, tuning and batch prediction jobs share: created once, followed to their end."""

import datetime
import re
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from tqdm import tqdm

from helpers.cloud import accounts, grants
from helpers.cloud.client import Session
from helpers.cloud.names import check_labels, number
from helpers.cloud.resources import of_name
from helpers.errors import SettingError

ENDED = {
    "JOB_STATE_SUCCEEDED", "JOB_STATE_FAILED", "JOB_STATE_CANCELLED", "JOB_STATE_EXPIRED",
    "JOB_STATE_PARTIALLY_SUCCEEDED",
}  # fmt: skip


@dataclass(frozen=True)
class Run:
    """A job of the collection `kind`."""

    kind: ClassVar[str]
    session: Session = field(repr=False)
    name: str

    @property
    def number(self) -> str:
        """The job's id, the last part of its name."""
        return number(self.name)

    @property
    def state(self) -> str:
        """RUNNING, SUCCEEDED, FAILED, …, as the service says it now."""
        return self.resource()["state"].removeprefix("JOB_STATE_")

    def resource(self) -> dict:
        """The job as the API shows it."""
        return self.session.call(self.session.collection(self.kind).get(name=self.name))

    def cancel(self) -> None:
        """Ask the job to stop; it saves what it has within the grace time."""
        jobs = self.session.collection(self.kind)
        self.session.call(jobs.cancel(name=self.name), repeatable=True)

    def follow(self) -> Iterator[dict]:
        """The job as it is, again and again until it has ended; a line at each change of state."""
        shown, start_s = "", time.monotonic()
        while shown not in ENDED:
            time.sleep(min(0.1 + (time.monotonic() - start_s) / 100, 5) if shown else 0)
            job = self.resource()
            if job["state"] != shown:
                shown, clock = job["state"], _clock(elapsed_s(job))
                state = shown.removeprefix("JOB_STATE_")
                tqdm.write(f"job {self.number} {state} {clock}", file=sys.stdout)
            yield job


def _clock(seconds: float) -> str:
    """`09:05`, `1:02:03`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes:02}:{rest:02}"


def follow_epochs(job) -> dict:
    """Draw the epochs until the job has ended, and give the job as it is then."""
    seen, since, bar = set(), "", None
    for resource in job.follow():  # noqa: B007 - the last one is what it gives
        for entry in job.logs(since=since):
            if entry["insertId"] in seen:
                continue
            seen.add(entry["insertId"])
            since = entry["timestamp"]
            text = entry.get("textPayload") or entry.get("jsonPayload", {}).get("message", "")
            epoch = re.match(r"Epoch (\d+)/(\d+)", text)
            if epoch:
                bar = bar or tqdm(total=int(epoch[2]), desc="epochs", unit="epoch", file=sys.stdout)
                bar.update(int(epoch[1]) - bar.n)
    if bar:
        bar.close()
    return resource


def create(session: Session, kind: str, body: dict) -> str:
    """Create a job, once; its name.

    Args:
        body: its display name must be unique to this call.
    """

    def find() -> dict | None:
        return next(iter(of_name(session, kind, body["displayName"])), None)

    request = session.collection(kind).create(parent=session.parent, body=body)
    return session.create(request, find, grants.patience(session))["name"]


def elapsed_s(job: dict) -> float:
    """How long a job has run, or ran."""
    start = datetime.datetime.fromisoformat(job.get("startTime", job["createTime"]))
    end = job.get("endTime")
    end = datetime.datetime.fromisoformat(end) if end else datetime.datetime.now(datetime.UTC)
    return (end - start).total_seconds()


def outcome(job: dict) -> tuple[str, str]:
    """How a job ended, such as "failed", and the reason that the service gives."""
    state = job["state"].removeprefix("JOB_STATE_").lower()
    return state, job.get("error", {}).get("message", "no reason given")


def machine_spec(machine_type: str, accelerator: str | None = None, count: int = 1) -> dict:
    """A machine as the service takes it; without an accelerator the field must stay out."""
    added = {"acceleratorType": accelerator, "acceleratorCount": count} if accelerator else {}
    return {"machineType": machine_type} | added


def new_name(session: Session, name: str) -> tuple[str, str]:
    """Display name of a job about to be made, and its folder, `gs://BUCKET/jobs/…`."""
    started = datetime.datetime.now(datetime.UTC).strftime("%Y%m%d-%H%M%S")
    name, mark = name[:100], uuid.uuid4().hex[:6]  # a display name may have 128 characters
    return f"{name}-{started}-{mark}", f"gs://{session.bucket}/jobs/{started}-{name}-{mark}"


def job_spec(
    session: Session,
    pools: list[dict],
    base_uri: str,
    timeout_s: int,
    spot: bool = False,
    service_account: str = "",
) -> dict:
    """What every run of a job is like, as the service takes it."""
    scheduling = {"timeout": f"{timeout_s}s", "strategy": "SPOT" if spot else "STANDARD"}
    if len(pools) > 1:  # several workers go on together or not at all
        scheduling["restartJobOnWorkerRestart"] = True
    specification = {
        "workerPoolSpecs": pools,
        "scheduling": scheduling,
        "baseOutputDirectory": {"outputUriPrefix": base_uri},
    }
    account = service_account or accounts.find(session, accounts.RUN_AS)
    return specification | ({"serviceAccount": account} if account else {})


def check(
    machine_type: str, labels: dict[str, str], *, workers: int = 0, timeout_s: int = 60
) -> None:
    """Refuse what the service would refuse, before anything is made."""
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)+", machine_type):
        raise SettingError(f'machine_type="{machine_type}"; expected a name such as n1-standard-4.')
    if workers < 0:
        raise SettingError(f"workers={workers}; expected 0 (one machine) or more.")
    if timeout_s < 60:
        raise SettingError(f"timeout_s={timeout_s}; expected at least 60 seconds.")
    check_labels(labels)
