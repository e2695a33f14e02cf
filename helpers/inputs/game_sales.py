"""The built-in table `game_sales`: what a game earns, by a known rule with known noise."""

import random

import pandas as pd

# game_sales: what a game earns, in dollars. 1,000 rows to learn from, then 400 to test.
GAMES, UNSEEN, NOISE = 1000, 400, 4_000


CHANCES = {  # share of rows in which each holds
    "is_action": 0.4, "is_exclusive_to_us": 0.15, "is_portable": 0.25, "is_role_playing": 0.2,
    "is_sequel": 0.3, "is_sports": 0.2, "suitable_for_kids": 0.35,
}  # fmt: skip


PROPOSED = {
    "critic_rating": 4.5, "is_action": 1.0, "is_exclusive_to_us": 1.0, "is_portable": 0.0,
    "is_role_playing": 1.0, "is_sequel": 1.0, "is_sports": 0.0, "suitable_for_kids": 0.0,
    "unit_price": 59.99,
}  # fmt: skip


def game_sales() -> pd.DataFrame:
    """The rows, in whole dollars and with Python's own generator: the same bytes everywhere.

    Earnings grow faster than the rating does, a sequel sells by how good it is, and action helps
    only among adults: a linear model explains about 94 %. The noise is the sum of four even draws
    from -NOISE to NOISE (sd 4,619, mean absolute error about 3,650).
    """
    draw, rows = random.Random(2020), []
    for _ in range(GAMES + UNSEEN):
        half = int(draw.random() * 7)  # half points of the rating above 2.0
        of = {name: int(draw.random() < chance) for name, chance in CHANCES.items()}
        price = int(draw.random() * 3)
        earned = 39_000 + 1_500 * half + 3_000 * half**2 + 15_000 * price
        earned += 4_000 * half * of["is_sequel"]
        earned += 13_000 * of["is_action"] * (1 - of["suitable_for_kids"])
        earned += 28_000 * of["is_exclusive_to_us"] + 22_000 * of["is_role_playing"]
        earned += 4_000 * of["is_sports"] + 2_000 * of["suitable_for_kids"]
        earned -= 2_000 * of["is_portable"]
        noise = sum(int(draw.random() * (2 * NOISE + 1)) - NOISE for _ in range(4))
        row = {"critic_rating": 2 + half / 2, **of, "unit_price": (3999 + 1000 * price) / 100}
        rows.append(row | {"noise": noise, "total_earnings": earned + noise})
    return pd.DataFrame(rows).astype("float64")
