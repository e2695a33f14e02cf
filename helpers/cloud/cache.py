"""Data of the bucket as files of this machine, fetched once."""

import getpass
import hashlib
import json
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from helpers.cloud import environment, storage
from helpers.cloud.client import Session
from helpers.cloud.folders import project_root
from helpers.errors import NotFoundError, near


def fetch(source: str, *, session: Session | None = None) -> Path:
    """The path of a file or folder on this machine; one at a gs:// address is fetched first.

    What was fetched is kept by its content: the same files are fetched once, whatever job asks.

    Args:
        source: a gs:// address of an object or a folder, or a path (of the working directory or
            the project).
        session: who reads a gs:// address; default: the cloud this process runs in.
    Raises:
        NotFoundError: there is nothing of that name; the nearest is given.
    Source: REST v1 objects.list, objects.get
    """
    source = str(source)
    if not source.startswith("gs://"):
        for folder in (Path.cwd(), project_root()):
            path = folder / Path(source).expanduser()
            if path.exists():
                return path
        beside = [path.name for path in Path.cwd().iterdir()]
        hint = near(source, beside)
        raise NotFoundError(f'"{source}": no file or folder of that name in {Path.cwd()}.{hint}')
    cloud = session or environment.from_environment()
    found = _listed(cloud, source)
    content = hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()[:24]
    kept = Path(tempfile.gettempdir(), f"colab-to-cloud-{getpass.getuser()}", content)
    name = source.rstrip("/").rpartition("/")[2]
    if (kept / name).exists():
        return kept / name
    kept.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=".part-", dir=kept))
    base = source.rstrip("/")

    def get(below: str) -> None:
        storage.download_file(cloud, base + below, Path(f"{part / name}{below}"))

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(get, found))
    if not (kept / name).exists():  # else another process was faster
        (part / name).rename(kept / name)
    shutil.rmtree(part)
    return kept / name


def _listed(cloud: Session, source: str) -> dict[str, str]:
    """What is at an address: "" or "/NAME" below it -> its checksum."""
    bucket, prefix = storage.split_uri(source.rstrip("/"))
    objects = cloud.service("storage").objects()
    fields = "items(name,crc32c,size),nextPageToken"
    items = cloud.list(objects, "items", bucket=bucket, prefix=prefix, fields=fields)
    sums = {item["name"].removeprefix(prefix): item["crc32c"] for item in items}
    if "" in sums and not source.endswith("/"):
        return {"": sums[""]}
    below = {k: v for k, v in sums.items() if k.startswith("/") and not k.endswith("/")}
    if not below:
        parent = source.rstrip("/").rpartition("/")[0] + "/"
        around = {uri.removeprefix(parent).split("/")[0] for uri in storage.sizes(cloud, parent)}
        hint = near(source.rstrip("/").rpartition("/")[2], around)
        raise NotFoundError(f"{source} does not exist: neither a file nor a folder.{hint}")
    return below
