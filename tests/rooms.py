"""Price against size and kind, with gaps in both: 80 rows to train on, 20 to test."""

import numpy as np
import pandas as pd


def rooms() -> pd.DataFrame:
    draw = np.random.default_rng(7)
    frame = pd.DataFrame({"size": draw.uniform(10, 50, 100), "kind": draw.choice(["a", "b"], 100)})
    frame["price"] = 3 * frame["size"] + 20 * (frame["kind"] == "b")
    frame["kind"] = frame["kind"].astype(object)
    frame.loc[[3, 90], "size"] = np.nan
    frame.loc[[5, 95], "kind"] = None
    return frame
