"""Drive the whole road on Google Cloud, small and short, and tell what held.

    python .ci/google_check.py PROJECT=my-project [BUCKET=…] [LOCATION=…]

The smallest table, one epoch, the smallest machines, at most half an hour. What the check made is
removed whatever happens, and looked for afterwards. outputs/google-check.md holds no name and no
token: it may be attached to a report of a fault.
"""

import contextlib
import os
import platform
import re
import signal
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).absolute().parents[1]
sys.path.insert(0, str(ROOT))

import helpers  # noqa: E402 - this checkout's own
from helpers.cloud import jobs, storage  # noqa: E402
from helpers.cloud.client import Session  # noqa: E402
from helpers.cloud.names import DISTRIBUTION  # noqa: E402
from helpers.cloud.resources import of_name  # noqa: E402
from helpers.errors import HelpersError, SettingError, near  # noqa: E402
from helpers.project.deployments import delete_model  # noqa: E402

REPORT = ROOT / "outputs" / "google-check.md"
ROAD_S, CLEAN_S = 25 * 60, 5 * 60  # together half an hour
# Upper bounds, rounded up from the price pages of November 2026 (us-central1): USD.
WORST = {
    "training job, n1-standard-4, half an hour": 0.15,
    "batch prediction, n1-standard-2, half an hour": 0.10,
    "endpoint, n1-standard-2, half an hour": 0.10,
    "builds of two images, half an hour (most accounts have some free)": 0.20,
    "files and images of some GB, for a day": 0.05,
}
NOTEBOOK = "01_prototype.ipynb"
RUNS = ("customJobs", "batchPredictionJobs")
ARGUMENTS = ("PROJECT", "BUCKET", "LOCATION")


class Stopped(BaseException):
    """The time is up, or somebody ended the check; no retry catches it."""


@dataclass
class Check:
    """One run: what it calls its things, and how its steps went."""

    session: Session
    name: str = field(default_factory=lambda: f"google-check-{uuid.uuid4().hex[:8]}")
    rows: list[tuple[str, float, str]] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)

    @contextlib.contextmanager
    def step(self, what: str) -> Iterator[None]:
        """A row of the report, whether it went well or not."""
        start, said = time.monotonic(), "held"
        print(f"--- {what}", flush=True)
        try:
            yield
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
            raise
        finally:
            self.rows.append((what, time.monotonic() - start, said))


def run(session: Session, *, road_s: float = ROAD_S, clean_s: float = CLEAN_S) -> bool:
    """Drive the road, clean up, look, write the report; whether all of it held."""
    check, fine = Check(session), True
    print(f"At worst this costs {sum(WORST.values()):.2f} USD, at most {(road_s + clean_s) / 60:g} "
          "minutes:")  # fmt: skip
    print("\n".join(f"  {usd:.2f}  {what}" for what, usd in WORST.items()), flush=True)
    for part, limit_s in ((drive, road_s), (clean, clean_s), (verify, clean_s)):
        try:
            with limited(limit_s):
                part(check)
        except (Exception, Stopped, KeyboardInterrupt) as error:  # it is in the report
            fine = False
            print(f"{part.__name__}: {type(error).__name__}: {error}", flush=True)
    write(check, fine)
    print(f"{'All of it held' if fine else 'Not all of it held'}: {REPORT}")
    return fine


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Stop what is inside after some seconds, or when the process is told to end."""

    def stop(number: int, _frame) -> None:
        raise Stopped("the time is up" if number == signal.SIGALRM else "the check was ended")

    before = {number: signal.signal(number, stop) for number in (signal.SIGALRM, signal.SIGTERM)}
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


def drive(check: Check) -> None:
    """From a project to a served model: each step needs the one before."""
    session, name = check.session, check.name
    with check.step("setup"):
        plan = helpers.setup(session, apply=True)
        left = plan[~plan["state"].isin(["there", "made", "look up"])]
        if len(left):
            raise SettingError("; ".join(left["step"] + ": " + left["todo"]))
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "rooms.csv"
        rows = [f"{size},{kind},{3 * size + 20 * (kind == 'b')}" for size in range(10, 40)
                for kind in "ab"]  # fmt: skip
        table.write_text("\n".join(["size,kind,price", *rows]) + "\n")
        with check.step("train"):
            given = {"DATA": str(table), "TARGET": "price", "EPOCHS": 1}
            job = helpers.train(
                session, NOTEBOOK, parameters=given, timeout_s=900, wait=False,
                labels={"check": name},
            )  # fmt: skip
            check.folders.append(f"{job.base_uri}/")
            job.wait()
    with check.step("register"):
        model = helpers.register(session, job, name=name)
    with check.step("deploy, with scale to zero"):
        endpoint = helpers.deploy(session, model, name=name, idle_shutdown_s=3600)
    frame = pd.DataFrame([model.instance_schema["example"]] * 3)
    with check.step("predict"):
        scores = helpers.predict(endpoint, frame)
    with check.step("batch_predict"):
        batch = helpers.batch_predict(session, model, frame, labels={"check": name})
        if abs(batch.to_numpy(float) - scores.to_numpy(float)).max() > 1e-3:
            raise HelpersError("The batch's answers are not those of the endpoint.")
    with check.step("costs"):
        helpers.costs(session)


def clean(check: Check) -> None:
    """Remove what this run made; each thing, although another could not be removed."""
    session, name, failures = check.session, check.name, []

    def attempt(remove: Callable[[], object]) -> None:
        try:
            remove()
        except HelpersError as error:
            failures.append(str(error))

    def models() -> None:
        for model in of_name(session, "models", name):
            delete_model(session, model["name"])

    with check.step("clean up"):
        attempt(lambda: [end(session, kind, job) for kind, job in runs(check)])
        attempt(lambda: helpers.cleanup(session, name=name))
        attempt(models)
        for folder in folders(check):
            attempt(lambda folder=folder: storage.delete(session, folder))
        if failures:
            raise HelpersError("; ".join(failures))


def runs(check: Check) -> Iterator[tuple[str, dict]]:
    """The jobs of this run, by their label."""
    for kind in RUNS:
        found = check.session.list(
            check.session.collection(kind), kind, parent=check.session.parent,
            filter=f'labels.check="{check.name}"',
        )  # fmt: skip
        yield from (
            (kind, job) for job in found if job.get("labels", {}).get("check") == check.name
        )


def end(session: Session, kind: str, job: dict) -> None:
    """Cancel a job that runs, wait until it has ended, delete it."""
    collection = session.collection(kind)
    if job["state"] not in jobs.ENDED:
        session.call(collection.cancel(name=job["name"]), repeatable=True, unless=400)
    while job["state"] not in jobs.ENDED:
        time.sleep(0.2)
        job = session.call(collection.get(name=job["name"]))
    operation = session.call(collection.delete(name=job["name"]), unless=404)
    if operation:
        session.wait(operation)


def folders(check: Check) -> list[str]:
    """What this run wrote to the bucket."""
    prefix = f"gs://{check.session.bucket}/batch/batch-{check.name}-"
    below = {uri.split("/")[4] for uri in storage.list_uris(check.session, prefix)}
    batch = [f"gs://{check.session.bucket}/batch/{folder}/" for folder in sorted(below)]
    return [*check.folders, *batch]


def verify(check: Check) -> None:
    """Look for what should be gone."""
    session = check.session
    with check.step("nothing is left"):
        left = [f"{kind}: {job['state']}" for kind, job in runs(check)]
        left += [kind for kind in ("endpoints", "models") if of_name(session, kind, check.name)]
        left += [f for folder in folders(check) for f in storage.list_uris(session, folder)[:1]]
        if left:
            raise HelpersError(f"Still there: {', '.join(left)}. Run helpers.cleanup(session).")


def write(check: Check, fine: bool) -> None:
    """The report: what was done, how long it took, what was said; no name of anybody's."""
    lines = [
        "# Google check", "",
        f"{'All of it held.' if fine else 'Not all of it held.'} {DISTRIBUTION} on Python "
        f"{platform.python_version()}, {platform.system()}, {check.session.location}.", "",
        "| step | seconds | what was found |", "|---|---|---|",
    ]  # fmt: skip
    for what, seconds, said in check.rows:
        text = " ".join(scrubbed(check, said).split()).replace("|", "\\|")[:1500]
        lines.append(f"| {what} | {seconds:.0f} | {text} |")
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text("\n".join(lines) + "\n")


def scrubbed(check: Check, text: str) -> str:
    """A text without the names of the project, its things and people, and without tokens."""
    session = check.session
    known = {
        session.bucket: "BUCKET", session.project: "PROJECT", check.name: "CHECK",
        session.endpoint: "HOST", str(getattr(session.credentials, "token", "")): "TOKEN",
        str(Path.home()): "HOME",
    }  # fmt: skip
    for name in sorted(filter(None, known), key=len, reverse=True):
        text = text.replace(name, known[name])
    text = re.sub(r"[\w.+-]+@[\w-]+\.[\w.-]+", "ACCOUNT", text)
    text = re.sub(r"\bya29\.[\w-]+|\b(?=\w*\d)(?=\w*[A-Za-z])[\w-]{40,}\b", "TOKEN", text)
    return re.sub(r"\b\d{9,}\b", "NUMBER", text)


def read_arguments(arguments: list[str]) -> dict[str, str]:
    """`["PROJECT=p"]` → `{"project": "p"}`.

    Raises:
        SettingError: an argument is unknown, or no project is named.
    """
    given = {}
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if name not in ARGUMENTS or not equals:
            raise SettingError(f'"{argument}" is not known.{near(name, ARGUMENTS)}')
        given[name.lower()] = value
    if not given.get("project"):
        raise SettingError("Name the project that pays: make google-check PROJECT=my-project.")
    return {"bucket": ""} | given


def main() -> int:
    try:
        session = helpers.connect("google", **read_arguments(sys.argv[1:]))
    except HelpersError as error:
        print(error, file=sys.stderr)
        return 2
    os.chdir(ROOT)
    return 0 if run(session) else 1


if __name__ == "__main__":
    sys.exit(main())
