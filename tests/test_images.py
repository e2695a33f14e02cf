"""Pictures in folders: what is found, named, left out and refused. No TensorFlow."""

import io
import shutil
import zipfile
import zlib
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

mpl.use("Agg")

import helpers
from helpers import baselines, images
from helpers.errors import DataError, NotFoundError, SettingError
from helpers.inputs.answers import answer_frame
from helpers.looks import pictures


def picture(shade: int, kind: str = "PNG", mode: str = "RGB", size=(20, 14)) -> bytes:
    draw = np.random.default_rng(shade)
    pixels = (shade + draw.integers(0, 40, (*size[::-1], 3))).astype("uint8")
    made, content = Image.fromarray(pixels).convert(mode), io.BytesIO()
    made.save(content, kind)
    return content.getvalue()


def fill(folder: Path, classes: dict[str, int], count: int = 8) -> Path:
    """So many pictures of each class, the shades of a class alike."""
    for name, shade in classes.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            kind = ("PNG", "JPEG")[number % 2]
            file = folder / name / f"{number}.{kind.lower()}"
            file.write_bytes(picture(shade + number, kind))
    return folder


@pytest.fixture
def folder(tmp_path) -> Path:
    return fill(tmp_path / "pets", {"cat": 30, "dog": 160})


def test_the_built_in_digits_are_real_files():
    found = images.load()
    assert found.classes == tuple("0123456789")
    assert len(found.train) + len(found.test) == 1797
    first = Path(found.test["path"].iloc[0])
    assert first.read_bytes().startswith(b"\x89PNG")
    top = first.parents[1]
    del found
    assert not top.exists()  # what was made for it is gone


def test_a_quarter_of_each_class_is_held_back_and_a_trial_does_not_see_it(folder, monkeypatch):
    found = images.load(str(folder), seed=1)
    assert found.name == "pets"
    assert images.describe(found)["to test"].tolist() == [2, 2]
    assert set(found.test.index).isdisjoint(found.train.index)
    assert set(images.load(str(folder), seed=1).test.index) == set(found.test.index)
    monkeypatch.setenv("CLOUD_ML_TRIAL_ID", "1")
    trial = images.load(str(folder), seed=1)
    assert set(found.test.index).isdisjoint([*trial.train.index, *trial.test.index])


def test_damaged_files_are_named_and_left_out(folder, capsys):
    whole = picture(50, "JPEG", size=(200, 200))
    (folder / "cat" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "cat" / "cut.png").write_bytes(picture(50)[:-30])
    (folder / "cat" / "page.jpg").write_bytes(b"<html>404</html>")
    (folder / "dog" / "none.png").write_bytes(b"")
    (folder / "dog" / "notes.txt").write_text("a text")
    (folder / "dog" / ".DS_Store").write_bytes(b"\0\0")
    found = images.load(str(folder))
    said = capsys.readouterr().out
    assert len(found.train) + len(found.test) == 16
    assert "5 of 21 files left out: " in said
    for name in ("cat/cut.jpg", "cat/cut.png", "cat/page.jpg", "dog/none.png (empty)"):
        assert name in said
    assert ".DS_Store" not in said


def part(name: bytes, content: bytes = b"") -> bytes:
    """A part of a PNG file, with its checksum."""
    ends = zlib.crc32(name + content).to_bytes(4)
    return len(content).to_bytes(4) + name + content + ends


def png(width: int, height: int, *more: bytes, colours: int = 0, depth: int = 8) -> bytes:
    size = width.to_bytes(4) + height.to_bytes(4)
    head = part(b"IHDR", size + bytes([depth, colours, 0, 0, 0]))
    pixels = zlib.compress(bytes((1 + -(-width * depth // 8)) * height))
    return picture(1)[:8] + head + b"".join(more) + part(b"IDAT", pixels) + part(b"IEND")


def turned(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 1]) + content[place:][1:]


LOST = picture(50, "JPEG", size=(90, 90))
LEFT_OUT = {
    **{f"cut {count}": picture(50)[:-count] for count in (1, 4, 8, 12, 14, 18)},
    **{f"turned {place}": turned(picture(50), place) for place in (30, 33, -2, -14)},
    "unknown": png(9, 9, part(b"ABCD")),
    "no name": png(9, 9, part(b"a\xfbcd")),
    "no palette": png(9, 9, colours=3),
    "long": png(1_000_001, 1),
    "no end": LOST[: len(LOST) // 2] + bytes(len(LOST) - len(LOST) // 2),
}


def test_what_tensorflow_would_not_decode_is_left_out_and_what_it_does_is_taken(folder):
    preview = b"\xff\xe1" + (len(LOST) + 2).to_bytes(2) + LOST  # as cameras add one
    taken = {
        "filled": LOST[:2] + b"\xff\xff" + LOST[2:],
        "preview": LOST[:2] + preview + LOST[2:],
        "more behind": picture(3) + b"more",
        "palette": png(9, 9, part(b"PLTE", bytes(9)), part(b"tRNS", b"\0\x80"), colours=3),
        "a note": png(9, 9, part(b"noTe", b"words")),
    }
    large = {"a camera": png(12_000, 9000, depth=1), "a map": png(20_000, 10_000, depth=1)}
    for name, content in (LEFT_OUT | taken | large).items():
        (folder / "cat" / f"{name}.png").write_bytes(content)
    whole, cut = LOST[:2] + preview + LOST[2:], LEFT_OUT["no end"]
    (folder / "cat" / "half.jpg").write_bytes(cut[:2] + preview + cut[2:])
    assert whole.count(b"\xff\xd9") == 2
    found = images.load(str(folder))
    there = {*found.train.index, *found.test.index}
    assert {f"cat/{name}.png" for name in taken} <= there
    assert len(there) == 16 + len(taken) + 1
    assert "17 of 39 files left out: cat/a map.png (too large: more than 178," in found.notes[0]
    tf = pytest.importorskip("tensorflow")
    from helpers.learning.pictures import decode

    for name, content in taken.items():
        assert decode([content], 4).shape == (1, 4, 4, 3), name
    for content in LEFT_OUT.values():
        with pytest.raises(tf.errors.InvalidArgumentError):
            decode([content], 4)


def test_every_way_to_store_a_picture_is_read(tmp_path):
    folder = fill(tmp_path / "modes", {"a": 30, "b": 160}, 2)
    for mode in ("L", "LA", "RGBA", "P", "1"):
        (folder / "a" / f"{mode}.png").write_bytes(picture(20, mode=mode))
    (folder / "a" / "CMYK.jpg").write_bytes(picture(20, "JPEG", "CMYK"))
    deep, content = (np.arange(64).reshape(8, 8) * 1000).astype("uint16"), io.BytesIO()
    Image.fromarray(deep).save(content, "PNG")
    (folder / "a" / "16.png").write_bytes(content.getvalue())
    found = images.load(str(folder))
    assert len(found.train) + len(found.test) == 11
    assert found.notes == ()
    pytest.importorskip("tensorflow")
    from helpers.learning.pictures import decode

    for path in found.train["path"]:  # and the served model reads them, too
        seen = decode([Path(path).read_bytes()], 8).numpy()[0]
        place = found.train.loc[found.train["path"] == path, "place"].iloc[0]
        assert seen.shape == (8, 8, 3)
        assert abs(seen.mean() - found.grey[place].mean()) < 25, path


def test_a_zip_with_what_systems_add(folder, tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "pets.zip", "w") as archive:
        for file in folder.rglob("*.*"):
            archive.write(file, Path("export", "pets", file.relative_to(folder)))
        archive.writestr("__MACOSX/export/._pets", "x")
        archive.writestr("export/.DS_Store", "x")
    monkeypatch.chdir(tmp_path)
    found = images.load("pets.zip")
    assert (found.name, found.classes) == ("pets", ("cat", "dog"))


def test_a_zip_does_not_write_outside_of_its_folder(folder, tmp_path):
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        for file in folder.rglob("*.*"):
            archive.write(file, file.relative_to(folder))
        archive.writestr("../../../evil.png", picture(9))
    images.load(str(tmp_path / "evil.zip"))
    assert not list(tmp_path.rglob("evil.png"))
    assert not Path("/tmp/evil.png").exists()


@pytest.mark.parametrize("packed", [False, True])
def test_a_bucket_s_folder_or_zip(session, folder, tmp_path, packed):
    uri = f"gs://{session.bucket}/{tmp_path.name}/pets"
    if packed:
        shutil.make_archive(str(tmp_path / "made"), "zip", folder)
        uri = helpers.storage.upload_file(session, tmp_path / "made.zip", f"{uri}.zip")
    else:
        helpers.storage.upload_folder(session, folder, uri)
    found = images.load(uri, session=session)
    assert (found.name, found.classes) == ("pets", ("cat", "dog"))
    with pytest.raises(NotFoundError, match="pets"):
        images.load(uri.replace("pets", "pest"), session=session)


def one_class(folder: Path) -> None:
    shutil.rmtree(folder / "dog")


def flat(folder: Path) -> None:
    for file in [*folder.rglob("*.*")]:
        file.rename(folder / f"{file.parent.name}-{file.name}")
    shutil.rmtree(folder / "cat")
    shutil.rmtree(folder / "dog")


def split(folder: Path) -> None:
    for part in ("train", "test"):
        shutil.copytree(folder, folder.parent / "split" / part)
    shutil.rmtree(folder)
    (folder.parent / "split").rename(folder)


def no_pictures(folder: Path) -> None:
    for file in [*folder.rglob("*.*")]:
        file.write_text("text")


def alike(folder: Path) -> None:
    shutil.copytree(folder / "dog", folder / "the-dog")
    shutil.copytree(folder / "dog", folder / "the dog")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (one_class, r'has one class with pictures, "cat" \(8\); expected'),
        (flat, "has no sub-folders; expected one a class"),
        (split, r"is split already .* Give .*/train"),
        (no_pictures, r"holds no JPEG or PNG file .*16 of 16 files left out"),
        (alike, "differ in signs only"),
    ],
)
def test_folders_that_are_no_classes_are_refused(folder, change, said):
    change(folder)
    with pytest.raises(DataError, match=said):
        images.load(str(folder))


def test_what_is_not_there_is_refused(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotFoundError, match='no such folder or zip.*Did you mean "pets"'):
        images.load("pest")
    with pytest.raises(NotFoundError, match='Did you mean "digits"'):
        images.load("digit")
    with pytest.raises(SettingError, match="Download it first"):
        images.load("https://example.com/pets.zip")
    (tmp_path / "one.png").write_bytes(picture(1))
    with pytest.raises(DataError, match="is one file, and no zip"):
        images.load("one.png")


def test_held_out_files_travel_as_they_are(folder):
    found = images.load(str(folder))
    files, labels = images.examples(found, 3)
    assert files[0] == Path(found.test["path"].iloc[0]).read_bytes()
    assert len(files) == len(labels) == 3
    assert images.examples(found, 0) is None


def test_the_rivals_see_the_difference(folder):
    rivals = baselines.score(images.load(str(folder)))
    assert rivals["trivial"]["accuracy"] == 0.5
    assert rivals["linear"]["accuracy"] == 1


def test_pictures_are_drawn_with_their_names(folder, capsys):
    found = images.load(str(folder))
    titles = [axes.get_title() for axes in pictures.grid(found).axes]
    assert titles.count("cat") == titles.count("dog") == 2
    shares = np.array([[0.9, 0.1]] * len(found.test))
    scores = answer_frame("label", found.classes, shares, found.test.index)
    figure = pictures.mistakes(found, scores)
    assert figure.get_suptitle().startswith("2 of 4 test pictures are wrong")
    assert figure.axes[0].get_title() == "dog taken\nfor cat, 90% sure"
    right = (found.test["label"].to_numpy()[:, None] == list(found.classes)).astype(float)
    assert (
        pictures.mistakes(found, answer_frame("label", found.classes, right, scores.index)) is None
    )
    assert "None of the 4" in capsys.readouterr().out
    mpl.pyplot.close("all")


def test_pictures_come_in_the_order_of_their_epoch_from_memory_and_from_disk(folder, monkeypatch):
    pytest.importorskip("tensorflow")
    from helpers.learning import pictures as learning

    found = images.load(str(folder))
    how = {"size": 8, "batch_size": 5}

    def taken(count: int, **where) -> list:
        fed = learning.batches(found, found.train, seed=1, **how, **where)
        return [(x.numpy(), y.numpy()) for x, y in fed.take(count)]

    whole = taken(9)  # 12 pictures: 5, 5 and 2 an epoch
    assert [len(y) for _, y in whole] == [5, 5, 2] * 3
    first, second = (np.concatenate([x for x, _ in whole[i : i + 3]]) for i in (0, 3))
    assert not np.array_equal(first, second)
    assert sorted(map(bytes, first)) == sorted(map(bytes, second))
    rest = taken(4, start_epoch=1, start_step=2)  # as after a stop
    monkeypatch.setattr(learning, "MEMORY_BYTES", 0)
    streamed = taken(9)
    for one, other in [*zip(whole[5:], rest, strict=True), *zip(whole, streamed, strict=True)]:
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])
    monkeypatch.undo()
    last = found.train.index[-1]
    Path(found.train["path"][last]).write_bytes(LEFT_OUT["cut 1"])  # as if only it were seen now
    with pytest.raises(DataError, match=f"can't decode {last}, though Pillow can; expected"):
        taken(1)
    watched = list(learning.batches(found, found.test, **how))
    names = [found.classes[place] for _, y in watched for place in y.numpy()]
    assert names == found.test["label"].tolist()
