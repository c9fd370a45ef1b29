"""The command line: `fedmtl run quickstart`. Commands only parse, call and print."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedmtl.errors import DiskError, FedmtlError, ScenarioError

if TYPE_CHECKING:
    from fedmtl.bench.board import Tables

app = typer.Typer(help="Federated multi-task learning, simulated.", no_args_is_help=True, add_completion=False,
                  rich_markup_mode=None, pretty_exceptions_enable=False)

ScenarioArgument = Annotated[str, typer.Argument(help="A scenario file, or the name of a shipped one (fedmtl ls scenarios).")]
OverridesArgument = Annotated[list[str] | None, typer.Argument(help="key=value words, as algorithm.name=ditto rounds=20.")]
OutOption = Annotated[Path | None, typer.Option("--out", help="The directory to write; by default a new one under runs/.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output and nothing else.")]
BudgetOption = Annotated[str, typer.Option(metavar="UNIT=N", help="What a run may spend: steps, samples, bytes or seconds; it "
                                           "ends when another round would take more, or with its last round.")]
TrackOption = Annotated[list[str] | None, typer.Option(help="Also write scores to tensorboard, mlflow or wandb; may be repeated.")]
VerboseOption = Annotated[bool, typer.Option("--verbose", help="Show what Flower and Ray log.")]


@app.command()
def run(scenario: ScenarioArgument, overrides: OverridesArgument = None, out: OutOption = None, as_json: JsonOption = False,
        verbose: VerboseOption = False,
        profile: Annotated[bool, typer.Option("--profile", help="Say where the time of a round goes.")] = False,
        baseline: Annotated[str, typer.Option(help="Also run this method on the same clients, and say what is gained.")] = "",
        budget: BudgetOption = "", track: TrackOption = None) -> None:
    """Run a scenario to its end: progress here, results in a run directory."""
    from fedmtl.runs import runner
    from fedmtl.runs.budget import budget_words

    finished = runner.run(scenario, [*(overrides or []), *budget_words(budget)], out=out, quiet=False, verbose=verbose,
                          profile=profile, baseline=baseline, track=track or [])
    _finish(finished.path, finished.summary, as_json)
    if profile and not as_json:
        from fedmtl.report.tables import profile_text

        print(profile_text(finished.path))


def _finish(path: Path, summary: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps({"out": str(path), **summary}))
        return
    from rich.console import Console

    from fedmtl.report.tables import final_table, final_text

    console = Console(highlight=False)
    if console.is_terminal:
        console.print(final_table(summary))
    else:
        print(final_text(summary))
    if "newcomers" in summary:
        from fedmtl.report.shots import shot_text

        print(shot_text(summary["newcomers"]), end="\n\n")
    print(f"report: {path / 'report.html'}")


@app.command()
def deploy(scenario: ScenarioArgument, overrides: OverridesArgument = None,
           clients: Annotated[int, typer.Option(help="How many client processes.", min=1)] = 3, out: OutOption = None,
           as_json: JsonOption = False, verbose: VerboseOption = False) -> None:
    """Run a scenario as real processes on this machine: a SuperLink, and a SuperNode for each client."""
    from fedmtl.runs.results import next_directory
    from fedmtl.runs.runner import stem_of
    from fedmtl.runtime import processes
    from fedmtl.scenario import load_scenario

    chosen = load_scenario(scenario, [*(overrides or []), f"tasks.clients={clients}"])
    target = out or next_directory(Path("runs"), f"{stem_of(chosen)}-deploy")
    finished = processes.deploy(chosen, clients, target, verbose=verbose)
    _finish(finished.path, finished.summary, as_json)


@app.command()
def bench(words: Annotated[list[str], typer.Argument(metavar="SCENARIO... [KEY=VALUE]...", help="Scenarios; key=value for all "
                                                     "runs, METHOD.key=value for those of one method; "
                                                     "runtime.address=HOST:PORT runs them on that Ray cluster, all of whose nodes "
                                                     "must reach --out and the current folder.")],
          algorithms: Annotated[str, typer.Option(help="Methods, as a,b,c; Local always runs.")] = "local",
          seeds: Annotated[int, typer.Option(help="How many, counted up from the scenario's.", min=1)] = 5,
          out: Annotated[Path, typer.Option(help="The directory; started again, it runs what is missing.")] = Path("bench"),
          workers: Annotated[int, typer.Option(help="Runs side by side; 0 is one a core.", min=0)] = 0,
          tune: Annotated[int, typer.Option(metavar="N", help="Tune every method first, with N trials each on validation rows.",
                                            min=0)] = 0,
          budget: BudgetOption = "", track: TrackOption = None, as_json: JsonOption = False) -> None:
    """Run scenarios x methods x seeds side by side, and say which method wins and whether that is sure."""
    from fedmtl.bench.pool import warm_up

    warm_up()  # before what follows is imported here: it is imported there meanwhile
    from fedmtl.bench.command import Benchmark
    from fedmtl.bench.runs import failures
    from fedmtl.runs.budget import budget_words

    names, settings = ([word for word in words if ("=" in word) is chosen] for chosen in (False, True))
    asked = Benchmark(names, [name.strip() for name in algorithms.split(",")], seeds, [*settings, *budget_words(budget)], tune,
                      tuple(track or ()))
    failed, said, written = asked.run(out, workers)
    if as_json:
        print(json.dumps({"out": str(out), "rows": json.loads(said.board.to_json(orient="records")), "failed": failed}))
    else:
        _show_board(said, failures(out))
        for path in written:
            print(path)
    if failed:
        raise FedmtlError(f"{len(failed)} runs failed; start it again to try them once more")


def _show_board(said: Tables, failed: Sequence[tuple[str, str]]) -> None:
    from rich.console import Console

    from fedmtl.bench.live import board_tables

    console = Console(highlight=False, width=None if sys.stdout.isatty() else 150)  # a pipe has no width of its own
    for table in board_tables(said, failed):
        console.print(table)


@app.command()
def engine(folder: Annotated[Path, typer.Argument(help="The app: a folder whose pyproject.toml has [tool.flwr.app].")],
           nodes: Annotated[int, typer.Option(help="How many nodes; 0 takes the app's own num-supernodes.", min=0)] = 0,
           run_config: Annotated[str, typer.Option(help='As for flwr run, for example "num-server-rounds=3 lr=0.1".')] = "",
           workers: Annotated[int, typer.Option(help="Processes; 0 is one a core.", min=0)] = 0,
           verbose: VerboseOption = False) -> None:
    """Run any Flower app on fedmtl's Ray workers: the same apps, a faster engine."""
    from fedmtl.runtime import run_flower_app
    from fedmtl.runtime.flower_app import load_app

    loaded = load_app(folder, run_config)
    count = nodes or loaded.nodes
    if not count:
        raise ScenarioError("--nodes", "the app does not say how many nodes it wants; say it here")
    run_flower_app(loaded.server_app, loaded.client_app, num_supernodes=count, workers=workers, run_config=loaded.run_config,
                   verbose=verbose)


@app.command()
def show(scenario: ScenarioArgument, overrides: OverridesArgument = None, out: OutOption = None,
         html: Annotated[Path | None, typer.Option("--html", help="Also write the picture as a page.")] = None) -> None:
    """Show who has what: each client's task, samples, classes or targets, how non-IID the split is, what a round moves."""
    from rich.console import Console

    from fedmtl.report.holdings import holdings
    from fedmtl.report.preview import write_pngs, write_preview
    from fedmtl.runs.preview import preview

    split, costs = preview(scenario, overrides or [])
    console = Console(highlight=False)
    console.print(holdings(split))
    moves = (f"a round moves {costs['down']:,} bytes down and {costs['up']:,} bytes up "
             f"({costs['clients']} clients, {costs['parameters']:,} of {costs['model']:,} parameters shared)")
    print(moves)
    target = out or Path("runs") / f"{Path(scenario).stem}-split"
    with told(target):
        written = write_pngs(target, split)
    for path in written:
        print(f"heat map: {path}")
    if html is not None:
        with told(html):
            write_preview(html, Path(scenario).stem, split, moves)
        print(f"page: {html}")


@app.command()
def check(scenario: ScenarioArgument, overrides: OverridesArgument = None) -> None:
    """Check that a scenario can run, its data and split included, without running it."""
    from fedmtl.runs.preview import preview

    split, _ = preview(scenario, overrides or [])
    print(f"{scenario}: can run, {len(split['clients'])} clients")


@app.command("ls")
def list_kinds(kind: Annotated[str, typer.Argument(help="algorithms, scenarios, sources, splits, ...")] = "algorithms",
               match: Annotated[str, typer.Argument(metavar="[FILTER]", help="Only names or lines that contain this.")] = "",
               as_json: JsonOption = False) -> None:
    """List what a scenario can choose from: name, one line, paper."""
    from fedmtl.listing import items

    found = [item for item in items(kind) if match.lower() in " ".join(item.values()).lower()]
    if as_json:
        print(json.dumps({"kind": kind, "items": found}))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for name in ("name", "summary", "paper"):
        table.add_column(name, no_wrap=name == "name", overflow="fold")
    for item in found:
        table.add_row(item["name"], item["summary"], item["paper"])
    Console(highlight=False).print(table)


@app.command("cp")
def copy(name: ScenarioArgument, file: Annotated[Path, typer.Argument(help="Where to write it.")]) -> None:
    """Copy a shipped scenario to a file of your own, to change it."""
    from fedmtl.scenario import shipped

    known = shipped()
    if name not in known:
        raise ScenarioError(name, "no shipped scenario of that name", allowed=known, got=name)
    with told(file), file.open("xb") as copied:
        copied.write(known[name].read_bytes())
    print(f"wrote {file}; run it with: fedmtl run {file}")


@app.command()
def report(runs: Annotated[list[Path], typer.Argument(help="Run directories, or directories of benchmarks.")],
           baseline: Annotated[Path | None, typer.Option("--baseline", help="A run on the same clients, with the same seed and "
                               "budget, to say what was gained over it, of runs only; by default a Local run inside or beside "
                               "each.")] = None,
           ) -> None:
    """Write the pages of runs and benchmarks again, from their directories alone; says which runs cannot be compared."""
    from fedmtl.bench.board import Tables
    from fedmtl.bench.page import is_benchmark, write_page
    from fedmtl.bench.tables import write_board
    from fedmtl.report.baseline import find_baseline
    from fedmtl.report.html import write_report

    if baseline is not None and (whole := [str(path) for path in runs if is_benchmark(path)]):
        raise ScenarioError("--baseline", f"one run is no baseline of a benchmark ({', '.join(whole)}), whose runs of each seed "
                            "stand beside the Local run of that seed; give it with runs")
    for path in runs:
        if is_benchmark(path):
            said = Tables.read(path)
            write_board(path, said)
            print(write_page(path, said))
            continue
        print(write_report(path, baseline=baseline))
        for refused in find_baseline(path)[1] if baseline is None else ():
            print(f"  not compared with {refused}")


@app.command()
def compare(places: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Run directories, or directories of benchmarks.")],
            as_json: JsonOption = False) -> None:
    """Compare any runs: one table for those on the same clients, model and budget; the others apart, and why."""
    from fedmtl.bench.alike import sort_out
    from fedmtl.bench.board import Tables

    found = sort_out(places)
    said = Tables(found.runs)
    if as_json:
        tables = {name: json.loads(table.to_json(orient="records"))
                  for name, table in (("rows", said.board), ("pairs", said.pairs))}
        print(json.dumps({**tables, "apart": found.apart, "left": found.left}))
        return
    _show_board(said, [])
    for title, why in found.apart.items():
        print(f"{title} stands apart: {why}")
    for place, why in found.left.items():
        print(f"{place} is left out: {why}")


@app.command()
def watch(place: Annotated[Path, typer.Argument(metavar="DIR", help="A run directory, or a benchmark's.")],
          once: Annotated[bool, typer.Option("--once", help="Show how far it is, and end.")] = False) -> None:
    """Follow a run or a benchmark from another terminal, until it ends."""
    from fedmtl.bench.watch import follow

    follow(place, once=once)


@contextmanager
def told(path: Path) -> Iterator[None]:
    """What the disk refuses, told by path."""
    try:
        yield
    except FileExistsError as error:
        raise DiskError(f"{path} exists already; it is not overwritten") from error
    except OSError as error:
        raise DiskError(f"{path} cannot be written: {error.strerror}") from error


def main() -> None:
    """The `fedmtl` command. A user's mistake is one message and an exit code, never a traceback."""
    try:
        app()
    except FedmtlError as error:
        print(f"fedmtl: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("fedmtl: stopped", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
