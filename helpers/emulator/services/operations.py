"""Long-running operations: durable, so that work cut short by a kill is taken up again."""

import contextlib
import logging
import threading
from collections.abc import Callable

from helpers.emulator.front.calls import ApiError, Call, Cloud, found, method, now, on_start, page

log = logging.getLogger("helpers.emulator")
WORK: dict[str, Callable] = {}
PACKAGES = {
    "aiplatform": "google.cloud.aiplatform", "cloudbuild": "google.devtools.cloudbuild",
    "artifactregistry": "google.devtools.artifactregistry",
    "serviceusage": "google.api.serviceusage",
}  # fmt: skip


def work(function: Callable) -> Callable:
    """Work an operation can do: `function(cloud, **arguments)` gives the response's fields.

    It runs in a thread, and once more from its start when the server was killed in the middle:
    it must be safe to repeat.
    """
    WORK[function.__name__] = function
    return function


def start(
    call: Call, parent: str, function: Callable, arguments: dict, *, metadata: str,
    response: str, **about,
) -> dict:  # fmt: skip
    """Begin an operation below `parent` and give it as it is now.

    Args:
        function: marked with `work`.
        arguments: JSON; kept with the operation.
        metadata: its message in the API's package and version; `about` are fields of it.
        response: the message that the work's result is.
    """
    operation = _new(call, parent, metadata, about)
    kept = operation | {
        "_work": function.__name__, "_arguments": arguments, "_type": _type(call, response),
    }  # fmt: skip
    call.state.put("operation", operation["name"], kept, parent=parent)
    _run(call.cloud, kept)
    return operation


def finished(
    call: Call, parent: str, response: dict, *, metadata: str, kind: str, name: str = ""
) -> dict:
    """An operation that is done already; `kind` is the response's message."""
    operation = _new(call, parent, metadata, {}, name)
    operation |= {"done": True, "response": {"@type": _type(call, kind)} | response}
    return call.state.put("operation", operation["name"], operation, parent=parent)


def deleted(call: Call, parent: str, metadata: str = "DeleteOperationMetadata") -> dict:
    """The operation of a resource that is gone."""
    return finished(call, parent, {}, metadata=metadata, kind="google.protobuf.Empty")


def _new(call: Call, parent: str, metadata: str, about: dict, name: str = "") -> dict:
    moment = now()
    times = {"genericMetadata": {"createTime": moment, "updateTime": moment}}
    return {
        "name": name or f"{parent}/operations/{call.state.next_id()}",
        "metadata": {"@type": _type(call, metadata)} | about | times, "done": False,
    }  # fmt: skip


def _type(call: Call, message: str) -> str:
    """An operation carries the version it was made with, in the types of all it holds."""
    if "." not in message:
        message = f"{PACKAGES[call.method_id.partition('.')[0]]}.{call.version}.{message}"
    return f"type.googleapis.com/{message}"


def shown(operation: dict) -> dict:
    return {key: value for key, value in operation.items() if not key.startswith("_")}


@on_start
def resume(cloud: Cloud) -> None:
    for operation in cloud.state.list("operation"):
        if not operation["done"]:
            _run(cloud, operation)


def _run(cloud: Cloud, operation: dict) -> None:
    def run() -> None:
        try:
            response = WORK[operation["_work"]](cloud, **operation["_arguments"])
            result = {"response": {"@type": operation["_type"]} | response}
        except ApiError as error:
            result = {"error": error.rpc()}
        except Exception as error:
            log.exception("operation %s", operation["name"])
            result = {"error": {"code": 13, "message": f"{type(error).__name__}: {error}"}}

        def end(current: dict) -> dict:
            current["metadata"].setdefault("genericMetadata", {})["updateTime"] = now()
            return shown(current) | {"done": True} | result

        with contextlib.suppress(KeyError):  # deleted meanwhile
            cloud.state.update(operation["name"], end)

    threading.Thread(target=run, daemon=True, name=operation["name"]).start()


@method("operations.get")
def get(call: Call) -> dict:
    return shown(found(call, call.path["name"]))


@method("operations.wait")
def wait(call: Call) -> dict:
    """Answers at once: a wait may return before the operation is done."""
    return shown(found(call, call.path["name"]))


@method("operations.list")
def listed(call: Call) -> dict:
    items = [shown(op) for op in call.state.list("operation", call.path["name"])]
    return page(call, items, "operations")


@method("operations.delete")
def delete(call: Call) -> dict:
    found(call, call.path["name"])
    call.state.delete(call.path["name"])
    return {}


@method("operations.cancel")
def cancel(call: Call) -> dict:
    """Accepted; the work runs to its end."""
    found(call, call.path["name"])
    return {}
