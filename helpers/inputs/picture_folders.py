"""Pictures in folders, one sub-folder a class: found, looked at one by one, split.

`DATA` is `digits` (scikit-learn's 1,797 scanned ones), a folder or a zip, by path or gs:// address.
"""

import contextlib
import re
import warnings
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.cloud.client import Session
from helpers.errors import DataError
from helpers.inputs import class_folders, held_back, picture_bytes
from helpers.inputs import examples as held_out
from helpers.inputs.answers import check_class_names
from helpers.inputs.class_folders import BUILT_IN

EXAMPLE_BYTES = 50_000_000


@dataclass(frozen=True)
class Images:
    """Pictures to learn from and pictures held back; what a plot of a table needs is named alike.

    `train`, `test`: one row a picture: `path` of a file on this machine, `label` (its class), and
    `place`, its row in `grey`, (n, 16, 16) uint8. Files made for this go when this object does.
    """

    name: str
    train: pd.DataFrame
    test: pd.DataFrame
    classes: tuple[str, ...]
    grey: np.ndarray
    notes: tuple[str, ...]
    built_in: bool
    target: str = "label"
    task: str = "multiclass"
    unit: str = ""
    noise_mae: float | None = None
    features: tuple[str, ...] = ("image_bytes",)
    kinds: dict[str, str] = field(default_factory=lambda: {"image_bytes": "text"})
    called: str = "pictures"


def load(source: str = "digits", *, seed: int = 0, session: Session | None = None) -> Images:
    """Find the pictures of each class and hold back a quarter of them.

    Each file is decoded once. One that is no JPEG or PNG, is damaged, or has more pixels than
    Pillow opens (179 million), is named and left out.

    Args:
        source: "digits", or a folder or zip with one sub-folder a class, below which its pictures
            lie: a path, or a gs:// address.
        seed: which pictures are held back; classes keep their shares.
        session: who reads a gs:// address; default: the cloud this process runs in.
    Raises:
        DataError: there are no two classes; the message says what was found.
        NotFoundError: there is no such folder or zip.
    """
    notes: list[str] = []
    with contextlib.ExitStack() as stack:
        built_in = source in BUILT_IN
        top = write_digits(class_folders.scratch(stack)) if built_in else None
        root = class_folders.root(top or class_folders.fetched(source, session, stack), source)
        files, labels = class_folders.files(root)
        frame, grey = _looked_at(root, files, labels, source, notes)
        classes = tuple(sorted(set(frame["label"]), key=_in_order))
        _check(classes, frame, source)
        train, test = held_back.by_class(frame, "label", seed, notes)
        for note in notes:
            print(note)
        name = source if built_in else re.split(r"[/\\]", source.rstrip("/\\"))[-1].split(".")[0]
        images = Images(name, train, test, classes, grey, tuple(notes), built_in)
        weakref.finalize(images, stack.pop_all().close)
    return images


def describe(images: Images) -> pd.DataFrame:
    """One line a class: how many pictures to learn from and to test, and the sizes of the files."""
    both = pd.concat([images.train, images.test])

    def sizes(rows: pd.DataFrame) -> str:
        low, high = rows[["width", "height"]].min(), rows[["width", "height"]].max()
        small = f"{low['width']} × {low['height']}"
        return small if low.equals(high) else f"{small} to {high['width']} × {high['height']}"

    lines = {
        name: {
            "to learn from": int((images.train["label"] == name).sum()),
            "to test": int((images.test["label"] == name).sum()),
            "pixels": sizes(both[both["label"] == name]),
        }
        for name in images.classes
    }
    return pd.DataFrame(lines).T.rename_axis("class")


def examples(images: Images, most: int = 1000) -> tuple[np.ndarray, np.ndarray] | None:
    """Held-out files as they are, and their classes, to travel with the model.

    Args:
        most: so many, evenly spaced, as far as they are no more than 50 MB together; 0 gives None.
    Returns:
        (n,) bytes and (n,) texts.
    """
    sizes = [Path(path).stat().st_size for path in images.test["path"]]
    most = min(most, int(EXAMPLE_BYTES / max(1, np.mean(sizes or [0]))))
    if not most or not sizes:
        return None
    chosen = images.test.iloc[held_out.choose(len(sizes), most)]
    files = np.empty(len(chosen), object)
    files[:] = [Path(path).read_bytes() for path in chosen["path"]]
    return files, chosen["label"].to_numpy()


def write_digits(folder: Path) -> Path:
    """scikit-learn's scanned digits as PNG files, 8 × 8 grey pixels each, a folder a digit."""
    from PIL import Image
    from sklearn.datasets import load_digits

    bunch = load_digits()
    for number, (pixels, digit) in enumerate(zip(bunch.images, bunch.target, strict=True)):
        file = folder / str(digit) / f"{number:04d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        # 17 shades, 0 the paper: ink on white, as one sees it
        Image.fromarray((255 - pixels * 15.9375).astype("uint8")).save(file)
    return folder


def _looked_at(
    root: Path, files: list[Path], labels: list[str], source: str, notes: list[str]
) -> tuple[pd.DataFrame, np.ndarray]:
    """A row each picture that decodes, and its small grey copy."""
    with ThreadPoolExecutor() as pool, warnings.catch_warnings(action="ignore"):
        # Pillow's, of transparent palettes and of large pictures
        looks = list(pool.map(lambda file: picture_bytes.look(file.read_bytes()), files))
    bad = [
        f"{file.relative_to(root).as_posix()} ({look})"
        for file, look in zip(files, looks, strict=True)
        if isinstance(look, str)
    ]
    if bad:
        more = f" and {len(bad) - 6} more" if len(bad) > 6 else ""
        notes.append(f"{len(bad)} of {len(files)} files left out: {', '.join(bad[:6])}{more}")
    good = [place for place, look in enumerate(looks) if not isinstance(look, str)]
    rows = {
        "path": [str(files[place]) for place in good],
        "label": [labels[place] for place in good],
        "width": [looks[place][0] for place in good],
        "height": [looks[place][1] for place in good],
        "place": range(len(good)),
    }
    names = [files[place].relative_to(root).as_posix() for place in good]
    if not good:
        why = f" {notes[-1]}." if notes else ""
        raise DataError(f"{source} holds no JPEG or PNG file in its sub-folders.{why}")
    return pd.DataFrame(rows, index=names), np.stack([looks[place][2] for place in good])


def _check(classes: tuple[str, ...], frame: pd.DataFrame, source: str) -> None:
    if len(classes) < 2:
        raise DataError(
            f'{source} has one class with pictures, "{classes[0]}" ({len(frame)}); expected a '
            "sub-folder for each of two or more."
        )
    check_class_names(classes)


def _in_order(name: str) -> list:
    """Numbers in names by size: class_2 before class_10."""
    return [int(part) if part.isdigit() else part.lower() for part in re.split(r"(\d+)", name)]
