"""Which run is a baseline: inside, beside, named, and every reason to refuse one."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from fedmtl.errors import FedmtlError
from fedmtl.report.baseline import checked_baseline, find_baseline, why_not
from fedmtl.report.html import write_report
from fedmtl.report.metrics import load_summary

MakeRun = Callable[..., Path]


def local(run: Path, *, value: float | None = None, swaps: dict[str, str] | None = None) -> Path:
    """Make a synthetic run a Local one, with all test scores moved by `value` and other scenario words."""
    scenario = (run / "scenario.toml").read_text().replace('name = "ditto"\nlam = 0.5', 'name = "local"')
    for old, new in (swaps or {}).items():
        assert old in scenario
        scenario = scenario.replace(old, new)
    (run / "scenario.toml").write_text(scenario)
    if value is not None:
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        for line in lines:
            line["value"] = [one * value for one in line["value"]]
        (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run


def test_a_local_run_beside_is_found_and_told(make_run: MakeRun) -> None:
    run = make_run()
    assert find_baseline(run) == (None, [])
    beside = local(make_run("other"), value=0.8)
    assert find_baseline(run) == (beside, [])
    assert find_baseline(beside) == (None, [])
    page = write_report(run).read_text()
    summary = load_summary(run)
    assert summary["delta_m"] == pytest.approx(0.25, abs=1e-4)
    assert (summary["harmed"], summary["baseline"]) == (0.0, "other")
    for said in ("Gain over local", "+25.0\N{NO-BREAK SPACE}%", "Newcombe", "No task and no client is harmed", "digits-relabel-19"):
        assert said in page
    assert (run / "figures" / "gains.svg").exists()


def test_one_inside_comes_first(make_run: MakeRun) -> None:
    run = make_run()
    local(make_run("other"), value=0.8)
    inside = local(make_run("run/baseline-local"), value=1.25)
    assert find_baseline(run)[0] == inside
    page = write_report(run).read_text()
    assert load_summary(run)["harmed"] == 1.0
    assert "Harmed tasks, 20 of 20" in page
    assert "\N{MINUS SIGN}20.0\N{NO-BREAK SPACE}%" in page


@pytest.mark.parametrize(("swaps", "reason"), [
    ({"seed = 3": "seed = 4"}, r"another seed \(seed is 3 here and 4 there\)"),
    ({"rounds = 10": "rounds = 20"}, r"another budget \(rounds is 10 here and 20 there\)"),
    ({"epochs = 1": "epochs = 5"}, r"another budget \(training.epochs is 1 here and 5 there\)"),
    ({"alpha = 0.3": "alpha = 0.5"}, r"other tasks \(tasks.split.0.alpha is 0.3 here and 0.5 there\)"),
    ({'trunk = "mlp"': 'trunk = "cnn"'}, r"another model \(model.trunk"),
])  # fmt: skip
def test_what_cannot_be_compared_is_refused_with_the_reason(make_run: MakeRun, swaps: dict[str, str], reason: str) -> None:
    run, other = make_run(), local(make_run("other"), swaps=swaps)
    assert re.search(reason, why_not(run, other))
    place, refused = find_baseline(run)
    assert place is None
    assert re.search(f"other: {reason}", refused[0])
    with pytest.raises(FedmtlError, match=f"cannot be compared: {reason}"):
        write_report(run, baseline=other)


def test_the_page_says_what_was_refused(make_run: MakeRun) -> None:
    run = make_run()
    local(make_run("other"), swaps={"seed = 3": "seed = 4"})
    page = write_report(run).read_text()
    assert "Runs that are no baseline of this one" in page
    assert "another seed (seed is 3 here and 4 there)" in page


def test_another_split_and_a_run_under_way_are_refused(make_run: MakeRun) -> None:
    run, other = make_run(), local(make_run("other"))
    split = json.loads((other / "split.json").read_text())
    split["clients"][3]["train"] += 1
    (other / "split.json").write_text(json.dumps(split))
    assert why_not(run, other).startswith("another split")
    (other / "summary.json").unlink()
    assert find_baseline(run) == (None, [])
    with pytest.raises(FedmtlError, match="has not ended"):
        checked_baseline(run, other)


def test_a_tuned_learning_rate_is_no_other_budget(make_run: MakeRun) -> None:
    run, other = make_run(), local(make_run("other"), swaps={"lr = 0.05": "lr = 0.1"})
    assert find_baseline(run)[0] == other
