"""Run a notebook as a training job on Vertex AI: submit, follow, cancel."""

import datetime
import json
import re
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import ClassVar

from tqdm import tqdm

from helpers.cells.code import submits_itself
from helpers.cells.parameters import read
from helpers.cloud import accounts, images, storage
from helpers.cloud.client import Session
from helpers.cloud.jobs import Run, check, create, elapsed_s, machine_spec, outcome
from helpers.cloud.links import console
from helpers.errors import JobError, NotFoundError, SettingError, near
from helpers.inputs.table import find_files
from helpers.notebooks import NotebookFile, check_parameters, find_notebook

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
        """What the notebook measured (its metrics.json)."""
        return json.loads(storage.read_bytes(self.session, f"{self.base_uri}/metrics.json"))

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
        job = _follow(self)
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
        parameters: values for its parameters cell; checked before anything is created. A file
            named by DATA is copied to the bucket first.
        accelerator: such as "NVIDIA_TESLA_T4"; one a machine.
        workers: machines beside the chief; they share the work of a notebook that builds its model
            under `helpers.strategy().scope()`. BATCH_SIZE is that of all together.
        timeout_s: the service stops the job after this many seconds, and the bill with it.
        labels: up to 60 pairs of a-z 0-9 _ -.
        service_account: who the job runs as; "" takes the one `setup` made, else the default.
        wait: follow it to its end.
    Raises:
        SettingError: something is not usable; nothing was created.
        JobError: it failed (with `wait`); the job is on the exception.
    Source: REST v1 projects.locations.customJobs.create
    """
    labels = dict(labels or {})
    check(machine_type, labels, workers=workers, timeout_s=timeout_s)
    file, parameters = look_up(session, notebook, parameters)
    if workers:
        _check_shared(file)
    hours = (workers + 1) * timeout_s / 3600
    print(f"Machines: {workers + 1} × {machine_type}, at most {hours:g} machine-hours")
    machine = machine_spec(machine_type, accelerator)
    display_name, base_uri, pool = stage(session, file, parameters, machine)
    pools = [pool, pool | {"replicaCount": str(workers)}] if workers else [pool]
    job = submit(
        session, pools, display_name=display_name, base_uri=base_uri, spot=spot,
        timeout_s=timeout_s, labels=labels | {"notebook": _label(file.name)},
        service_account=service_account,
    )  # fmt: skip
    return job.wait() if wait else job


def look_up(session: Session, notebook: str, parameters: dict | None) -> tuple[NotebookFile, dict]:
    """The notebook a job is to run and its parameters as it declares them.

    Raises:
        SettingError: a parameter does not fit, or the notebook submits itself.
    """
    file = find_notebook(notebook, session)
    cell, verb = submits_itself(read(file.path), file.name)
    if cell:
        raise SettingError(
            f"{file.name}.ipynb submits itself: cell {cell} calls helpers.{verb}, and the job "
            "would call it again. Put that cell into a notebook of its own, or its lines under "
            '`if "CLOUD_ML_JOB_ID" not in os.environ:`.'
        )
    return file, check_parameters(file.path, parameters or {})


def stage(
    session: Session, file: NotebookFile, parameters: dict, machine: dict, *more: str
) -> tuple[str, str, dict]:
    """Put what a job needs into the bucket; its display name, its folder, its worker pool.

    Args:
        parameters: as `check_parameters` gives them.
        more: arguments of the container beside the notebook and its parameters.
    """
    source = parameters.get("DATA") or ""
    found = find_files(source) if source else []
    table = {path.name: path for path in found}
    if len(table) < len(found):
        raise SettingError(f'DATA="{source}": files of the same name; put them into one folder.')
    print(f"Notebook: {file.path} ({file.origin}, sha256 {file.sha256})")
    if table:
        where = f"bucket {session.bucket} in {session.location}"
        size_mb = sum(path.stat().st_size for path in table.values()) / 1e6
        print(f"Upload:   {source} ({size_mb:.1f} MB) to {where}")
    image = images.environment_image(session, accelerator=machine.get("acceleratorType"))
    display_name, base_uri = new_name(session, file.name)
    notebook_uri = f"{base_uri}/input/{file.name}.ipynb"
    storage.upload_file(session, file.path, notebook_uri)
    for name, path in table.items():
        storage.upload_file(session, path, f"{base_uri}/input/{name}")
    if table:
        parameters = parameters | {"DATA": f"{base_uri}/input/{Path(source).name}"}
    parameters_uri = storage.write_bytes(
        session, json.dumps(parameters).encode(), f"{base_uri}/input/parameters.json"
    )
    arguments = [f"--notebook={notebook_uri}", f"--parameters={parameters_uri}", *more]
    container = {"imageUri": image, "args": arguments}
    pool = {"machineSpec": machine, "replicaCount": "1", "containerSpec": container}
    return display_name, base_uri, pool


def new_name(session: Session, name: str) -> tuple[str, str]:
    """Display name of a job about to be made, and its folder, `gs://BUCKET/jobs/…`."""
    started = datetime.datetime.now(datetime.UTC).strftime("%Y%m%d-%H%M%S")
    name, mark = name[:100], uuid.uuid4().hex[:6]  # a display name may have 128 characters
    return f"{name}-{started}-{mark}", f"gs://{session.bucket}/jobs/{started}-{name}-{mark}"


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
        "labels": labels | images.LABELS,
        "jobSpec": specification,
    }
    job = Job(session, create(session, "customJobs", body), display_name, base_uri)
    print(f"Job:      {console(session, 'job', job.number)}")
    print(_WHILE[session.cloud])
    return job


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


def find_job(session: Session, name: str = "") -> Job:
    """Pick a job up again by number or display name; the newest without a name.

    Raises:
        NotFoundError: no such job; the nearest name is given.
    """
    found = session.list(session.collection("customJobs"), "customJobs", parent=session.parent)
    found.sort(key=lambda job: job["createTime"], reverse=True)
    for job in found:
        if name in ("", job["displayName"], job["name"], job["name"].rsplit("/", 1)[-1]):
            base_uri = job["jobSpec"].get("baseOutputDirectory", {}).get("outputUriPrefix", "")
            return Job(session, job["name"], job["displayName"], base_uri.rstrip("/"))
    hint = near(name, [job["displayName"] for job in found])
    local = session.cloud == "local" and not name
    here = " Or make one here: helpers.make_missing(session, job=True)" * local
    raise NotFoundError(
        f'No training job "{name}" in {session.location}.{hint} Run 02_train.ipynb.{here}'
    )


def _check_shared(file: NotebookFile) -> None:
    """Refuse machines that would each train alone; only the chief's model would be kept."""
    cells = json.loads(file.path.read_text(encoding="utf-8"))["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    if not re.search(r"[Ss]trategy\(|TF_CONFIG|CLUSTER_SPEC", code):
        raise SettingError(
            f"No cell of {file.path.name} asks how to share the work: each of the machines would "
            "train alone, and only the chief's model be kept. Build and compile the model under "
            "helpers.strategy().scope(), or use workers=0."
        )


def _label(text: str) -> str:
    return re.sub(r"[^a-z0-9_-]", "-", text.lower())[:63]


def _follow(job: Job) -> dict:
    """Draw the epochs until the job has ended; the job as it is then."""
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
