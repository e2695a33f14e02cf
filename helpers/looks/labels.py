"""Names and titles as Matplotlib can draw them, whatever signs are in them."""

from collections.abc import Iterable

from matplotlib.axes import Axes
from matplotlib.font_manager import FontProperties, findfont, get_font

LABEL = 40  # letters of a name


def title(axes: Axes, text: str, **how) -> None:
    """A title without formulas, of names as `labels` gives them."""
    text = text.replace(r"\$", "$")  # no formula here: nothing to escape
    axes.set_title(text, parse_math=False, **how)


def labels(names: Iterable) -> dict[str, str]:
    """Names as they can be drawn: short, in signs that the font has, none of them a formula."""
    font = get_font(findfont(FontProperties()))
    made: dict[str, str] = {}
    for name in names:
        text = " ".join("".join(c if font.get_char_index(ord(c)) else "□" for c in part)
                        for part in str(name).split()) or "□"  # fmt: skip
        text = text if len(text) <= LABEL else text[: LABEL - 1] + "…"
        label, copy = text.replace("$", r"\$"), 2
        while label in made.values():
            label, copy = rf"{text} ({copy})".replace("$", r"\$"), copy + 1
        made[name] = label
    return made
