"""What training, tuning and batch prediction jobs share: made once, followed to their end."""

import datetime
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from tqdm import tqdm

from helpers.cloud.client import Session
from helpers.cloud.resources import of_name
from helpers.errors import SettingError

ENDED = {
    "JOB_STATE_SUCCEEDED", "JOB_STATE_FAILED", "JOB_STATE_CANCELLED", "JOB_STATE_EXPIRED",
    "JOB_STATE_PARTIALLY_SUCCEEDED",
}  # fmt: skip
LABEL = re.compile(r"[a-z0-9_-]{0,63}")


@dataclass(frozen=True)
class Run:
    """A job of the collection `kind`."""

    kind: ClassVar[str]
    session: Session = field(repr=False)
    name: str

    @property
    def number(self) -> str:
        """The job's id, the last part of its name."""
        return self.name.rsplit("/", 1)[-1]

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
            time.sleep(min(0.1 + (time.monotonic() - start_s) / 50, 5) if shown else 0)
            job = self.resource()
            if job["state"] != shown:
                shown, clock = job["state"], time.strftime("%M:%S", time.gmtime(elapsed_s(job)))
                state = shown.removeprefix("JOB_STATE_")
                tqdm.write(f"job {self.number} {state} {clock}", file=sys.stdout)
            yield job


def create(session: Session, kind: str, body: dict) -> str:
    """Create a job, once; its name.

    Args:
        body: its display name must be of this call alone.
    """

    def find() -> dict | None:
        return next(iter(of_name(session, kind, body["displayName"])), None)

    request = session.collection(kind).create(parent=session.parent, body=body)
    return session.create(request, find)["name"]


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
    for key, value in labels.items():
        if not (re.match("[a-z]", key) and LABEL.fullmatch(key) and LABEL.fullmatch(str(value))):
            raise SettingError(
                f'Label {key}="{value}" is not usable; expected at most 63 of a-z 0-9 _ - '
                "(a key starts with a letter)."
            )
