"""Files of pictures, here or in a bucket, as what a model of pictures takes: their bytes."""

import re
from pathlib import Path

from helpers.cloud import storage

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")


def are(names: list[str]) -> bool:
    """Whether these are names of pictures, by how they end."""
    return bool(names) and all(str(name).lower().endswith(SUFFIXES) for name in names)


def find(source, session) -> list[str]:
    """The pictures that `source` means, in the order of their names.

    Args:
        source: a path or gs:// address, or a list of them: of a picture, of a folder (those in its
            sub-folders, too), or with a `*`. What is none of these gives [].
    """
    if isinstance(source, list):
        named = source and all(isinstance(one, str | Path) for one in source) and are(source)
        return [name for one in source for name in find(one, session)] if named else []
    text = str(source)
    if text.startswith("gs://"):
        if not are([text]):
            if re.search(r"\*|\.\w+$", text.rpartition("/")[2]):
                return []  # files of another kind
            text = text.rstrip("/") + "/"
        known = re.sub(r"/[^/]*\*.*", "/", text)
        wanted = re.compile(re.escape(text).replace(r"\*", "[^/]*") + ".+" * text.endswith("/"))
        found = [uri for uri in storage.list_uris(session, known) if wanted.fullmatch(uri)]
    elif "*" in text:
        found = [str(path) for path in Path().glob(text)] if not Path(text).is_absolute() else [
            str(path) for path in Path(Path(text).anchor).glob(text[len(Path(text).anchor):])
        ]  # fmt: skip
    elif Path(text).is_dir():
        found = [str(path) for path in Path(text).rglob("*")]
    else:
        found = [text] if Path(text).is_file() else []
    return sorted(name for name in found if are([name]))


def read(name: str, session) -> bytes:
    """The bytes of a picture."""
    return (
        storage.read_bytes(session, name) if name.startswith("gs://") else Path(name).read_bytes()
    )
