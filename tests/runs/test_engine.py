"""The numbers that the console shows of a round."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest

from fedmtl.runs.console import RoundLines
from fedmtl.runs.engine import Line, line_of, worst_tenth
from fedmtl.server.round import Round


@pytest.mark.parametrize(("values", "direction", "wanted"), [
    ([3.0, 1.0, 2.0], "max", 1.0), ([3.0, 1.0, 2.0], "min", 3.0), (list(range(20)), "max", 0.5), (list(range(20)), "min", 18.5),
    (list(range(21)), "max", 1.0), ([math.nan, 4.0], "max", 4.0), ([math.nan], "max", math.nan), ([], "min", math.nan)])
def test_the_worst_tenth(values, direction, wanted):
    assert worst_tenth(np.array(values, dtype=float), direction) == pytest.approx(wanted, nan_ok=True)


def test_a_line_prefers_validation_and_the_adapted_model():
    now = Round(3, sampled=[0, 1, 2], accepted=[0, 1], rejected={2: "why"}, loss={0: 1.0, 1: 2.0}, bytes_up=5)
    for place, value in ((("test", "personal", "accuracy"), 0.1), (("val", "personal", "accuracy"), 0.2),
                         (("val", "global", "accuracy"), 0.3)):
        now.scores[place] = np.array([value, value])
    line = line_of(now, "max", "accuracy", 1.5)
    assert (line.round, line.loss, line.score, line.seconds) == (3, 1.5, 0.2, 1.5)
    assert (line.sampled, line.failed, line.bytes_up) == (3, 1, 5)
    now.scores["val", "adapted", "accuracy"] = np.array([0.4, np.nan])
    assert line_of(now, "max", "accuracy", 1.0).score == 0.4
    now.scores["val", "adapted", "accuracy"] = np.array([np.nan, np.nan])
    assert line_of(now, "max", "accuracy", 1.0).score == 0.2


def test_a_line_without_scores_or_losses_is_undefined_and_not_an_error():
    line = line_of(Round(1), "min", "mse", 1.0)
    assert math.isnan(line.loss)
    assert math.isnan(line.score)


def test_one_client_with_an_undefined_loss_does_not_hide_the_others():
    assert line_of(Round(1, loss={0: math.nan, 1: 2.0, 2: math.inf}), "min", "mse", 1.0).loss == 2.0


def test_plain_lines_without_a_terminal(capsys):
    with RoundLines("a title", 2) as lines:
        for number in (1, 2):
            lines(Line(number, 1.0, 0.5, 0.25, 10, 1, 10**6, 2 * 10**6, 0, 61.0))
    said = capsys.readouterr()
    assert said.out == ""
    title, header, first, second = said.err.splitlines()
    assert title == "a title"
    assert header.split()[:3] == ["round", "loss", "score"]
    assert first.split() == ["1", "1.0000", "0.5000", "0.2500", "9", "1", "1.00", "2.00", "61.000", "1:01"]
    assert second.split()[-1] == "0:00"
    assert "\x1b" not in said.err


def test_quiet_is_silent(capsys):
    with RoundLines("a title", 1, quiet=True) as lines:
        lines(Line(1, 1.0, 0.5, 0.25, 10, 1, 1, 1, 0, 1.0))
    assert capsys.readouterr() == ("", "")


def test_the_header_stands_over_its_columns():
    from rich.console import Console

    lines = RoundLines("t", 1)
    lines.console = Console(file=io.StringIO(), width=300)
    lines.console.print("x")
    from fedmtl.runs.console import HEADER, _text

    assert len(HEADER) == len(_text(Line(1, 1.0, 0.5, 0.25, 10, 1, 1, 1, 0, 1.0), 1.0))
