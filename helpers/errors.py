"""What can go wrong, drawn as a tree.

    HelpersError
    ├── SettingError       a parameter or argument is not usable
    ├── DataError          a table can't be used as given
    ├── SchemaError        rows do not fit the model's inputs
    ├── NotebookError      a notebook's cell raised, or a cell did not run
    ├── JobError           a training job failed (the job is on the exception)
    ├── ClusterError       the machines of a training job do not find each other
    ├── StoppedError       training was told to stop; its checkpoint is kept
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


class SettingError(HelpersError, ValueError): ...


class DataError(HelpersError, ValueError): ...


class SchemaError(HelpersError, ValueError): ...


class NotebookError(HelpersError, RuntimeError): ...


class JobError(HelpersError, RuntimeError):
    def __init__(self, message: str, job=None):
        super().__init__(message)
        self.job = job


class ClusterError(HelpersError, RuntimeError): ...


class StoppedError(HelpersError, RuntimeError): ...


class NotFoundError(HelpersError, LookupError): ...


class NotDeployedError(HelpersError, RuntimeError): ...


class CloudError(HelpersError, RuntimeError):
    """Carries `status` (HTTP code, 0 when nothing answered) and `method` (its name in the API)."""

    def __init__(self, message: str, *, status: int = 0, method: str = ""):
        super().__init__(message)
        self.status = status
        self.method = method
        self.retry_after = ""  # seconds, where the service named some


class LocalCloudError(CloudError): ...


def near(name: str, known: Iterable[str]) -> str:
    """A hint for a misspelt name: ` Did you mean "EPOCHS"?`, or the known names."""
    known = sorted(map(str, known))
    close = difflib.get_close_matches(str(name), known, n=1, cutoff=0.6)
    if close:
        return f' Did you mean "{close[0]}"?'
    shown = ", ".join(known[:12]) + (", …" if len(known) > 12 else "")
    return f" Known: {shown}." if known else ""
