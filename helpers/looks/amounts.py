"""Amounts as people write them."""

import math


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
