"""One picture's bytes: whether all are there, its size, and a small grey copy. No TensorFlow.

Pillow forgives what TensorFlow's decoders do not, so the parts of a file are checked beside it.
"""

import io
import zlib

import numpy as np

GREY = 16  # pixels a side of the small grey copies that the baseline sees
PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"  # as a file of them begins
PARTS = (b"IHDR", b"PLTE", b"IDAT", b"IEND")  # a reader of PNG must know
LONGEST = 1_000_000  # pixels a side that a reader of PNG takes


def look(content: bytes) -> tuple[int, int, np.ndarray] | str:
    """Width, height and the grey copy of a JPEG or PNG, or what is wrong with it."""
    from PIL import Image

    if not content.startswith((PNG, JPEG)):
        return "no JPEG or PNG" if content else "empty"
    kind, whole = ("PNG", _whole_png) if content.startswith(PNG) else ("JPEG", _whole_jpeg)
    if not whole(content):
        return "damaged"
    try:
        with Image.open(io.BytesIO(content), formats=[kind]) as image:
            width, height = image.size
            if max(width, height) > LONGEST:
                return "too large"
            image.draft("L", (2 * GREY, 2 * GREY))  # a JPEG can be read at a part of its size
            small = _flat(image).resize((GREY, GREY), Image.Resampling.BOX)
            return width, height, np.asarray(small)
    except Image.DecompressionBombError:
        return f"too large: more than {2 * Image.MAX_IMAGE_PIXELS:,} pixels"
    except (OSError, SyntaxError, ValueError):
        return "damaged"


def _whole_png(content: bytes) -> bool:
    """Whether each part that is needed is known, has its checksum, and the last one is there."""
    place, seen = len(PNG), set()
    while b"IEND" not in seen:
        size, name = int.from_bytes(content[place : place + 4]), content[place + 4 : place + 8]
        end = place + 8 + size
        if end + 4 > len(content) or not name.isalpha():
            return False
        if not name[0] & 32:  # a capital: needed
            if name not in PARTS:
                return False
            if zlib.crc32(content[place + 4 : end]) != int.from_bytes(content[end : end + 4]):
                return False
            seen.add(name)
        place = end + 4
    return content[25] != 3 or b"PLTE" in seen  # byte 25: the kind of colours; 3 a palette's


def _whole_jpeg(content: bytes) -> bool:
    """Whether the end is marked, behind where the pixels begin; a preview has marks of its own."""
    place = 2
    while content[place + 1 : place + 2] not in (b"\xda", b""):
        filled = content[place + 1] == 0xFF  # a byte between parts
        place += 1 if filled else 2 + int.from_bytes(content[place + 2 : place + 4])
    return b"\xff\xd9" in content[place:]


def _flat(image):
    """Grey, whatever the file's colours are; of 16 bits the upper ones."""
    if image.mode.startswith("I"):
        from PIL import Image

        return Image.fromarray((np.asarray(image) / 257).clip(0, 255).astype("uint8"))
    return image.convert("L")
