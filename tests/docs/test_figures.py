"""What README shows is what scripts/make_figures.py makes."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from fedmtl.bench.command import Benchmark

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
import make_figures

README = make_figures.README.read_text(encoding="utf-8")


def test_every_picture_and_table_of_readme_is_made():
    assert re.findall(r"!\[[^\]]*\]\(([^)]+)\)|<img[^>]*src=\"([^\"]+)\"", README)
    shown = [one or other for one, other in re.findall(r"!\[[^\]]*\]\(([^)]+)\)|<img[^>]*src=\"([^\"]+)\"", README)]
    assert {str(make_figures.PICTURE.relative_to(make_figures.ROOT))} == set(shown)
    assert make_figures.PICTURE.exists()
    for name in ("benchmark", "speed"):
        begin, end = make_figures.marks(name)
        assert README.index(begin) < README.index("|---|", README.index(begin)) < README.index(end)
    for column in make_figures.COLUMNS.values():
        assert column in README


def test_what_a_command_of_readme_says_is_what_is_run():
    wanted = make_figures.MAIN
    assert f"fedmtl bench {wanted.scenarios[0]} --algorithms {','.join(wanted.methods)} --seeds {wanted.seeds}" in README


def test_a_table_stands_between_its_marks_and_nothing_else_changes():
    begin, end = make_figures.marks("x")
    assert make_figures.inserted(f"a\n{begin}\nold\n{end}\nb", "x", "new \\1") == f"a\n{begin}\nnew \\1\n{end}\nb"
    with pytest.raises(ValueError, match="no place for 'x'"):
        make_figures.inserted("a", "x", "new")


def test_the_table_of_speed_by_hand():
    rows = [{"clients": 20, "arm": "flower", "ms": 752.3}, {"clients": 20, "arm": "inline", "ms": 17.04},
            {"clients": 5000, "arm": "inline", "ms": 1660.2}]
    assert make_figures.speed_table(rows).splitlines()[2:] == ["| 20 | 752 |  |  | 17 (44) |  |", "| 5,000 |  |  |  | 1660 |  |"]


@pytest.mark.slow
def test_a_benchmark_becomes_a_table_and_a_picture(tmp_path):
    small = Benchmark(["quickstart"], ["fedper"], 2, ["rounds=2", "tasks.clients=4"])
    made = make_figures.benchmark(README, small, tmp_path / "runs", tmp_path / "figures" / "one.svg")
    before, _, after = README.partition(make_figures.marks("benchmark")[0])
    assert made.startswith(before)
    assert made.endswith(after.partition(make_figures.marks("benchmark")[1])[2])
    table = made[len(before):made.index(make_figures.marks("benchmark")[1])].splitlines()
    assert {row.split(" | ")[0] for row in table[3:]} == {"| fedper", "| local"}
    assert (tmp_path / "figures" / "one.svg").read_text().startswith("<svg ")
