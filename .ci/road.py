"""Drive the whole road on the local cloud, headless: 00 → 01 → 02 → 03 → 04.

    python .ci/road.py EPOCHS=50

One line a stage, then what came of it. Executed notebooks and their reports go to outputs/.
"""

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).absolute().parents[1]
sys.path.insert(0, str(ROOT))

import helpers  # noqa: E402 - this checkout's own
from helpers.cloud.console import address  # noqa: E402
from helpers.errors import HelpersError, SettingError, near  # noqa: E402
from helpers.looks.report import index  # noqa: E402
from helpers.notebooks import check_parameters  # noqa: E402

NOTEBOOKS, OUTPUTS = ROOT / "notebooks", ROOT / "outputs"
ENDPOINT = "earnings_prediction"


def read_arguments(arguments: list[str]) -> dict:
    """`["EPOCHS=2"]` → `{"EPOCHS": 2}`, checked before anything runs."""
    given = {}
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if name != "EPOCHS" or not equals:
            raise SettingError(f'"{argument}" is not known.{near(name, ["EPOCHS"])} Say EPOCHS=2.')
        given[name] = value
    return check_parameters(NOTEBOOKS / "01_prototype.ipynb", given)


def run(name: str, parameters: dict) -> float:
    """Run one notebook into outputs/; the seconds it took."""
    start = time.perf_counter()
    helpers.run_notebook(NOTEBOOKS / f"{name}.ipynb", OUTPUTS / f"{name}.ipynb", parameters)
    return time.perf_counter() - start


def drive(epochs: dict) -> None:
    """Every stage, in order; 00 only looks and 01 needs no cloud, so they run beside 02's job."""
    local = {"CLOUD": "local"}

    def said(name: str, seconds: float) -> None:
        print(f"{name:14} {seconds:5.1f} s", flush=True)

    with ThreadPoolExecutor(2) as pool:
        helpers.connect("local")  # starts it, before two notebooks ask for it at once
        train = pool.submit(run, "02_train", local | epochs)
        setup = pool.submit(run, "00_setup", local)
        prototype = pool.submit(run, "01_prototype", epochs)  # when 00 is done
        said("00_setup", setup.result())
        said("01_prototype", prototype.result())
        said("02_train", train.result())
    said("03_deploy", run("03_deploy", local))
    said("04_predict", run("04_predict", local | {"CLEAN_UP": False}))


def summary() -> dict[str, str]:
    """What came of it, from the job's own metrics and the endpoint that is up; keeps its report."""
    session = helpers.connect("local")
    job = helpers.find_job(session)
    for uri in (f"{job.base_uri}/01_prototype.ipynb", job.report_uri):
        helpers.storage.download_file(session, uri, OUTPUTS / f"02_train_job{Path(uri).suffix}")
    measured = job.metrics
    endpoint = helpers.find_endpoint(session, ENDPOINT)
    table = helpers.data.load(measured["data"], session=session)
    answer = helpers.predict(endpoint, table.proposed)[table.target].iloc[0]
    boosting = measured["baselines"]["gradient_boosting"]["mae"]
    return {
        "Test error": f"${measured['metrics']['mae']:,.0f} (mean absolute)",
        "  best possible": f"${measured['noise_mae']:,.0f} (the noise in the data)",
        "  to beat": f"${boosting:,.0f} (gradient boosting)",
        "Proposed product": f"${answer:,.0f}",
        "Endpoint": f"{endpoint.url} (up until `make stop`)",
    }


def main(arguments: list[str]) -> int:
    try:
        epochs = read_arguments(arguments)
    except SettingError as error:
        print(error, file=sys.stderr)
        return 2
    os.chdir(ROOT)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    start, facts, failure = time.perf_counter(), {}, ""
    try:
        drive(epochs)
        print(f"{'all':14} {time.perf_counter() - start:5.1f} s\n")
        facts = summary()
    except HelpersError as error:
        failure = f"\n{error}"
    for name, fact in facts.items():
        print(f"{name:17} {fact}")
    if any(OUTPUTS.glob("*.ipynb")):
        print(f"Reports           {index(OUTPUTS, facts)}")
        print(f"Console           {address(helpers.connect('local'))}", flush=True)
    if failure:
        print(failure, file=sys.stderr)
    return int(bool(failure))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
