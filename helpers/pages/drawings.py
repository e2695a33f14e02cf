"""Curves, bars and points for the templates' SVG: what goes where, and at which ticks."""

import math

from helpers.looks.amounts import money

WIDTH, HEIGHT = 360, 170
LEFT, RIGHT, TOP, BOTTOM = 52, 8, 10, 24


def chart(
    lines: dict[str, list[tuple[float, float]]],
    *,
    dots: bool = False,
    x: str = "",
    unit: str = "",
    log_x: bool = False,
    best: int = -1,
    span: tuple = (),
) -> dict | None:
    """Lines (or dots) over shared axes; None when there is nothing to draw.

    Args:
        lines: name → (x, y) pairs; what is not finite is left out.
        best: which point of the first line is marked.
        span: the ends of the x axis; () takes those of the points.
    """
    marked = next(iter(lines.values()), [])
    marked = marked[best] if 0 <= best < len(marked) else None
    kept = {k: [p for p in points if all(map(math.isfinite, p))] for k, points in lines.items()}
    every = [point for points in kept.values() for point in points]
    if not every:
        return None
    ys = [y for _, y in every]
    log_y = not dots and min(ys) > 0 and max(ys) / min(ys) > 30
    across = _scale([*span, *(p[0] for p in every)], LEFT + 6, WIDTH - RIGHT - 6, log=log_x)
    up = _scale(ys, HEIGHT - BOTTOM - 4, TOP + 4, log=log_y)
    drawn = []
    for name, points in kept.items():
        places = [(round(across(a), 1), round(up(b), 1)) for a, b in points]
        drawn.append({
            "name": name, "points": " ".join(f"{a},{b}" for a, b in places), "places": places,
            "last": money(points[-1][1], unit) if points else "",
        })  # fmt: skip
    xs = sorted({*span, *(p[0] for p in every)})
    ends = [xs[0], xs[-1]] if len(xs) > 1 else xs
    return {
        "lines": drawn, "dots": dots, "x": x,
        "mark": marked and (round(across(marked[0]), 1), round(up(marked[1]), 1)),
        "ticks_x": [(round(across(v), 1), money(v)) for v in ends],
        "ticks_y": [(round(up(v), 1), money(v, unit)) for v in _ticks(ys, log=log_y)],
    }  # fmt: skip


def shares(parts: list[tuple[str, float]], width: int = 600) -> list[dict]:
    """A bar cut into parts: where each begins, how wide it is."""
    total, begin, made = sum(size for _, size in parts) or 1, 0.0, []
    for name, part in parts:
        wide = width * part / total
        made.append({"name": name, "x": round(begin, 1), "width": round(wide, 1), "share": part})
        begin += wide
    return made


def _scale(values: list[float], start: float, end: float, *, log: bool):
    change = math.log if log and min(values) > 0 else float
    low, high = change(min(values)), change(max(values))
    span = high - low
    return lambda v: start + (end - start) * ((change(v) - low) / span if span else 0.5)


def _ticks(values: list[float], *, log: bool) -> list[float]:
    low, high = min(values), max(values)
    middle = math.sqrt(low * high) if log else (low + high) / 2
    return [low] if low == high else [low, middle, high]
