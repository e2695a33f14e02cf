"""What can go wrong, drawn as a tree.

    HelpersError
    ├── SettingError       a parameter or argument is not usable
    ├── DataError          a table can't be used as given
    ├── SchemaError        rows do not fit the model's inputs
    ├── NotebookError      a notebook's cell raised, or a cell did not run
    ├── JobError           a training job failed (the job is on the exception)
    ├── NotFoundError      no such model, endpoint, job or notebook
    ├── NotDeployedError   no model serves on the endpoint
    └── CloudError         the service refused a call (its own words are kept)
        └── LocalCloudError    the local cloud could not start or answer

Each message says what was found, what was expected and what to do; the original error is chained.
"""

import difflib
from collections.abc import Iterable


class HelpersError(Exception):
    """Anything this package raises on purpose."""


class SettingError(HelpersError, ValueError):
    """A parameter or an argument is not usable; nothing was created."""


class DataError(HelpersError, ValueError):
    """A table can't be used as given."""


class SchemaError(HelpersError, ValueError):
    """Rows do not fit the model's inputs; nothing was sent."""


class NotebookError(HelpersError, RuntimeError):
    """A cell raised or did not run; the executed notebook is kept."""


class JobError(HelpersError, RuntimeError):
    """A training job did not succeed."""

    def __init__(self, message: str, job=None):
        super().__init__(message)
        self.job = job


class NotFoundError(HelpersError, LookupError):
    """No such model, endpoint, job or notebook; the message names the nearest."""


class NotDeployedError(HelpersError, RuntimeError):
    """No model serves on the endpoint."""


class CloudError(HelpersError, RuntimeError):
    """The service refused a call.

    Attributes: `status` (HTTP code, 0 when nothing answered), `method` (its name in the API).
    """

    def __init__(self, message: str, *, status: int = 0, method: str = ""):
        super().__init__(message)
        self.status = status
        self.method = method


class LocalCloudError(CloudError):
    """The local cloud could not start or answer."""


def near(name: str, known: Iterable[str]) -> str:
    """A hint for a misspelt name: ` Did you mean "EPOCHS"?`, or the known names when none is close."""
    known = sorted(map(str, known))
    close = difflib.get_close_matches(str(name), known, n=1, cutoff=0.6)
    if close:
        return f' Did you mean "{close[0]}"?'
    shown = ", ".join(known[:12]) + (", …" if len(known) > 12 else "")
    return f" Known: {shown}." if known else ""
