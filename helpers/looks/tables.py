"""Frames that programs compute with and people read: three digits, units, no empty tables."""

from html import escape

import pandas as pd

from helpers.inputs.answers import flat_frame
from helpers.inputs.table import describe
from helpers.looks import amounts


class Shown(pd.DataFrame):
    """A frame whose look in a notebook is made for people; its values stay as they are."""

    _metadata = ["nothing", "units", "hidden", "digits"]  # what pandas leaves alone

    def _repr_html_(self) -> str:
        if self.empty:
            return f"<p>{self.nothing}</p>"
        named, texts = not self._counted(), self._texts()
        looks = {True: "text-align: right", False: "text-align: left; white-space: normal"}
        looks = [looks[pd.api.types.is_numeric_dtype(self[name])] for name in texts]

        def line(kind: str, index: str, cells) -> str:
            cells = "".join(
                f'<{kind} style="{look}">{escape(str(cell)).replace("→ ", "→&nbsp;")}</{kind}>'
                for cell, look in zip(cells, looks, strict=True)
            )
            head = f'<th style="text-align: left">{escape(index)}</th>' if named else ""
            return f"<tr>{head}{cells}</tr>"

        body = "".join(line("td", str(row[0]), row[1:]) for row in texts.itertuples(name=None))
        head = line("th", str(self.index.name or ""), texts)
        return f'<table class="dataframe"><thead>{head}</thead><tbody>{body}</tbody></table>'

    def __repr__(self) -> str:
        if self.empty:
            return self.nothing
        return self._texts().to_string(index=not self._counted())

    def _counted(self) -> bool:
        """Whether the index only numbers the rows, which is no information."""
        return isinstance(self.index, pd.RangeIndex)

    def _texts(self) -> pd.DataFrame:
        kept = [name for name in self if name not in self.hidden]
        look = {
            name: [amount(v, self.units.get(name, ""), self.digits) for v in self[name]]
            for name in kept
        }
        return pd.DataFrame(look, index=self.index)


def shown(
    frame: pd.DataFrame,
    *,
    units: dict[str, str] | str = "",
    nothing: str = "No rows.",
    hidden: tuple[str, ...] = (),
    digits: int = 3,
) -> Shown:
    """A frame with a look for people.

    Args:
        units: of every column, or column -> its own.
        nothing: the sentence that stands for a frame without rows.
        hidden: columns that programs use and nobody reads.
        digits: how many significant ones a fraction has.
    """
    look = Shown(frame)
    look.units = units if isinstance(units, dict) else dict.fromkeys(frame.columns, units)
    look.nothing, look.hidden, look.digits = nothing, hidden, digits
    return look


def head(table, *, own: bool = False) -> Shown:
    """The first training rows, target first; for a person's own data what the columns are like.

    Args:
        own: show the rows of a person's own data too.
    """
    if not (table.built_in or own):
        return shown(describe(table))
    rows = table.train[[table.target, *table.features]].head().reset_index(drop=True)
    return shown(rows, units={table.target: table.unit}, digits=6)


def answered(rows, answers, truth=None, *, unit: str = "", own: bool = True) -> Shown:
    """The first answers, the truth where it is known, and beside them the rows.

    Args:
        rows: as `helpers.predict` takes them; left out unless `own`.
        unit: of a single answer, and of the truth.
    """
    flat = flat_frame(answers).head()
    columns, units = {}, {}
    for place, name in enumerate(flat.columns[:8]):
        head = f"→ {name}"
        columns[head] = flat[name].tolist()
        units[head] = unit if place == 0 else ""
    if truth is not None:
        known = truth if isinstance(truth, dict) else {"truth": truth}
        for name, values in known.items():
            head = name if name == "truth" else f"true {name}"
            columns[head] = [_short(v) for v in [*values][:5]]
            units[head] = unit
    if own and columns:
        named = rows if isinstance(rows, dict | pd.DataFrame) else {"row": rows}
        columns |= {str(name): [_short(v) for v in [*named[name]][:5]] for name in named}
    if len(flat) == 1:  # one below the other: a long row is cut off
        texts = {name: amount(v[0], units.get(name, ""), 4) for name, v in columns.items()}
        return shown(pd.DataFrame({"": texts.keys(), "value": texts.values()}))
    return shown(pd.DataFrame(columns), units=units, nothing="No rows.", digits=4)


def _short(value):
    if isinstance(value, bytes):
        return f"{len(value):,} bytes"
    if hasattr(value, "shape") and value.shape:
        return f"{' × '.join(map(str, value.shape))} of {value.dtype}"
    return value if not isinstance(value, str) or len(value) < 60 else f"{value[:59]}…"


def amount(value, unit: str = "", digits: int = 3) -> str:
    """A value as a table has it: `$4,250`, `0.987`, `12 kWh`, `2026-11-27 23:03 UTC`, a text."""
    if isinstance(value, pd.Timestamp):
        return value.strftime("%Y-%m-%d %H:%M") + (" UTC" if value.tzinfo else "")
    if isinstance(value, bool) or not pd.api.types.is_number(value):
        return "" if pd.api.types.is_scalar(value) and pd.isna(value) else str(value)
    return amounts.amount(value, unit, digits)
