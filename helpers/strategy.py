"""Which tf.distribute strategy this process should use; the machine says, not a setting.

`python -m helpers.strategy SCRIPT …` runs a script that knows of none under that strategy.
"""

import functools
import json
import os
import runpy
import socket
import sys
import time

import tensorflow as tf

from helpers.errors import ClusterError


def strategy(*, timeout_s: float = 300) -> tf.distribute.Strategy:
    """The strategy for where this process runs; the same object at every call.

    A TPU that is attached; else several workers when TF_CONFIG (as training services set it) names
    more than one member; else all GPUs when there are several; else TensorFlow's default. Build
    and compile the model in its scope: `with helpers.strategy().scope():`. Several workers run one
    step a call (`helpers.steps_per_execution` gives 1): Keras's loop of many fails there.

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
        """As TensorFlow's; a nested batch gives this worker's part, a scalar ignores `axis`."""
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


def _meet(members: list[str], place: int, timeout_s: float) -> Workers:
    """Listen where TensorFlow will, until all others do: by itself it waits for them for ever."""
    give_up_s = time.monotonic() + timeout_s
    others = [(number, who) for number, who in enumerate(members) if number != place]
    with socket.create_server(("", int(members[place].rpartition(":")[2])), backlog=128):
        for number, member in others:
            host, _, port = member.rpartition(":")
            while reason := _unreachable(host.strip("[]"), int(port)):
                if time.monotonic() > give_up_s:
                    raise ClusterError(
                        f"Member {number} of {len(members)}, {member}, did not answer within "
                        f"{timeout_s:g} s ({reason}). Look into that machine's log, then start "
                        "the job again."
                    )
                time.sleep(0.05)
        time.sleep(0.5)  # the others poll too; TensorFlow must not meet a port that only listens
    _several.append(Workers())
    return _several[0]


def _unreachable(host: str, port: int) -> str:
    try:
        socket.create_connection((host, port), timeout=5).close()
    except OSError as error:
        return str(error)
    return ""


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
    """Who trains together, and which of them this is; evaluators and parameter servers do not."""
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
    from helpers.strategy import strategy  # one module, whoever imports it

    chosen = strategy()
    if chosen is not tf.distribute.get_strategy():
        tf.distribute.experimental_set_strategy(chosen)
    sys.argv = sys.argv[1:]
    sys.path[0] = os.path.dirname(os.path.abspath(sys.argv[0]))
    runpy.run_path(sys.argv[0], run_name="__main__")
