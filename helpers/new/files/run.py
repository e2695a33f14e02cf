"""Run the notebooks in order on the local cloud; executed copies and reports go to outputs/.

python run.py [EPOCHS=10]   the endpoint stays until `make stop`
python run.py --test        one epoch, a cloud of its own that ends, outputs/test/junit.xml
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from xml.sax.saxutils import quoteattr

import helpers
from helpers.errors import HelpersError
from helpers.looks.report import index
from helpers.notebooks import check_parameters, read_parameters

ROOT = Path(__file__).resolve().parent
NAMES = ("01_prototype", "02_train", "03_deploy", "04_predict")


def drive(output: Path, asked: dict) -> list[tuple[str, float, str]]:
    """Each notebook with those of the parameters it has: (name, seconds, what failed)."""
    done = []
    for name in NAMES:
        path, start, failure = ROOT / "notebooks" / f"{name}.ipynb", time.perf_counter(), ""
        try:
            given = {key: asked[key] for key in read_parameters(path).keys() & asked.keys()}
            helpers.run_notebook(path, output / f"{name}.ipynb", given)
        except HelpersError as error:
            failure = str(error)
        done.append((name, time.perf_counter() - start, failure))
        print(f"{name:14} {done[-1][1]:5.1f} s {'failed: ' * bool(failure)}{failure}", flush=True)
        if failure:
            break
    print(f"Reports: {index(output)}")
    return done


def junit(done: list[tuple[str, float, str]]) -> str:
    """The results as test reports are written."""
    cases = "".join(
        f'<testcase classname="notebooks" name="{name}" time="{seconds:.2f}">'
        + (f"<failure message={quoteattr(failure)}/>" if failure else "")
        + "</testcase>"
        for name, seconds, failure in done
    )
    failed = sum(bool(failure) for *_, failure in done)
    return (
        f'<testsuite name="notebooks" tests="{len(done)}" failures="{failed}">{cases}</testsuite>'
    )


def main(arguments: list[str]) -> int:
    os.chdir(ROOT)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if arguments != ["--test"]:
        epochs = dict(argument.split("=", 1) for argument in arguments)
        asked = check_parameters(ROOT / "notebooks" / "01_prototype.ipynb", epochs)
        done = drive(ROOT / "outputs", asked | {"CLEAN_UP": False})
        return int(any(failure for *_, failure in done))
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LOCAL_CLOUD_DIR"] = folder
        output = ROOT / "outputs" / "test"
        done = drive(output, {"EPOCHS": 1, "OUTPUT_DIR": str(output / "prototype")})
        stop = [sys.executable, "-m", "helpers.emulator", "stop", "--state", folder]
        subprocess.run(stop, check=True, stdout=subprocess.DEVNULL)
    (output / "junit.xml").write_text(junit(done), encoding="utf-8")
    return int(any(failure for *_, failure in done))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
