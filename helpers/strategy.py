"""Which tf.distribute strategy this process should use; the machine says, not a setting.

`python -m helpers.strategy SCRIPT …` runs a script that knows of none under that strategy.
"""

import json
import os
import runpy
import sys

import tensorflow as tf


def strategy() -> tf.distribute.Strategy:
    """The strategy for where this process runs.

    A TPU that is attached; else several workers when TF_CONFIG (as training services set it) names
    more than one member; else all GPUs when there are several; else TensorFlow's default.

    Source: docs.cloud.google.com "TF_CONFIG" for custom jobs; tensorflow.org "Distributed training"
    """
    if os.environ.get("TPU_NAME") or os.environ.get("COLAB_TPU_ADDR"):
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver()
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return tf.distribute.TPUStrategy(resolver)
    if _members() > 1:
        return tf.distribute.MultiWorkerMirroredStrategy()
    if len(tf.config.list_physical_devices("GPU")) > 1:
        return tf.distribute.MirroredStrategy()
    return tf.distribute.get_strategy()


def _members() -> int:
    """How many processes train together; evaluators and parameter servers do not."""
    cluster = json.loads(os.environ.get("TF_CONFIG") or "{}").get("cluster", {})
    return sum(len(cluster.get(role, ())) for role in ("chief", "master", "worker"))


if __name__ == "__main__":
    chosen = strategy()
    if chosen is not tf.distribute.get_strategy():
        tf.distribute.experimental_set_strategy(chosen)
    sys.argv = sys.argv[1:]
    sys.path[0] = os.path.dirname(os.path.abspath(sys.argv[0]))
    runpy.run_path(sys.argv[0], run_name="__main__")
