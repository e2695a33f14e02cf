"""Long-running operations: durable, so that work cut short by a kill is taken up again."""

import contextlib
import logging
import threading
from collections.abc import Callable

from helpers.emulator.front.calls import ApiError, Call, Cloud, found, method, now, on_start, page

log = logging.getLogger("helpers.emulator")
WORK: dict[str, Callable] = {}


def work(function: Callable) -> Callable:
    """Work an operation can do: `function(cloud, **arguments)` gives the response.

    It runs in a thread, and once more from its start when the server was killed in the middle:
    it must be safe to repeat.
    """
    WORK[function.__name__] = function
    return function


def start(
    cloud: Cloud,
    parent: str,
    function: Callable,
    arguments: dict,
    *,
    metadata: dict,
    name: str = "",
) -> dict:
    """Begin an operation below `parent` and give it as it is now.

    Args:
        function: marked with `work`.
        arguments: JSON; kept with the operation.
        metadata: with its `@type`; `genericMetadata` is added.
    """
    name = name or f"{parent}/operations/{cloud.state.next_id()}"
    moment = now()
    times = {"genericMetadata": {"createTime": moment, "updateTime": moment}}
    operation = {"name": name, "metadata": metadata | times, "done": False}
    kept = operation | {"_work": function.__name__, "_arguments": arguments}
    cloud.state.put("operation", name, kept, parent=parent)
    _run(cloud, kept)
    return operation


def finished(cloud: Cloud, parent: str, response: dict, *, metadata: dict, name: str = "") -> dict:
    """An operation that is done already."""
    name = name or f"{parent}/operations/{cloud.state.next_id()}"
    moment = now()
    times = {"genericMetadata": {"createTime": moment, "updateTime": moment}}
    operation = {"name": name, "metadata": metadata | times, "done": True, "response": response}
    return cloud.state.put("operation", name, operation, parent=parent)


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
            result = {"response": WORK[operation["_work"]](cloud, **operation["_arguments"])}
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
