"""What real CSV files bring: encodings, separators, odd headers, amounts, dates, useless columns.

Every column is used, dropped or refused, and a line says so and why.
"""

import codecs
import csv
import io
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.errors import DataError, near

SEPARATORS = ",;\t|"
LEVELS = 1000  # a text column with more levels says little about the next row
NAMED_ID = re.compile(r"(^|_)(id|uuid|guid|key|index|row|nr|no|number)$", re.IGNORECASE)
DATE = r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}.*|\d{1,2}[-/. ](\d{1,2}|[A-Za-z]{3,9})[-/. ]\d{2,4}.*"
SYMBOLS = r"[$€£¥%]"
READ = {
    "header": 0, "index_col": False, "skipinitialspace": True, "na_values": ["?", "-", "--"],
    "low_memory": False, "on_bad_lines": "error",
}  # fmt: skip
CHUNK_ROWS = 50_000


def parse(content: bytes, source: str) -> tuple[pd.DataFrame, dict[str, str], list[str]]:
    """Read a CSV file's bytes.

    Returns:
        Rows with float64 and text (object, None where missing) columns under names that are
        identifiers; units by column ("$", "%"); notes on what was changed.
    Raises:
        DataError: this is no table; the message says what it looks like.
    """
    text = _decode(content, source)
    separator = _separator(text)
    header = next(csv.reader(io.StringIO(text), delimiter=separator))
    if len(header) < 2:
        raise DataError(
            f'{source} has one column ("{header[0][:40]}"); expected a target and one more, '
            "separated by a comma, semicolon, tab or |."
        )
    names, notes = _names(header)
    try:
        frame = pd.read_csv(io.StringIO(text), sep=separator, names=names, **READ)
    except (ValueError, pd.errors.ParserError) as error:
        raise DataError(f"{source} is not a CSV file: {error}") from error
    frame = frame.dropna(how="all").reset_index(drop=True)
    if len(frame) < 2:
        raise DataError(f"{source} has {len(frame)} rows below its header; expected 10 or more.")
    units: dict[str, str] = {}
    columns: dict[str, pd.Series] = {}
    for name in frame:
        columns |= _column(frame[name], separator == ";", units, notes)
    return pd.DataFrame(columns), units, notes


def chunks(path: Path, source: str) -> Iterator[pd.DataFrame]:
    """Read a CSV file a part at a time: columns as `parse` makes them, of dates every part."""
    with open(path, "rb") as file:
        head = file.read(2**16)
    text = _decode(head[: head.rfind(b"\n") + 1] or head, source)
    separator = _separator(text)
    names, _ = _names(next(csv.reader(io.StringIO(text), delimiter=separator)))
    how = {"sep": separator, "names": names, "encoding_errors": "replace"} | READ
    how["encoding"] = "utf-8-sig" if _is_utf8(head) else "cp1252"
    try:
        with pd.read_csv(path, chunksize=CHUNK_ROWS, **how) as parts:
            for part in parts:
                columns: dict[str, pd.Series] = {}
                for name in part:
                    columns |= _column(part[name], separator == ";", {}, [], every_part=True)
                yield pd.DataFrame(columns)
    except (ValueError, pd.errors.ParserError) as error:
        raise DataError(f"{source} is not a CSV file: {error}") from error


def find(name: str, frame: pd.DataFrame) -> str:
    """The column a person means: its name in the file, or as an identifier."""
    if name in frame:
        return name
    if identifier(name, "column") in frame:
        return identifier(name, "column")
    raise DataError(f'TARGET="{name}" is not a column.{near(name, frame.columns)}')


def identifier(name: str, start: str) -> str:
    """A name that Python, TensorFlow and JSON take alike: ASCII letters, digits and `_`."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    plain = re.sub(r"\W+", "_", plain).strip("_")[:60]
    return plain if plain[:1].isalpha() or not start else f"{start}_{plain}".rstrip("_")


def usable(features: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    """The columns that can say something about a row not seen yet."""
    dropped = {name: why for name in features if (why := _useless(features[name]))}
    notes += [f"{name} is left out: {why}" for name, why in dropped.items()]
    return features.drop(columns=list(dropped))


def warn_of_leaks(features: pd.DataFrame, target: pd.Series, notes: list[str]) -> None:
    """Note every column that nearly repeats the target: it may not be known beforehand."""
    number = pd.api.types.is_numeric_dtype(target)
    values = target.to_frame() if number else pd.get_dummies(target).astype("float64")
    for name, column in features.items():
        if pd.api.types.is_numeric_dtype(column) and (
            number or column.nunique() > len(values) / 10
        ):
            known = column.notna() & (column.std() > 0)
            with np.errstate(all="ignore"):
                alike = values[known].corrwith(column[known]).abs().max() > 0.999
        else:  # what is left to say about the target once the column is known
            groups = column.astype(str).to_numpy()
            left = (values - values.groupby(groups).transform("mean")).var(ddof=0).sum()
            alike = column.nunique() <= len(values) / 10 and left < 1e-3 * values.var(ddof=0).sum()
        if alike:
            notes.append(
                f"{name} nearly repeats {target.name}: a leak, if it is not known beforehand "
                "(kept; delete the column to be sure)"
            )


def _decode(content: bytes, source: str) -> str:
    if not content.strip():
        raise DataError(f"{source} is empty; expected a CSV file with a header.")
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        text = content.decode("utf-16")
    elif b"\0" in content[:4096] or content[:2] == b"PK" or content[:4] == b"%PDF":
        raise DataError(f"{source} is a binary file; expected text. Save it as CSV first.")
    else:
        text = content.decode("utf-8-sig" if _is_utf8(content) else "cp1252", errors="replace")
    start = text.lstrip()[:200].lower()
    if start.startswith(("<", "{", "[{")):
        kind = "JSON" if start[0] in "{[" else "a web page"
        raise DataError(f"{source} is {kind}, not CSV. Give the address of the raw CSV file.")
    return text.lstrip("\r\n")


def _is_utf8(content: bytes) -> bool:
    try:  # a character cut in two at the end says nothing
        codecs.getincrementaldecoder("utf-8")().decode(content)
    except UnicodeDecodeError:
        return False
    return True


def _separator(text: str) -> str:
    """The one that cuts most lines into as many parts as the header, then the one with most."""
    lines = text[:50_000].splitlines()[:20]

    def fit(separator: str) -> tuple[int, int]:
        counts = [len(row) for row in csv.reader(lines, delimiter=separator) if row]
        return (counts.count(counts[0]), counts[0]) if counts[0] > 1 else (0, 0)

    return max(SEPARATORS, key=fit)


def _names(header: list[str]) -> tuple[list[str], list[str]]:
    names, changed = [], []
    for number, given in enumerate(header, 1):
        name = base = identifier(given.strip(), "column") if given.strip() else f"column_{number}"
        copy = 2
        while name in names:
            name, copy = f"{base}_{copy}", copy + 1
        names.append(name)
        if name != given:
            changed.append(f'"{given}" is {name}')
    more = f" and {len(changed) - 6} more" if len(changed) > 6 else ""
    return names, [f"renamed: {', '.join(changed[:6])}{more}"] if changed else []


def _column(
    column: pd.Series, semicolons: bool, units: dict, notes: list[str], every_part: bool = False
) -> dict[str, pd.Series]:
    """A column as numbers, as the parts of its dates, or as text."""
    name = column.name
    if pd.api.types.is_numeric_dtype(column):
        numbers = column.astype("float64")
        limit = np.finfo("float32").max
        return {name: numbers.where(numbers.abs() < limit)}  # infinite: as good as missing
    text = column.dropna().astype(str).str.strip()
    text = text[text != ""]
    if text.empty:
        return {name: pd.Series(np.nan, column.index)}
    if set(text.str.lower()) <= {"true", "false"}:
        return {name: (text.str.lower() == "true").astype("float64").reindex(column.index)}
    numbers = _numbers(text, semicolons)
    odd = text[numbers.isna()]
    if len(odd) <= 0.1 * len(text) and odd.nunique() <= 3:
        symbols = text.str.extract(f"({SYMBOLS})")[0].dropna()
        if len(symbols):
            units[name] = symbols.mode().iloc[0]
        read = f'amounts such as "{text.iloc[0]}" are read as numbers'
        ignored = ", ".join(f'"{value}"' for value in odd.unique())
        if len(odd):
            read = f"{ignored} ({len(odd)} rows) taken as missing"
        notes.append(f"{name}: {read}")
        return {name: numbers.reindex(column.index)}
    if text.str.fullmatch(DATE).mean() > 0.9:
        dates = _dates(text)
        if dates.notna().mean() > 0.9:
            return _parts(dates.reindex(column.index), notes, every_part)
    return {name: text.reindex(column.index).astype(object).where(column.notna(), None)}


def _numbers(text: pd.Series, semicolons: bool) -> pd.Series:
    """`$1,200`, `12 %`, `(3.5)`, `1.200,50` → floats; NaN where it is none of these."""
    bare = text.str.replace(rf"\s*{SYMBOLS}\s*", "", regex=True).str.replace("−", "-")
    bare = bare.str.replace(r"^\((.*)\)$", r"-\1", regex=True)
    comma = semicolons or bare.str.fullmatch(r"-?\d+,(\d{1,2}|\d{4,})").any()
    point, thousand = (",", r"[. ]") if comma else (r"\.", "[, ]")
    grouped = bare.str.fullmatch(rf"-?\d{{1,3}}({thousand}\d{{3}})+({point}\d+)?")
    bare = bare.where(~grouped, bare.str.replace(thousand, "", regex=True))
    if comma:
        bare = bare.str.replace(",", ".")
    numbers = pd.to_numeric(bare, errors="coerce").astype("float64")
    return numbers.where(numbers.abs() < np.finfo("float32").max)


def _dates(text: pd.Series) -> pd.Series:
    first = pd.to_numeric(text.str.extract(r"^(\d{1,2})\D")[0], errors="coerce")
    day_first = bool((first > 12).any()) or text.str.contains(r"^\d{1,2}\.").any()
    return pd.to_datetime(text, format="mixed", dayfirst=bool(day_first), errors="coerce", utc=True)


def _parts(dates: pd.Series, notes: list[str], every: bool) -> dict[str, pd.Series]:
    parts = {part: getattr(dates.dt, part) for part in ("year", "month", "dayofweek", "hour")}
    words = {"dayofweek": "day_of_week"}
    kept = {
        f"{dates.name}_{words.get(part, part)}": values.astype("float64")
        for part, values in parts.items()
        if every or values.nunique() > 1
    }
    notes.append(f"{dates.name} holds dates: used as {', '.join(kept) or 'nothing, all are alike'}")
    return kept


def _useless(column: pd.Series) -> str:
    """Why a column can't help, or ""."""
    levels, seen = column.nunique(), column.dropna()
    if levels == 0:
        return "it is empty"
    if levels == 1 and len(seen) == len(column):
        return f'every row has "{seen.iloc[0]}"'
    number = pd.api.types.is_numeric_dtype(column)
    whole = number and levels == len(column) and bool((seen % 1 == 0).all())
    if whole and (NAMED_ID.search(column.name) or (seen.diff().dropna() == 1).all()):
        return "it numbers the rows"
    if not number and levels > 20 and (levels > 0.9 * len(seen) or levels > LEVELS):
        return f"{levels:,} different texts in {len(seen):,} rows say nothing about other rows"
    return ""
