"""The page: complete, escaped, self-contained, small, and walled off from the learning code."""

from __future__ import annotations

import html.parser
import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import pytest

from fedmtl.errors import FedmtlError
from fedmtl.report import plots, words
from fedmtl.report.draw import DARK, NAMES
from fedmtl.report.html import write_report
from fedmtl.report.metrics import load_metrics, load_split, load_summary

MakeRun = Callable[..., Path]

VOID = {"meta", "link", "br", "hr", "img", "input"}


class Outline(html.parser.HTMLParser):
    """Open tags, to see that every one is closed and what the page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.ids: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in {"src", "href", "xlink:href", "action", "data"}:
                self.links.append(value or "")
            assert not name.startswith("on"), f"{tag} {name}"

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def outline(page: str) -> Outline:
    found = Outline()
    found.feed(page)
    assert not found.open
    return found


def test_the_page_leads_with_the_answer_and_holds_the_rest(reported: Path) -> None:
    run, page = reported, (reported / "report.html").read_text()
    summary = load_summary(run)
    mean = words.score("accuracy", summary["test"]["accuracy"]["mean"]).replace(" ", "\N{NO-BREAK SPACE}")
    assert page.index(mean) < page.index('id="models"')
    for said in ("ditto", "lam 0.5", summary["checksum"], "not finite: trunk.0.weight", "subspace_sine", "worst 10 %"):
        assert said in page
    assert f"fedmtl run {run}/scenario.toml" in page
    assert "best test round" not in page
    assert {path.name for path in (run / "figures").iterdir()} >= {"labels.svg", "clients.svg", "curves-accuracy.svg"}


def test_the_page_loads_nothing_and_its_ids_are_its_own(reported: Path) -> None:
    found = outline((reported / "report.html").read_text())
    assert not found.seen & {"script", "iframe", "object", "embed", "form"}
    assert all(link.startswith(("#", "data:")) for link in found.links)
    assert len(found.ids) == len(set(found.ids))


def test_names_cannot_break_out(make_run: MakeRun) -> None:
    run = make_run(name="<script>alert(1)</script> & $x_1$ 中", clients=3, classes=2, tasks=3)
    for name in ("split.json", "metrics.jsonl", "summary.json"):
        path = run / name
        path.write_text(path.read_text().replace("digits-relabel", "<img onerror=x> $"))
    split = load_split(run)
    split["classes"] = ['"><script>', "b"]
    (run / "split.json").write_text(json.dumps(split))
    found = outline(write_report(run).read_text())
    assert not found.seen & {"script", "img"}
    for path in (run / "figures").iterdir():
        ET.fromstring(path.read_text())


@pytest.mark.parametrize(("clients", "limit"), [pytest.param(20, 1_000_000, marks=pytest.mark.slow), (500, 3_000_000)])
def test_the_page_stays_small(make_run: MakeRun, clients: int, limit: int) -> None:
    page = write_report(make_run(clients=clients, rounds=60, models=("personal", "global", "adapted")))
    assert page.stat().st_size < limit


def test_regression_has_no_labels_and_lower_is_better(make_run: MakeRun) -> None:
    run = make_run(regression=True, tasks=4)
    page = write_report(run, png=True).read_text()
    assert "lower is better" in page
    assert "Labels each client holds" not in page
    assert (run / "figures" / "clients.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_under_way_is_reported_as_such(make_run: MakeRun) -> None:
    assert "has not ended: round 10 of 10" in write_report(make_run(finished=False)).read_text()


def test_one_round_one_client_and_undefined_scores(make_run: MakeRun) -> None:
    outline(write_report(make_run("one", clients=1, rounds=1)).read_text())
    run = make_run()
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        line["value"][4] = None
    (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert "Left out: 1 without a defined score" in write_report(run).read_text()


def test_nothing_evaluated_is_an_error(make_run: MakeRun) -> None:
    run = make_run()
    (run / "metrics.jsonl").write_text("")
    with pytest.raises(FedmtlError, match="no scores of the primary metric 'accuracy'"):
        write_report(run)


def test_a_round_run_twice_counts_once(make_run: MakeRun, reported: Path) -> None:
    run, once = make_run(), (reported / "report.html").read_text()
    lines = (run / "journal.jsonl").read_text().splitlines()
    (run / "journal.jsonl").write_text("\n".join([*lines[:6], lines[5], *lines[6:]]))
    assert write_report(run).read_text().replace(str(run), str(reported)) == once


def test_figures_follow_the_theme_and_explain_themselves(make_run: MakeRun) -> None:
    run = make_run()
    chart = plots.learning_curves(load_metrics(run), "accuracy", chosen=3)
    assert "var(--blue, #0072b2)" in chart.inline()
    assert "font-family" not in chart.inline()
    assert not re.search(r"<(style|metadata|script)", chart.inline())
    assert "prefers-color-scheme:dark" in chart.standalone()
    assert set(DARK) == set(NAMES)
    assert "personal, test" in chart.alt
    assert chart.rows[0][0] == "1"
    assert chart.rows[-1][0] == "10"


def test_the_heat_map_shrinks_to_fit() -> None:
    def split(clients: int, classes: int) -> dict[str, object]:
        return {"classes": [], "clients": [{"client": i, "labels": [i + 1] * classes} for i in range(clients)]}

    [small], [large] = plots.heat_maps(split(3, 3)), plots.heat_maps(split(500, 100))
    assert small.inline().count("<text") > 9
    assert len(large.inline()) < 100_000
    assert large.figure.get_figheight() < 6


def test_a_run_that_diverged_everywhere_is_still_reported(make_run: MakeRun) -> None:
    run = make_run(finished=False)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        line["value"] = [None] * len(line["value"])
    (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    page = write_report(run).read_text()
    outline(page)
    assert f'<p class="value">{words.NONE}</p>' in page
    assert "Left out: 20 without a defined score" in page
