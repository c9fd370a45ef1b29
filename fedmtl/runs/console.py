"""What a person sees while a run goes on: a progress bar and one line a round, or plain lines where there is no terminal."""

from __future__ import annotations

import sys
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from fedmtl.runs.engine import Line

HEADER = (f"{'round':>7} {'loss':>9} {'score':>8} {'worst 10%':>9} {'clients':>9} {'failed':>6} {'MB up':>8} {'MB down':>8} "
          f"{'s':>7} {'left':>7}")


def _text(line: Line, left: float) -> str:
    return (f"{line.round:>7} {line.loss:>9.4f} {line.score:>8.4f} {line.worst10:>9.4f} {line.sampled - line.failed:>9} "
            f"{line.failed:>6} {line.bytes_up / 1e6:>8.2f} {line.bytes_down / 1e6:>8.2f} {line.seconds:>7.3f} {_clock(left):>7}")


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


class RoundLines:
    """Prints a run's rounds to standard error; `quiet` prints nothing."""

    def __init__(self, title: str, rounds: int, *, quiet: bool = False) -> None:
        self.console = Console(file=sys.stderr, quiet=quiet, highlight=False, soft_wrap=True)
        self.title, self.rounds, self.spent = title, rounds, 0.0
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
                   TimeRemainingColumn())
        self.progress = Progress(*columns, console=self.console, disable=quiet or not self.console.is_terminal, transient=True)

    def __enter__(self) -> RoundLines:
        self.console.print(f"[bold]{self.title}[/bold]")
        self.console.print(HEADER)
        self.progress.start()
        self.task = self.progress.add_task("rounds", total=self.rounds)
        return self

    def __call__(self, line: Line) -> None:
        """One round is over."""
        self.spent += line.seconds
        text = _text(line, self.spent / line.round * (self.rounds - line.round))
        if self.console.is_terminal:
            self.console.print(text)
            self.progress.advance(self.task)
        elif not self.console.quiet:
            print(text, file=self.console.file)  # where nothing is drawn, rich would take longer than a small round's messages

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.progress.stop()
