"""pip inside a job: `python -I job_pip.py FOLDER install …`, reached as `pip` on the job's PATH.

A container's packages are its own, a job's Python here is this machine's: so nothing is downloaded
and nothing of this machine changed. Packages that are there already suffice, files (the job's own
code) go to FOLDER, which the job imports from; anything else fails as pip says it.
"""

import os
import subprocess
import sys

PIP = [sys.executable, "-I", "-m", "pip", "--isolated", "--disable-pip-version-check"]
ARCHIVES = (".whl", ".tar.gz", ".zip")
HARMLESS = {"list", "show", "freeze", "check", "inspect", "--version", "-V", "help", "--help"}
INSTALL = [*PIP, "install", "--quiet", "--no-index", "--no-build-isolation"]


def main(folder: str, words: list[str]) -> int:
    if words and words[0] in HARMLESS:
        return subprocess.run([*PIP, *words]).returncode
    if words[:1] != ["install"]:
        print(f"pip {' '.join(words[:1])} is not available inside a local job.", file=sys.stderr)
        return 1
    words = [word for word in words[1:] if word != "--user"]
    # --target forgets what is installed, so a dry run asks first whether that suffices.
    code = subprocess.run([*INSTALL, "--dry-run", *words]).returncode
    files = [w for w in words if os.path.isdir(w) or (os.path.isfile(w) and w.endswith(ARCHIVES))]
    if code or not files:
        return code
    return subprocess.run([*INSTALL, "--no-deps", "--target", folder, *files]).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
