"""A series in time: steps, gaps, windows, what is refused. No TensorFlow."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

mpl.use("Agg")

from helpers import baselines, series
from helpers.errors import DataError, SettingError
from helpers.looks import forecasts


def load(folder, times, values=None, **how) -> series.Series:
    values = np.arange(len(times)) * 1.0 if values is None else values
    pd.DataFrame({"when": times, "flat": 5, "load": values}).to_csv(folder / "s.csv", index=False)
    return series.load(str(folder / "s.csv"), **{"window": 5, "horizon": 2} | how)


def test_the_built_in_series_and_its_noise():
    found = series.load()
    assert (found.step, found.season, found.unit) == ("week", 52, "$")
    assert len(found.values) == 520
    assert 600 < found.noise_mae < 800
    assert series.weekly_sales().equals(series.weekly_sales())
    made = series.weekly_sales()
    year = (made["sales"] - made["noise"]).to_numpy()
    best = np.abs(made["noise"]).mean()
    assert np.abs(made["sales"] - year).mean() == pytest.approx(best)


def test_windows_are_cut_by_time(tmp_path):
    found = load(tmp_path, pd.date_range("2024-01-01", periods=40, freq="D"))
    assert found.held == (30, 40)
    assert found.train.x[0].tolist() == [0, 1, 2, 3, 4]
    assert found.train.y[0].tolist() == [5, 6]
    assert found.train.y.max() == 29  # nothing of the test part is learned
    assert found.test.y.min() == 30
    assert found.test.x[0].tolist() == [25, 26, 27, 28, 29]  # it may look back
    assert found.test.y.max() == 39
    assert len(found.test) == 9


def test_a_word_for_a_gap_is_no_time_and_large_numbers_are_numbers(tmp_path, capsys):
    times = list(pd.date_range("1949-01-01", periods=40, freq="MS").strftime("%Y-%m"))
    times[3] = "NA"
    found = load(tmp_path, times, [2**60 + n * 2**50 for n in range(40)])
    assert found.step == "month"
    assert found.values.iloc[-1] == 2.0**60 + 39 * 2**50
    assert "rows without a time are left out: 1" in capsys.readouterr().out


def test_a_trial_does_not_see_the_test_part(tmp_path, monkeypatch):
    monkeypatch.setenv("CLOUD_ML_TRIAL_ID", "1")
    found = load(tmp_path, pd.date_range("2024-01-01", periods=40, freq="D"))
    assert max(found.train.y.max(), found.test.y.max()) == 29
    assert found.train.y.max() < found.test.y.min()


@pytest.mark.parametrize(
    ("times", "step", "season"),
    [
        (pd.date_range("1970-01-01", periods=40, freq="YS").year, "year", 0),
        (pd.date_range("2001-03-31", periods=40, freq="QE"), "quarter", 4),
        (pd.date_range("2001-01-31", periods=40, freq="ME"), "month", 12),
        (pd.date_range("1949-01-01", periods=40, freq="MS").strftime("%Y-%m"), "month", 12),
        (pd.date_range("1949-01-01", periods=40, freq="MS").strftime("%b %Y"), "month", 12),
        (pd.period_range("2001Q1", periods=40, freq="Q").astype(str), "quarter", 4),
        (pd.date_range("2001-01-05", periods=40, freq="7D"), "week", 52),
        (pd.date_range("2001-01-01", periods=40, freq="B"), "working day", 5),
        (pd.date_range("2001-01-01", periods=40, freq="D"), "day", 7),
        (pd.date_range("2001-01-01", periods=40, freq="h"), "hour", 24),
        (pd.date_range("2001-01-01", periods=40, freq="250ms"), "step of 0.25 seconds", 345_600),
        (pd.date_range("2001-01-01", periods=40, freq="15min"), "step of 15 minutes", 96),
        (pd.date_range("2001-01-01", periods=40, freq="2MS"), "step of 2 months", 6),
    ],
)
def test_steps_of_calendars_and_clocks(tmp_path, times, step, season):
    found = load(tmp_path, times)
    assert (found.step, found.season) == (step, season)
    assert len(found.values) == 40
    assert not found.values.isna().any()


ZONE, DAY = "Europe/Berlin", "2022-01-01"
BERLIN = pd.date_range("2022-01-01", periods=9000, freq="h", tz=ZONE)
YEAR = pd.date_range("2022-01-01", "2022-12-31", freq="6h")


@pytest.mark.parametrize(
    ("times", "step", "first"),
    [
        (pd.bdate_range("2022-01-03", periods=300, tz=ZONE), "working day", ""),
        (pd.date_range("2000-01-01", periods=40, freq="MS", tz="Asia/Tokyo"), "month", ""),
        (pd.date_range("2022-01-01", periods=300, tz="America/St_Johns")[::-1], "day", DAY),
        (BERLIN, "hour", ""),  # an hour that comes twice, one that never does
        (BERLIN[5000:][::-1], "hour", "2022-07-28 09:00"),
        (YEAR.tz_localize(ZONE), "step of 6 hours", ""),  # even on the clock
        (YEAR.tz_localize("UTC").tz_convert(ZONE), "step of 6 hours", f"{DAY} 01:00"),
        (YEAR[:90].strftime("%Y-%m-%dT%H:%M:%S.000Z"), "step of 6 hours", DAY),
        (YEAR[:90:4].strftime("%d.%m.%Y %I:%M %p CET"), "day", DAY),
        (YEAR[:90].strftime("%Y-%m-%d %H:%M-0330"), "step of 6 hours", DAY),
    ],
)
def test_times_with_a_zone_stay_as_they_are_written(tmp_path, times, step, first):
    if hasattr(times, "tz") and times.tz:
        first, times = first or times[0].tz_localize(None), [time.isoformat() for time in times]
    found = load(tmp_path, times)
    assert (found.step, found.values.index[0]) == (step, pd.Timestamp(first))
    assert len(found.values) == len(times)
    assert not found.values.isna().any()
    assert found.values.index[0].tz is None


def test_a_file_that_keeps_zones_is_read_alike(tmp_path):
    pd.DataFrame({"when": BERLIN, "load": range(9000)}).to_parquet(tmp_path / "s.parquet")
    found = series.load(str(tmp_path / "s.parquet"), window=5, horizon=2)
    assert (found.values.index == pd.date_range("2022-01-01", periods=9000, freq="h")).all()


@pytest.mark.parametrize(("start", "apart"), [(1600, 1), (1510, 2)])
def test_years_of_long_ago(tmp_path, start, apart):
    found = load(tmp_path, range(start, 1900, apart))
    assert found.values.index[0].year == start
    assert len(found.values) == (1900 - start) // apart
    assert series.describe(found).loc["from"].item() == f"{start}-01-01"
    forecasts.look(found).figure.canvas.draw()
    mpl.pyplot.close("all")


def test_gaps_are_named_and_their_windows_left_out(tmp_path, capsys):
    times = pd.date_range("2024-01-01", periods=60, freq="D")
    values = np.arange(60.0)
    values[50] = np.nan
    found = load(tmp_path, times.delete([10, 11]), np.delete(values, [10, 11]))
    said = capsys.readouterr().out
    assert "gaps: 2024-01-11 (2), 2024-02-20 (1), 3 × one day without a value" in said
    for windows in (found.train, found.test):
        assert len(windows)
        whole = np.hstack([windows.x, windows.y])
        assert (np.diff(whole, axis=1) == 1).all()  # no window jumps over a gap


def test_the_order_in_the_file_and_other_forms_do_not_matter(tmp_path):
    times = pd.date_range("2024-01-01", periods=40, freq="D")
    order = np.random.default_rng(0).permutation(40)
    frame = pd.DataFrame({"Tag": times.strftime("%d.%m.%Y"), "Umsatz": np.arange(40) + 0.5})
    frame["Umsatz"] = frame["Umsatz"].map("{:.2f} €".format).str.replace(".", ",")
    frame.iloc[order].to_csv(tmp_path / "u.csv", sep=";", index=False)
    found = series.load(str(tmp_path / "u.csv"), window=5, horizon=2)
    assert (found.target, found.unit) == ("Umsatz", "€")
    assert found.values.tolist() == (np.arange(40) + 0.5).tolist()


def test_forecasts_without_a_model(tmp_path):
    times = pd.date_range("2024-01-01", periods=80, freq="D")
    found = load(tmp_path, times, np.tile(np.arange(7.0), 12)[:80], window=8, horizon=9)
    made = series.naive(found, found.test)
    np.testing.assert_allclose(made["seasonal"], found.test.y)  # also past one season
    assert (made["last_value"] == found.test.x[:, -1:]).all()
    rivals = baselines.score(found)
    assert rivals["seasonal"]["mae"] == 0
    assert rivals["linear"]["mae"] < 0.5 * rivals["last_value"]["mae"]


DAYS = pd.date_range("2024-01-01", periods=40, freq="D")


@pytest.mark.parametrize("factor", [1, 1000])
def test_seconds_since_1970_are_times_where_it_is_said(tmp_path, factor):
    seconds = (1_700_000_000 + 3600 * np.arange(40)) * factor
    file = tmp_path / "own.csv"
    pd.DataFrame({"stamp": seconds, "load": np.arange(40.0)}).to_csv(file, index=False)
    with pytest.raises(DataError, match="has no times"):
        series.load(str(file), window=5, horizon=2)
    found = series.load(str(file), time="stamp", window=5, horizon=2)
    assert (found.step, found.target) == ("hour", "load")
    assert found.values.index[0] == pd.Timestamp("2023-11-14 22:13:20")


@pytest.mark.parametrize(
    ("times", "how", "said"),
    [
        (DAYS[:6], {}, "has 6 steps; WINDOW=5 and HORIZON=2 leave 0"),
        (DAYS.repeat(2)[:40], {}, "has 2 rows for 2024-01-01"),
        (DAYS[:20].append(DAYS[20:] + pd.Timedelta("7h")), {}, "are not evenly spaced"),
        (DAYS, {"target": "flat"}, '"flat" of .*s.csv is 5 throughout; expected numbers that'),
        (["x"] * 40, {}, "has no times in 'when', 'flat', 'load'"),
        (DAYS, {"time": "wen"}, 'TIME="wen" is not a column. Did you mean "when"'),
        (DAYS, {"target": "lod"}, 'TARGET="lod" is not a column. Did you mean'),
    ],
)
def test_what_is_no_series_is_refused(tmp_path, times, how, said):
    with pytest.raises(DataError, match=said):
        load(tmp_path, times, np.arange(len(times)) / 7, **how)


def test_gaps_everywhere_leave_no_window(tmp_path):
    values = np.where(np.arange(40) % 4 == 0, np.nan, np.arange(40))
    with pytest.raises(DataError, match="leave 0 whole windows .* fill the gaps"):
        load(tmp_path, DAYS, values)


def test_lengths_under_one_are_refused():
    with pytest.raises(SettingError, match="WINDOW=0"):
        series.load(window=0)


def test_the_pictures_say_how_far_off(tmp_path):
    found = load(tmp_path, DAYS)
    assert "the last 10 are held back" in forecasts.look(found).get_title()
    axes = forecasts.beside_truth(found, found.test.y + 2)
    assert axes.get_title() == "Off by 2 on average, 5 forecasts in a row"
    axes = forecasts.by_step(found, found.test.y + 2)
    assert axes.get_title() == "Off by 2 one step ahead, by 2 at step 2"
    lines = [line for line in axes.get_lines() if not line.get_label().startswith("_")]
    assert len({line.get_color() for line in lines}) == len(lines) == 3
    mpl.pyplot.close("all")
