"""Run a notebook as a training job on Vertex AI: submit, follow, cancel."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from typing import ClassVar

from helpers.cells import staging
from helpers.cloud import storage
from helpers.cloud.client import Session
from helpers.cloud.jobs import (
    Run,
    check,
    create,
    elapsed_s,
    follow_epochs,
    job_spec,
    machine_spec,
    outcome,
)  # fmt: skip
from helpers.cloud.links import console
from helpers.cloud.names import LABELS, is_ours, number, slug
from helpers.cloud.resources import every
from helpers.errors import JobError, NotFoundError, near

_WHILE = {
    "local": "It runs on this machine: keep the machine on, and in Colab this tab open.",
    "google": "It runs at Google: this tab may be closed; helpers.find_job(session) finds it.",
}


@dataclass(frozen=True)
class Job(Run):
    """A training job; everything it leaves is below `base_uri`."""

    kind: ClassVar[str] = "customJobs"
    display_name: str
    base_uri: str

    @property
    def model_uri(self) -> str:
        """Folder of the exported model, `gs://…/model/`; TensorFlow's files are in its `1/`."""
        return f"{self.base_uri}/model/"

    @property
    def report_uri(self) -> str:
        """The executed notebook as a page."""
        return f"{self.base_uri}/report.html"

    @property
    def metrics(self) -> dict:
        """What the notebook measured (its metrics.json); {} when it wrote none."""
        try:
            return json.loads(storage.read_bytes(self.session, f"{self.base_uri}/metrics.json"))
        except NotFoundError:
            return {}

    @property
    def left(self) -> str:
        """The job's last line: the model it left and what else; "" while it has not succeeded."""
        try:
            return storage.read_bytes(self.session, f"{self.base_uri}/left.txt").decode()
        except NotFoundError:
            return ""

    def logs(self, *, since: str = "") -> Iterator[dict]:
        """The job's log entries, oldest first, as the logging API gives them.

        Args:
            since: RFC 3339 time; only entries from then on.
        """
        chosen = f'resource.type="ml_job" AND resource.labels.job_id="{self.number}"'
        return self.session.log(chosen + (f' AND timestamp>="{since}"' if since else ""))

    def wait(self) -> "Job":
        """Follow the job to its end: one line a change of state, a bar over the epochs.

        Raises:
            JobError: the job did not succeed; the reason and the executed notebook are named.
        """
        job = follow_epochs(self)
        if job["state"] != "JOB_STATE_SUCCEEDED":
            state, reason = outcome(job)
            raise JobError(
                f"Training job {self.number} {state} after {elapsed_s(job):.0f} s: {reason}\n"
                f"Everything it left: {self.base_uri}/",
                job=self,
            )
        if said := self.left:
            print(said)
        return self

    def _repr_html_(self) -> str:
        link = console(self.session, "job", self.number)
        return f'Training job <a href="{escape(link)}">{escape(self.display_name)}</a> {self.state}'


def train(
    session: Session,
    notebook: str,
    *,
    parameters: dict | None = None,
    files: list[str] | tuple[str, ...] = (),
    requirements: str | None = None,
    machine_type: str = "n1-standard-4",
    accelerator: str | None = None,
    workers: int = 0,
    spot: bool = False,
    timeout_s: int = 3600,
    labels: dict[str, str] | None = None,
    service_account: str = "",
    wait: bool = True,
) -> Job:
    """Run a notebook as a training job.

    Args:
        notebook: a path, a gs:// address or a template's name.
        parameters: values for its parameters cell; checked before anything is created. Files and
            folders that they or the notebook's defaults name are copied to the bucket, and the
            notebook gets their addresses: `helpers.fetch(DATA)` gives a path.
        files: modules, packages and other files for the job's working directory.
        requirements: a file of what to install beside the versions installed here.
        accelerator: such as "NVIDIA_TESLA_T4"; one a machine.
        workers: machines beside the chief; they share the work of a notebook that builds its model
            under `helpers.strategy().scope()`. BATCH_SIZE is that of all together.
        timeout_s: the service stops the job after this many seconds, and the bill with it.
        labels: up to 60 pairs of a-z 0-9 _ -.
        service_account: who the job runs as; "" takes the one `setup` made, else the default.
        wait: follow it to its end.
    Raises:
        SettingError: something is not usable; nothing was created.
        NotFoundError: a notebook, file or folder that is nowhere; nothing was created.
        JobError: it failed (with `wait`); the job is on the exception.
    Source: REST v1 projects.locations.customJobs.create
    """
    labels = dict(labels or {})
    check(machine_type, labels, workers=workers, timeout_s=timeout_s)
    work = staging.check(
        session, notebook, parameters, files=files, requirements=requirements, workers=workers
    )
    hours = (workers + 1) * timeout_s / 3600
    print(f"Machines: {workers + 1} × {machine_type}, at most {hours:g} h of machine time")
    staged = staging.stage(session, work, machine_spec(machine_type, accelerator))
    more = [staged.pool | {"replicaCount": str(workers)}] if workers else []
    job = submit(
        session, [staged.pool, *more], display_name=staged.display_name, base_uri=staged.base_uri,
        spot=spot, timeout_s=timeout_s, service_account=service_account,
        labels=labels | {"notebook": slug(work.file.name, also="_")},
    )  # fmt: skip
    return job.wait() if wait else job


def submit(
    session: Session,
    pools: list[dict],
    *,
    display_name: str,
    base_uri: str,
    timeout_s: int,
    labels: dict[str, str],
    spot: bool = False,
    service_account: str = "",
) -> Job:
    """Create a custom job of these worker pools, once, and print its link."""
    specification = job_spec(session, pools, base_uri, timeout_s, spot, service_account)
    body = {
        "displayName": display_name,
        "labels": labels | LABELS,
        "jobSpec": specification,
    }
    job = Job(session, create(session, "customJobs", body), display_name, base_uri)
    print(f"Job:      {console(session, 'job', job.number)}")
    print(_WHILE[session.cloud])
    return job


def find_job(session: Session, name: str = "") -> Job:
    """Pick a job up again by number or display name; without a name the newest made here.

    Raises:
        NotFoundError: no such job; the nearest name is given.
    """
    found = every(session, "customJobs")
    found.sort(key=lambda job: job["createTime"], reverse=True)
    for job in found:
        names = [job["displayName"], job["name"], number(job["name"])]
        if name in names or (not name and is_ours(job)):
            base_uri = job["jobSpec"].get("baseOutputDirectory", {}).get("outputUriPrefix", "")
            return Job(session, job["name"], job["displayName"], base_uri.rstrip("/"))
    hint = near(name, [job["displayName"] for job in found])
    local = session.cloud == "local" and not name
    here = " Or make one here: helpers.make_missing(session, job=True)" * local
    raise NotFoundError(
        f'No training job "{name}" in {session.location}.{hint} Run 02_train.ipynb.{here}'
    )
