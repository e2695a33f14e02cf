"""Built-in texts with a label each, by a known rule."""

import random

import pandas as pd

REVIEWS, FLIPPED = 2000, 0.04


def reviews() -> pd.DataFrame:
    """2,000 reviews by a known rule, with Python's own generator: the same everywhere.

    A review praises or blames things; "not" turns a word round. Joined by "but" the second half
    decides, so that the same words in another order say the opposite. One of 25 verdicts is turned
    round: no model can be right in more than 96 %.
    """
    draw = random.Random(2021)
    things = ["screen", "battery", "sound", "case", "camera", "price", "manual", "keyboard"]
    praise = ["great", "lovely", "solid", "bright", "reliable", "quick", "perfect", "handy"]
    blame = ["poor", "ugly", "flimsy", "dim", "broken", "slow", "awful", "useless"]
    says = ["I bought it in {}.", "It came in {}.", "My brother got one in {}.", "Ordered in {}."]
    months = ["January", "March", "May", "July", "August", "October", "December"]

    def half(good: bool, thing: str) -> str:
        turned = draw.random() < 0.3
        word = draw.choice(praise if good != turned else blame)
        much = draw.choice(["", "", "really ", "very ", "quite "])
        return f"the {thing} is {'not ' * turned}{much}{word}"

    rows = []
    for _ in range(REVIEWS):
        good, (one, two) = draw.random() < 0.5, draw.sample(things, 2)
        kind = draw.choice(["one", "and", "but", "but"])
        said = half(good, one)
        if kind == "and":
            said = f"{said} and {half(good, two)}"
        elif kind == "but":
            said = f"{half(not good, two)} but {said}"
        said = f"{said[0].upper()}{said[1:]}{draw.choice('.!')}"
        more = draw.choice(says).format(draw.choice(months))
        text = f"{more} {said}" if draw.random() < 0.5 else f"{said} {more}"
        flipped = draw.random() < FLIPPED
        rows.append({"text": text, "verdict": "good" if good != flipped else "bad"})
    return pd.DataFrame(rows)
