"""Names and marks of what this package makes: labels, slugs, ids."""

import hashlib
import re

from helpers.errors import SettingError

DISTRIBUTION = "colab-to-cloud"
LABELS = {"made-by": DISTRIBUTION}
LABEL = re.compile(r"[a-z0-9_-]{0,63}")


def is_ours(resource: dict) -> bool:
    """Whether this package made it, here or in another notebook."""
    return LABELS.items() <= resource.get("labels", {}).items()


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
