"""Which tf.distribute strategy this process should use; the machine decides, not a setting.

`python -m helpers.learning.strategy SCRIPT …` runs a script under that strategy.
"""

import contextlib
import faulthandler
import functools
import json
import os
import runpy
import select
import socket
import sys
import threading
import time

import tensorflow as tf

from helpers.errors import ClusterError

GO = b"go"
_links: list[socket.socket] = []  # the chief has one to each other member, they one to it
_last_step: list[int] = []  # after which all members stop, once they have agreed


def strategy(*, timeout_s: float = 300) -> tf.distribute.Strategy:
    """The strategy for where this process runs; the same object at every call.

    A TPU that is attached; else several workers when TF_CONFIG (as training services set it) names
    more than one member; else all GPUs when there are several; else TensorFlow's default. Build
    and compile the model in its scope: `with helpers.strategy().scope():`. Several workers run one
    step a call (`helpers.steps_per_execution` gives 1): Keras's loop of many fails there.

    A member lost in training is noticed by the others within ten seconds: `fit` then raises
    TensorFlow's UnavailableError or DeadlineExceededError, and the job starts again.

    Args:
        timeout_s: how long several workers wait for one another to start.
    Raises:
        ClusterError: a member did not answer in that time, or TF_CONFIG does not say who this is.
    Source: docs.cloud.google.com "TF_CONFIG" for custom jobs; tensorflow.org "Distributed training"
    """
    if os.environ.get("TPU_NAME") or os.environ.get("COLAB_TPU_ADDR"):
        return _tpu()
    members, place = _members()
    if len(members) > 1:
        return several() or _meet(members, place, timeout_s)
    if len(tf.config.list_physical_devices("GPU")) > 1:
        return _all_gpus()
    return tf.distribute.get_strategy()


class Workers(tf.distribute.MultiWorkerMirroredStrategy):
    """Several workers, with the two reductions that Keras 3 asks for and TensorFlow refuses.

    Keras takes the mean of a whole batch only to see its shapes, and of scalar logs along axis 0.
    Source: github.com/keras-team/keras issue 20585
    """

    def reduce(self, reduce_op, value, axis):
        """TensorFlow's own; a nested batch gives this worker's part, a scalar ignores `axis`."""
        if tf.nest.is_nested(value):
            return tf.nest.map_structure(lambda v: self.experimental_local_results(v)[0], value)
        if axis is not None and self.experimental_local_results(value)[0].shape.rank == 0:
            axis = None
        return super().reduce(reduce_op, value, axis)


_several: list[Workers] = []


def several() -> Workers | None:
    """The strategy of several workers, if this process asked for it."""
    return _several[0] if _several else None


def member() -> int:
    """This process's place among those that train together; 0 is the chief, or alone."""
    return _members()[1]


def agreed(step: int, told: bool) -> bool:
    """Whether all members stop after this step; each asks after each step, counted from its start.

    One that is told to stop says so to the chief. The chief names the step after this one to all,
    and begins it when all have heard: as a step needs every member, none can be past it.
    """
    if not _links:
        return told
    if _last_step or member():
        if told and member():
            _say(_links[0], b"told\n")
        return step in _last_step
    if told or any([_hear(link) for link in select.select(_links, [], [], 0)[0]]):
        for link in _links:
            _say(link, b"%d\n" % (step + 1))
        for link in _links:
            while (answer := _hear(link)) and b"heard" not in answer:
                pass
        _last_step.append(step + 1)
    return False


def _say(link: socket.socket, words: bytes) -> None:
    with contextlib.suppress(OSError):  # the member is lost; TensorFlow says so at the next step
        link.sendall(words)


def _hear(link: socket.socket) -> bytes:
    with contextlib.suppress(OSError):  # the member is lost; TensorFlow says so at the next step
        return link.recv(64)
    return b""


def _listen(chief: socket.socket) -> None:
    if words := _hear(chief):
        _last_step.append(int(words))
        _say(chief, b"heard\n")


def _meet(members: list[str], place: int, timeout_s: float) -> Workers:
    """Start TensorFlow's servers once all members are there: it would wait for them without end."""
    give_up_s = time.monotonic() + timeout_s
    if place == 0:
        _gather(members, give_up_s, timeout_s)
    else:
        _report(members, place, give_up_s, timeout_s)
    print(f"All {len(members)} are here. TensorFlow joins them in {timeout_s:g} s, or this ends.")
    # TensorFlow waits without end for a member lost now, and no Python code runs meanwhile: a
    # thread of the interpreter itself ends this process.
    faulthandler.dump_traceback_later(timeout_s, exit=True, file=sys.__stderr__)
    try:
        _several.append(Workers())
    except RuntimeError as error:
        if "program startup" not in str(error):
            raise
        raise ClusterError(
            "TensorFlow had begun its work before helpers.strategy() was called, and several "
            "machines must be joined before that. Call helpers.strategy() in the first cell, above "
            "every adapt(), tensor and model."
        ) from error
    finally:
        faulthandler.cancel_dump_traceback_later()
    return _several[0]


def _gather(members: list[str], give_up_s: float, timeout_s: float) -> None:
    """The chief's part: hear from every other member, then tell all of them to go on."""
    here: dict[int, socket.socket] = {}
    with socket.create_server(("", _address(members[0])[1]), backlog=128) as server:
        while missing := [n for n in range(1, len(members)) if n not in here]:
            left_s = give_up_s - time.monotonic()
            if left_s <= 0:
                raise _absent(members, missing[0], timeout_s, "no word of it")
            server.settimeout(left_s)
            with contextlib.suppress(OSError, ValueError):  # too late, or a stranger
                other, _ = server.accept()
                other.settimeout(5)
                here[int(other.recv(8))] = other
    for other in here.values():
        _say(other, GO)
        _links.append(other)


def _report(members: list[str], place: int, give_up_s: float, timeout_s: float) -> None:
    reason = ""
    while (left_s := give_up_s - time.monotonic()) > 0:
        try:
            with contextlib.ExitStack() as stack:
                chief = socket.create_connection(_address(members[0]), timeout=min(5, left_s))
                stack.enter_context(chief)
                chief.sendall(str(place).encode())
                chief.settimeout(left_s)
                if chief.recv(len(GO)) == GO:
                    chief.settimeout(None)
                    _links.append(chief)
                    threading.Thread(target=_listen, args=[chief], daemon=True).start()
                    stack.pop_all()
                    return
                reason = "it trains already, or another program listens there"
        except OSError as error:
            reason = str(error)
        time.sleep(0.05)
    raise _absent(members, 0, timeout_s, reason)


def _absent(members: list[str], number: int, timeout_s: float, reason: str) -> ClusterError:
    return ClusterError(
        f"Member {number} of {len(members)}, {members[number]}, did not answer within "
        f"{timeout_s:g} s ({reason}). Look into that machine's log, then start the job again."
    )


def _address(member: str) -> tuple[str, int]:
    host, _, port = member.rpartition(":")
    return host.strip("[]"), int(port)


@functools.cache
def _tpu() -> tf.distribute.Strategy:
    resolver = tf.distribute.cluster_resolver.TPUClusterResolver()
    tf.config.experimental_connect_to_cluster(resolver)
    tf.tpu.experimental.initialize_tpu_system(resolver)
    return tf.distribute.TPUStrategy(resolver)


@functools.cache
def _all_gpus() -> tf.distribute.Strategy:
    return tf.distribute.MirroredStrategy()


def _members() -> tuple[list[str], int]:
    """Who trains together, and which of them this process is; evaluators do not train."""
    config = json.loads(os.environ.get("TF_CONFIG") or "{}")
    cluster, task = config.get("cluster", {}), config.get("task", {})
    kinds = ("chief", "master", "worker")
    roles = [(kind, i) for kind in kinds for i in range(len(cluster.get(kind, ())))]
    me = (task.get("type"), int(task.get("index", 0)))
    if len(roles) < 2 or task.get("type") in ("evaluator", "ps"):
        return [], 0
    if me not in roles:
        raise ClusterError(f"TF_CONFIG's task is {task}; expected one of its cluster's {roles}.")
    return [cluster[role][i] for role, i in roles], roles.index(me)


if __name__ == "__main__":
    from helpers.learning.strategy import strategy  # one module, whoever imports it

    chosen = strategy()
    if chosen is not tf.distribute.get_strategy():
        tf.distribute.experimental_set_strategy(chosen)
    sys.argv = sys.argv[1:]
    sys.path[0] = os.path.dirname(os.path.abspath(sys.argv[0]))
    runpy.run_path(sys.argv[0], run_name="__main__")
