"""A built-in series with a known season and known noise."""

import math
import random

import pandas as pd

WEEKS, NOISE = 520, 700


def weekly_sales() -> pd.DataFrame:
    """520 weeks by a known rule, in whole dollars, with Python's own generator.

    A level that grows by $25 a week, times a year's season of two waves (a summer's dip, a peak
    before Christmas). The noise is the sum of four even draws from -700 to 700 (sd 808, mean
    absolute error about 640): what no forecast can know.
    """
    draw, rows = random.Random(2022), []
    for week in range(WEEKS):
        turn = 2 * math.pi * week / 52.1775
        season = 1 + 0.22 * math.cos(turn) + 0.10 * math.cos(2 * turn + 0.6)
        noise = sum(int(draw.random() * (2 * NOISE + 1)) - NOISE for _ in range(4))
        rows.append({"sales": round((18_000 + 25 * week) * season) + noise, "noise": noise})
    weeks = pd.date_range("2014-01-06", periods=WEEKS, freq="7D", name="week")
    return pd.DataFrame(rows, index=weeks).astype("float64")
