"""Names and marks of what this package makes: labels, slugs, ids."""

import hashlib
import re
from collections.abc import Iterable

from helpers.errors import SettingError

DISTRIBUTION = "colab-to-cloud"
LABELS = {"made-by": DISTRIBUTION}
ALIAS = re.compile(r"[a-z][a-zA-Z0-9-]{0,126}[a-z0-9]")
LABEL = re.compile(r"[a-z0-9_-]{0,63}")


def is_ours(resource: dict) -> bool:
    """Whether this package made it, here or in another notebook."""
    return LABELS.items() <= resource.get("labels", {}).items()


def number(name: str) -> str:
    """The last part of a resource's name, without a version: its number or id."""
    return name.rsplit("/", 1)[-1].partition("@")[0]


def beside(uri: str, name: str) -> str:
    """The address of what travels with a model: beside a folder named `model`, in any other."""
    folder = uri.rstrip("/")
    return f"{folder.rpartition('/')[0] if folder.endswith('/model') else folder}/{name}"


def slug(text: str, size: int = 63, *, also: str = "") -> str:
    """A text in a-z 0-9 - (and the signs of `also`), cut to a size; a label's value with "_"."""
    return re.sub(rf"[^a-z0-9{also}-]", "-", text.lower())[:size]


def resource_id(name: str) -> str:
    """A display name as a resource id: at most 63 of a-z 0-9 -, a letter first; unlike names have
    unlike ids, because each carries a hash of all of its name."""
    text = slug(name, 50)
    text = text if text[:1].isalpha() else f"m-{text}"
    return f"{text.strip('-')}-{hashlib.sha256(name.encode()).hexdigest()[:10]}"


def check_labels(labels: dict[str, str]) -> None:
    """Refuse labels that the service would refuse.

    Raises:
        SettingError: a key or a value is not usable.
    """
    for key, value in labels.items():
        if not (re.match("[a-z]", key) and LABEL.fullmatch(key) and LABEL.fullmatch(str(value))):
            raise SettingError(
                f'Label {key}="{value}" is not usable; expected at most 63 of a-z 0-9 _ - '
                "(a key starts with a letter)."
            )


def check_aliases(aliases: Iterable[str]) -> None:
    """Refuse aliases of a version that the service would refuse.

    Raises:
        SettingError: one is not usable.
    """
    for alias in aliases:
        if not ALIAS.fullmatch(alias):
            raise SettingError(
                f'Alias "{alias}" is not usable; expected letters, digits, "-", as in v1.'
            )
