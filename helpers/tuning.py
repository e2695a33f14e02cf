"""Search for the best parameters of a notebook: its trials run as one tuning job."""

import json
import sys
from dataclasses import dataclass
from typing import ClassVar

import pandas as pd
from tqdm import tqdm

from helpers.cells import staging
from helpers.cells.search import check_counts, search_study
from helpers.cloud import storage
from helpers.cloud.client import Session
from helpers.cloud.jobs import Run, check, create, job_spec, machine_spec, outcome
from helpers.cloud.links import console
from helpers.cloud.names import LABELS
from helpers.errors import JobError, NotFoundError, near
from helpers.inputs.metrics import reported
from helpers.project.trial_values import measured, values


@dataclass(frozen=True)
class Tuning(Run):
    """A tuning job; everything that trial N leaves is below `base_uri`/N/."""

    kind: ClassVar[str] = "hyperparameterTuningJobs"
    base_uri: str
    metric: str
    goal: str

    @property
    def trials(self) -> pd.DataFrame:
        """One row a trial, the best first, named by its id: `state`, the metric (NaN when it
        failed), its parameters, and why it failed."""
        rows, names = self.resource().get("trials", []), {}
        for trial in rows:
            names |= values(trial)
        frame = pd.DataFrame(
            [
                {"state": trial["state"], self.metric: measured(trial), **values(trial)}
                | {"reason": trial.get("infeasibleReason", "")}
                for trial in rows
            ],
            index=pd.Index([int(trial["id"]) for trial in rows], name="trial"),
            columns=["state", self.metric, *names, "reason"],
        )
        return frame.sort_values(self.metric, ascending=self.goal == "minimize")

    @property
    def best(self) -> dict:
        """The values of the best trial, by parameter."""
        trials = {int(trial["id"]): trial for trial in self.resource()["trials"]}
        return values(trials[self.trials.index[0]])


def tune(
    session: Session,
    notebook: str,
    *,
    search: dict[str, tuple | list],
    metric: str,
    goal: str = "minimize",
    parameters: dict | None = None,
    files: list[str] | tuple[str, ...] = (),
    requirements: str | None = None,
    trials: int = 8,
    parallel: int = 2,
    machine_type: str = "n1-standard-4",
    accelerator: str | None = None,
    spot: bool = False,
    timeout_s: int = 3600,
    labels: dict[str, str] | None = None,
) -> Tuning:
    """Find a notebook's best parameters: the service chooses the values of each trial by what the
    trials before it measured.

    Args:
        search: by parameter `(low, high)`, `(low, high, "log")` or a list of values.
        metric: a number of the metrics.json that the notebook writes into OUTPUT_DIR, such as
            "mae"; in a trial `data.load` gives it validation rows to measure it on.
        goal: "minimize" or "maximize".
        parameters, files, requirements: as for `train`; all trials share them.
        trials: how many; a failed one counts, and more than half failed end the search.
        parallel: how many at once; each has a machine of its own.
        timeout_s: the service stops a trial after this many seconds.
    Raises:
        SettingError: something is not usable; nothing was created.
        JobError: the search failed, or its first trial does not report the metric.
    Source: REST v1 projects.locations.hyperparameterTuningJobs.create
    """
    labels = dict(labels or {})
    check(machine_type, labels, timeout_s=timeout_s)
    work = staging.check(session, notebook, parameters, files=files, requirements=requirements)
    check_counts(search, trials, parallel)
    study = search_study(work.file, search, metric, goal)
    parallel, hours = min(parallel, trials), trials * timeout_s / 3600
    print(f"Trials:   {trials} of {', '.join(search)}, {parallel} at once; {goal} {metric}")
    print(f"Machines: {parallel} × {machine_type}, at most {hours:g} h of machine time in all")
    machine = machine_spec(machine_type, accelerator)
    staged = staging.stage(session, work, machine, f"--metric={metric}")
    base_uri = staged.base_uri
    body = {
        "displayName": staged.display_name,
        "labels": labels | LABELS,
        "studySpec": study,
        "maxTrialCount": trials,
        "parallelTrialCount": parallel,
        "maxFailedTrialCount": trials // 2 + 1,
        "trialJobSpec": job_spec(session, [staged.pool], base_uri, timeout_s, spot),
    }
    name = create(session, Tuning.kind, body)
    tuning = Tuning(session, name, base_uri, metric, goal)
    print(f"Job:      {console(session, 'tuning', tuning.number)}")
    return _finished(tuning, _follow(tuning, trials))


def _finished(tuning: Tuning, job: dict) -> Tuning:
    if job["state"] != "JOB_STATE_SUCCEEDED":
        state, reason = outcome(job)
        raise JobError(
            f"Tuning job {tuning.number} {state}: {reason}\n"
            f"Everything its trials left: {tuning.base_uri}/",
            job=tuning,
        )
    return tuning


def _follow(tuning: Tuning, count: int) -> dict:
    """Print a line for each trial until the job has ended, and give the job as it is then."""
    seen = set()
    with tqdm(total=count, desc="trials", unit="trial", file=sys.stdout) as bar:
        for job in tuning.follow():
            ended = [trial for trial in job.get("trials", []) if "endTime" in trial]
            for trial in ended:
                if trial["id"] in seen:
                    continue
                seen.add(trial["id"])
                pairs = ({tuning.metric: measured(trial)} | values(trial)).items()
                said = [f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in pairs]
                tqdm.write(f"trial {trial['id']} {' '.join(said)}", file=sys.stdout)
                bar.update()
            if ended and not any("finalMeasurement" in trial for trial in ended):
                _check_metric(tuning, ended[0])
    return job


def _check_metric(tuning: Tuning, trial: dict) -> None:
    """Stop the search when a notebook that ran to its end did not report the metric."""
    try:
        uri = f"{tuning.base_uri}/{trial['id']}/metrics.json"
        found = reported(json.loads(storage.read_bytes(tuning.session, uri)))
    except NotFoundError:
        return  # a cell raised; in the next trial it may not
    if tuning.metric not in found:
        tuning.cancel()
        raise JobError(
            f'The notebook reports no metric "{tuning.metric}".{near(tuning.metric, found)} The '
            f"search was stopped after trial {trial['id']}: {tuning.base_uri}/",
            job=tuning,
        )
