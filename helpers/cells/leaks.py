"""What must never be stored or sent along: keys and tokens, found by what they look like."""

import contextlib
import json
import os
import re
from pathlib import Path

from helpers.cloud.folders import project_root

NAME = re.compile(
    r"(^|_)(token|password|passwd|secret|key|credentials?)s?($|_(?!column|field|feature|label))",
    re.IGNORECASE,
)
KINDS = {  # kind -> (what is in every one of them, its form)
    "private key": (
        "PRIVATE KEY",
        r"-----BEGIN [A-Z ]*PRIVATE KEY-----[^-]*(-----END [A-Z ]*PRIVATE KEY-----)?",
    ),
    "service account key": ("service_account", r"\{?[^{}]*type\W{1,8}service_account[^{}]*\}?"),
    "access token": ("ya29.", r"\bya29\.[\w-]{20,}"),
    "API key": ("AIza", r"\bAIza[\w-]{35}\b"),
    "client secret": ("GOCSPX-", r"\bGOCSPX-[\w-]{20,}"),
}


def is_secret(name: str, value) -> bool:
    """Whether a parameter of this name and value is one; a number is none."""
    return isinstance(value, str | bytes) and bool(NAME.search(name))


def shown(content: bytes) -> str:
    """The kind of the first secret in a file's content, or ""."""
    for kind, (sign, pattern) in KINDS.items():
        if sign.encode() in content and re.search(pattern.encode(), content):
            return kind
    return ""


def take_out(notebook, name: str) -> str:
    """Blank every secret of a notebook in place.

    Args:
        name: the notebook's, for the answer.
    Returns:
        A sentence about the first: which cell held it, and its kind; "" when there was none.
    """
    folder = os.environ.get("LOCAL_CLOUD_DIR") or project_root() / ".local-cloud"
    kinds = dict(KINDS)
    with contextlib.suppress(OSError, ValueError, KeyError):
        token = json.loads(Path(folder, "emulator.json").read_text())["token"]
        kinds["local cloud's token"] = (token, re.escape(token))
    found = []

    def clean(value, place: str):
        if isinstance(value, dict):
            for key in value:
                if not key.startswith("image/"):
                    value[key] = clean(value[key], place)
        elif isinstance(value, list):
            value[:] = [clean(item, place) for item in value]
        elif isinstance(value, str):
            for kind, (sign, pattern) in kinds.items():
                if sign in value:
                    value, count = re.subn(pattern, f"[{kind} taken out]", value)
                    found.extend([f"{place} of {name} shows a secret ({kind})."] * bool(count))
        return value

    code = 0
    for cell in notebook.cells:
        code += cell.cell_type == "code"
        clean(cell, f"cell {code}" if cell.cell_type == "code" else "a text cell")
    clean(notebook.metadata, "the metadata")
    return found[0] if found else ""
