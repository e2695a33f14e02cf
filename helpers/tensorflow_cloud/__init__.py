"""tensorflow-cloud's `run()` on today's service: change the import line, keep the call.

    from helpers import tensorflow_cloud as tfc      # was: import tensorflow_cloud as tfc

The library (0.1.16, deprecated in April 2026) submits to a service that was shut down in January
2025. What is still its own here, imported when first asked for: `MachineConfig`,
`AcceleratorType`, `DockerConfig`, `COMMON_MACHINE_CONFIGS` (L4, A100 and H100 are added) and its
table of machine types. Done anew: `run` and `remote`, the way from notebook to script (the
library's breaks notebooks with magics), the package (the library's takes key files along), the
image build (it pushed to gcr.io) and the job. `CloudTuner`, `run_cloudtuner` and streaming by
gcloud are gone with their services. `run` with "auto" machines needs no library at all.
"""

import dataclasses
import importlib
import importlib.util
import os
import sys
from pathlib import Path

from tqdm import tqdm

from helpers.cells.neighbours import requirements
from helpers.cloud import images
from helpers.cloud.client import Session
from helpers.cloud.jobs import check, machine_spec, new_name
from helpers.connection import connect, last
from helpers.errors import SettingError
from helpers.tensorflow_cloud.package import pack_code
from helpers.training import Job, submit

TIMEOUT_S = 3600  # `run` has no argument for it: set helpers.tensorflow_cloud.TIMEOUT_S
LIBRARY = {"AcceleratorType", "COMMON_MACHINE_CONFIGS", "DockerConfig", "MachineConfig"}
AUTO = machine_spec("n1-standard-8", "NVIDIA_TESLA_T4")  # what the library takes for "auto"
# Newer than the library. Source: cloud.google.com/vertex-ai/docs/training/configure-compute
PRESETS = {
    "L4_1X": machine_spec("g2-standard-8", "NVIDIA_L4"),
    "L4_4X": machine_spec("g2-standard-48", "NVIDIA_L4", 4),
    "A100_1X": machine_spec("a2-highgpu-1g", "NVIDIA_TESLA_A100"),
    "A100_8X": machine_spec("a2-highgpu-8g", "NVIDIA_TESLA_A100", 8),
    "H100_1X": machine_spec("a3-highgpu-1g", "NVIDIA_H100_80GB"),
    "H100_8X": machine_spec("a3-highgpu-8g", "NVIDIA_H100_80GB", 8),
}
DOCKERFILE = """\
FROM {environment}
WORKDIR /app/code
COPY requirements.txt requirements.txt
RUN pip install --no-cache-dir -r requirements.txt
COPY code .
ENTRYPOINT ["python", "-m", "helpers.inside.main", "--script={script}", "--strategy={strategy}"]
"""


def remote() -> bool:
    """True inside a job that `run` submitted."""
    return bool(os.environ.get("TF_KERAS_RUNNING_REMOTELY"))


def run(
    entry_point: str | None = None,
    requirements_txt: str | None = None,
    docker_config="auto",
    distribution_strategy: str | None = "auto",
    chief_config="auto",
    worker_config="auto",
    worker_count: int = 0,
    entry_point_args: list[str] | None = None,
    stream_logs: bool = False,
    job_labels: dict[str, str] | None = None,
    service_account: str | None = None,
    docker_base_image: str | None = None,
    docker_image_bucket_name: str | None = None,
) -> dict[str, str] | None:
    """Train a script or notebook as a custom job; tensorflow-cloud 0.1.16's arguments.

    What the script leaves in the folder that the environment variable OUTPUT_DIR names, or in its
    working directory, goes to the job's folder in the bucket; its model is in `model/1/` there.

    Args:
        entry_point: a .py or .ipynb file, packed with its folder, or a notebook in the bucket
            (gs://); None takes the notebook being edited, or the script that calls this.
        requirements_txt: what to install beside the versions installed here; TensorFlow's own
            packages and tensorflow-cloud are left out, the image has what replaces them.
        docker_config: its `parent_image` and `image_build_bucket` count.
        distribution_strategy: "auto" chooses from the machines; None leaves it to the script.
        chief_config, worker_config: a `MachineConfig`; "auto" is the library's, T4_1X.
        worker_count: machines beside the chief.
        stream_logs: follow the job to its end.
        docker_image_bucket_name: where everything is stored; default: the session's bucket.
    Returns:
        {"job_id", "docker_image"}; `helpers.find_job(session, job_id)` picks the job up. None
        inside the job. A script that submits itself ends here, as with the library.
    Raises:
        SettingError: something is not usable; nothing was created.
    Source: REST v1 projects.locations.customJobs.create
    """
    if remote():
        return None
    docker = {} if docker_config in (None, "auto") else vars(docker_config)
    machines = [_machine(chief_config), _machine(worker_config)][: 1 + bool(worker_count)]
    _check(distribution_strategy, entry_point_args, machines, job_labels or {}, int(worker_count))
    session = _session(docker.get("image_build_bucket") or docker_image_bucket_name or "")
    if docker.get("image") or docker.get("cache_from"):
        print("Left out: image and cache_from; an image is named by its content and reused by it.")
    itself = entry_point is None and not _in_notebook()
    script, files = pack_code(session, sys.argv[0] if itself else entry_point)
    files["requirements.txt"] = requirements(requirements_txt, [Path.cwd()])
    _tell(files, machines[0], int(worker_count))
    base = docker.get("parent_image") or docker_base_image or ""
    image = _image(session, script, files, machines, base, distribution_strategy or "none")
    job = _submit(session, script, image, machines, int(worker_count), entry_point_args or [],
                  labels=job_labels or {}, service_account=service_account or "")  # fmt: skip
    if stream_logs:
        job.wait()
    if itself:
        sys.exit(0)  # the script trains in the job, not here as well
    return {"job_id": job.number, "docker_image": image}


def _check(strategy: str | None, arguments, machines: list[dict], labels: dict, count: int) -> None:
    if strategy not in ("auto", None):
        raise SettingError(f'distribution_strategy={strategy!r}; expected "auto".')
    if arguments is not None and not isinstance(arguments, list):
        raise SettingError(f"entry_point_args={arguments!r}; expected a list of texts.")
    for machine in machines:
        check(machine["machineType"], labels, workers=count)


def _tell(files: dict[str, bytes], chief: dict, count: int) -> None:
    size = tqdm.format_sizeof(sum(map(len, files.values())), "B")
    hours = (1 + count) * TIMEOUT_S / 3600
    print(f"Package:  {len(files)} files, {size}")
    print(f"Machines: {1 + count} × {chief['machineType']} {chief.get('acceleratorType', '')}, "
          f"at most {hours:g} h of machine time")  # fmt: skip


def _image(
    session: Session, script: str, files: dict[str, bytes], machines: list[dict], base: str,
    strategy: str,
) -> str:  # fmt: skip
    """The image that holds the code, on top of the one that all jobs run in."""
    gpu = next((m["acceleratorType"] for m in machines if "acceleratorType" in m), None)
    environment = images.environment_image(session, accelerator=gpu, base=base)
    text = DOCKERFILE.format(environment=environment, script=script, strategy=strategy)
    return images.ensure(session, "tensorflow-cloud", files | {"Dockerfile": text.encode()})


def _submit(
    session: Session, script: str, image: str, machines: list[dict], count: int, arguments: list,
    **more,
) -> Job:  # fmt: skip
    container = {"imageUri": image, "args": ["--", *map(str, arguments)]}
    pools = [
        {"machineSpec": machine, "replicaCount": number, "containerSpec": container}
        for machine, number in zip(machines, ("1", str(count)), strict=False)
    ]
    display_name, base_uri = new_name(session, Path(script).stem)
    named = {"display_name": display_name, "base_uri": base_uri}
    return submit(session, pools, timeout_s=TIMEOUT_S, **named, **more)


def _session(bucket: str) -> Session:
    """The session of the last `connect()`, with that bucket; without one, the local cloud's."""
    bucket = bucket.removeprefix("gs://").rstrip("/")
    try:
        session = last()
    except SettingError:
        print('No helpers.connect(…) before tfc.run: the local cloud is used (CLOUD="local").')
        return connect("local", bucket=bucket)
    return dataclasses.replace(session, bucket=bucket or session.bucket)


def _machine(config) -> dict:
    """A `MachineConfig`, preset or "auto" as the service takes it.

    Raises:
        SettingError: TPUs, which the library's images and this service's machines don't share.
    """
    if config == "auto":
        return dict(AUTO)
    if hasattr(config, "machine_spec"):
        return dict(config.machine_spec)
    kind = getattr(config, "accelerator_type", None)
    if not hasattr(kind, "value"):
        raise SettingError(f'{config!r} is no machine; expected "auto" or a MachineConfig.')
    if kind.value.startswith("TPU"):
        raise SettingError("TPU machines of tensorflow-cloud are gone; choose a GPU preset.")
    gcp = _library("core.gcp")
    machine_type = gcp.get_machine_type(config.cpu_cores, config.memory, kind)
    accelerator = None if kind.value == "CPU" else gcp.get_accelerator_type(kind.value)
    return machine_spec(machine_type, accelerator, config.accelerator_count)


def _in_notebook() -> bool:
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return "google.colab" in sys.modules or "Shell" in type(shell).__name__


def _library(module: str = ""):
    if importlib.util.find_spec("tensorflow_cloud") is None:
        raise ImportError(
            'The tensorflow-cloud library is not installed (tfc.run with chief_config="auto" '
            "works without). Its own requirements no longer install together; this does: "
            "pip install docker google-cloud-storage keras-tuner tensorboard kt-legacy; "
            "pip install --no-deps tensorflow-cloud==0.1.16"
        )
    return importlib.import_module(f"tensorflow_cloud.{module}".rstrip("."))


def __getattr__(name: str):
    if name not in LIBRARY:
        raise AttributeError(f"tensorflow_cloud here has no {name}: its service is gone.")
    library = _library()
    value = getattr(library, name)
    if name == "COMMON_MACHINE_CONFIGS":

        class Preset(library.MachineConfig):
            """A machine that is newer than the library's own table."""

            def __init__(self, spec: dict):
                self.machine_spec = spec
                self.cpu_cores = self.memory = None
                self.accelerator_type = spec["acceleratorType"]
                self.accelerator_count = spec["acceleratorCount"]

        value = value | {key: Preset(spec) for key, spec in PRESETS.items()}
    globals()[name] = value
    return value
