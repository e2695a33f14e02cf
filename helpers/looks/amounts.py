"""Amounts as people write them, in tables and beside axes."""

import math
import numbers
import re

IN_UNIT = ("mae", "rmse")  # the metrics that have the target's unit
SHARES = ("accuracy", "auc", "f1", "precision", "recall")  # compared in points


def money(value: float, unit: str = "") -> str:
    """An amount as people write it: `$120 k`, `1.3 M`, `0.42`."""
    size, sign = abs(value), "−" if value < 0 else ""
    number = f"{size:.3g}"
    for factor, name in [(1e9, " G"), (1e6, " M"), (1e3, " k")]:
        if 0.9995 * factor <= size < math.inf:
            digits = 0 if size >= 99.95 * factor else 1
            number = f"{size / factor:.{digits}f}".removesuffix(".0") + name
            break
    return f"{sign}{unit}{number}" if unit in ("", "$", "€", "£") else f"{sign}{number} {unit}"


def read_money(text: str) -> float:
    """The value that `money` wrote, in its digits; NaN of anything else."""
    found = re.fullmatch(r"(−?)[$€£]?([\d.]+(?:e[+-]?\d+)?|inf)(?: ([kMG])\b)?(?: .*)?", text)
    if not found:
        return math.nan
    factor = {"k": 1e3, "M": 1e6, "G": 1e9}.get(found[3], 1) * (-1 if found[1] else 1)
    return factor * float(found[2])


def amount(value, unit: str = "", digits: int = 3) -> str:
    """A number as a table has it: `$4,250`, `0.987`, `12 kWh`; other values as text."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return "" if value is None else str(value)
    if math.isnan(value):
        return ""
    if math.isinf(value):
        return f"{value:g}"
    size, sign = abs(value), "−" if value < 0 else ""
    places = digits - 1 - math.floor(math.log10(size)) if size else 0
    rounded = float(size) if float(size).is_integer() else round(float(size), places)
    text = f"{rounded:,.{max(places, 0)}f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    if 0 < size < 1e-4:
        text = f"{size:.2g}"
    return f"{sign}{unit}{text}" if unit in ("", "$", "€", "£") else f"{sign}{text} {unit}"


def verdict(metric: str, ours, theirs) -> str:
    """`12 % better`, `5 points worse`: how a metric of ours differs; "" where it can't be told."""
    numbers = all(isinstance(v, int | float) and math.isfinite(v) for v in (ours, theirs))
    if not numbers or not (theirs or metric in SHARES):
        return ""
    gain = 100 * (ours - theirs) / (1 if metric in SHARES else abs(theirs))
    gain *= 1 if metric in SHARES or metric == "r2" else -1
    if abs(gain) < 0.05:
        return "the same"
    unit = "points" if metric in SHARES else "%"
    return f"{float(f'{abs(gain):.2g}'):g} {unit} {'better' if gain > 0 else 'worse'}"
