"""Gains over another run: the formula by hand, both directions, intervals, and runs that cannot be compared."""

import json

import numpy as np
import pytest

from fedmtl.errors import FedmtlError
from fedmtl.report.gains import gain_summary, gains, interval, share_interval

SPLIT = [{"client": 0, "task": "a", "metric": "accuracy"}, {"client": 1, "task": "a", "metric": "accuracy"},
         {"client": 2, "task": "b", "metric": "rmse"}]


def write(place, accuracy, rmse, seed=0, split=SPLIT):
    place.mkdir()
    (place / "scenario.toml").write_text(f"name = 'x'\nseed = {seed}\n")
    (place / "split.json").write_text(json.dumps({"classes": [], "clients": split, "primary": "loss", "jsd": None}))
    common = {"round": 1, "split": "test", "model": "personal"}
    lines = [{**common, "metric": "accuracy", "direction": "max", "client": [0, 1], "task": ["a", "a"], "value": accuracy,
              "n": [5, 5]},
             {**common, "metric": "rmse", "direction": "min", "client": [2], "task": ["b"], "value": rmse, "n": [5]},
             {**common, "metric": "loss", "direction": "min", "client": [0, 1, 2], "task": ["a", "a", "b"], "value": [9.0] * 3,
              "n": [5, 5, 5]}]
    (place / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return place


def test_the_formula_in_both_directions(tmp_path):
    run, base = write(tmp_path / "run", [0.9, 0.4], [1.0]), write(tmp_path / "base", [0.6, 0.5], [2.0])
    frame = gains(run, base)
    assert frame["gain"].tolist() == pytest.approx([0.5, -0.2, 0.5])
    said = gain_summary(frame)
    assert said["delta_m"] == pytest.approx((0.15 + 0.5) / 2)  # over tasks, not clients
    assert said["harmed"] == pytest.approx(1 / 3)
    assert said["gains"]["tasks"]["a"]["gain"] == pytest.approx(0.15)
    assert said["gains"]["tasks"]["b"]["interval"] is None


@pytest.mark.parametrize("other", [{"seed": 1}, {"split": SPLIT[:2]}])
def test_unlike_runs_are_refused(tmp_path, other):
    run, base = write(tmp_path / "run", [0.9, 0.4], [1.0]), write(tmp_path / "base", [0.6, 0.5], [2.0], **other)
    with pytest.raises(FedmtlError, match="cannot be compared"):
        gains(run, base)


def test_intervals_cover_what_they_say():
    draw = np.random.default_rng(0)
    inside = [low <= 1.0 <= high for low, high in (interval(draw.normal(1.0, 2.0, 12)) for _ in range(400))]
    assert 0.92 <= np.mean(inside) <= 0.98
    assert interval(np.array([1.0])) is None
    low, high = share_interval(3, 10)
    assert (low, high) == pytest.approx((0.1078, 0.6032), abs=1e-3)
