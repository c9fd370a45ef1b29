"""Writes docs/methods.md from the methods' docstrings, from their tests, and from what three rounds of each cost.

    python scripts/make_methods.py
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from dataclasses import dataclass, fields
from pathlib import Path

from flwr.app import Message

from fedmtl.algorithms.base import Algorithm
from fedmtl.algorithms.steps import SCAN
from fedmtl.conformance import PROPERTIES
from fedmtl.conformance.case import Trial, small_federation
from fedmtl.registry import discover, kebab, summary_of
from fedmtl.runs.runner import one_thread
from fedmtl.server.messages import CLIENTS, LEDGER

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "methods.md"
TESTS = ROOT / "tests" / "algorithms"
SIZES, BATCH, EPOCHS, ROUNDS = (SCAN,) * 4, 16, 2, 3
INTRO = f"""# The methods

Made by `python scripts/make_methods.py` from the files in [fedmtl/algorithms](../fedmtl/algorithms), one a method, and from their
tests; `tests/docs/test_methods_page.py` fails where this page is out of date. `fedmtl ls algorithms` is the short form.

Every method also passes `fedmtl.conformance.check_algorithm`, in
[tests/conformance/test_algorithms.py](../tests/conformance/test_algorithms.py);
[test_on_ray.py](../tests/conformance/test_on_ray.py) compares one process with Ray. Where a method departs from a property, its
file says why, and so does its section below:

{{properties}}

## What they cost

Beside FedAvg, with the keys left as they are, the same `training.epochs` for all: in the rounds 2 to {ROUNDS + 1} of
{len(SIZES)} clients with a small MLP, {SIZES[0]} train rows each, and {EPOCHS} epochs of batches of {BATCH}.
*Down*, *up* and *kept* are numbers a client, in models: 1 is as many as the model has parameters. *Passes* are rows through the
model in a client's local work, in FedAvg's: with a gradient, and beside that without one. Epochs that a method sets itself
(`head-epochs`) are in; what `adapt` trains before use and what the server computes are not. What is per class (FedProto) or per
row (MOCHA) weighs more here than with a large model; a dual step of MOCHA's counts as one row each way.
They are the counts of a run's own ledger: `work` and `kept` in summary.json and in a benchmark's tables.

| method | down | up | kept | passes with a gradient | without |
|---|---|---|---|---|---|
"""


@dataclass(frozen=True)
class Cost:
    """Numbers down, up and kept by a client, and rows that pass through the model with and without a gradient, in a round."""

    down: float
    up: float
    kept: float
    trained: float
    read: float

    def over(self, model: float, passes: float) -> list[str]:
        """In models, and in FedAvg's passes."""
        parts = (self.down / model, self.up / model, self.kept / model, self.trained / passes, self.read / passes)
        return [f"{part:.2f}".rstrip("0").rstrip(".") for part in parts]


def numbers_in(replies: list[Message]) -> int:
    """How many numbers the arrays of all replies hold."""
    records = [record for reply in replies for record in reply.content.array_records.values()]
    return sum(array.numpy().size for record in records for array in record.values())


def cost_of(method: Algorithm) -> Cost:
    """What a client's round costs, the mean over rounds 2 to 4."""
    training = {"batch-size": BATCH, "epochs": EPOCHS}
    trial = Trial(method, small_federation(SIZES), {"training": training, "runtime": {"cohort": 1}})
    trial.rounds(1)
    total = dict.fromkeys(("down", "up", *LEDGER), 0.0)

    def seen(replies: list[Message]) -> list[Message]:
        total["up"] += numbers_in(replies)
        for reply in replies:
            for name in LEDGER:
                total[name] += sum(reply.content.metric_records[CLIENTS][name])
        return replies

    for _ in range(ROUNDS):
        total["down"] += sum(leaf.numel() for leaf in trial.shared.values()) * (1 if method.addressed else len(SIZES))
        trial.rounds(1, seen)
    each = {name: count / (len(SIZES) * ROUNDS) for name, count in total.items()}
    return Cost(each["down"], each["up"], each["kept"], each["backward"], each["forward"] - each["backward"])


def proofs() -> dict[str, tuple[str, list[str]]]:
    """(test file, names of its tests) by the method's module: test_<module>.py, or else the file that imports it."""
    out: dict[str, tuple[str, list[str]]] = {}
    for path in sorted(TESTS.glob("test_*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = [node.name.removeprefix("test_") for node in tree.body if isinstance(node, ast.FunctionDef)
                 and node.name.startswith("test_")]
        own = path.stem.removeprefix("test_")
        imported = [node.module.rpartition(".")[2] for node in tree.body if isinstance(node, ast.ImportFrom)
                    and node.module and node.module.startswith("fedmtl.algorithms.")]
        out[own] = path.name, names
        for module in imported:
            if not (TESTS / f"test_{module}.py").exists():
                out.setdefault(module, (path.name, names))
    return out


def traffic_of(cls: type) -> str:
    """The paragraph of the module's docstring that says what is sent, kept and done by the server."""
    text = inspect.getdoc(sys.modules[cls.__module__]) or ""
    found = [part for part in text.split("\n\n") if part.startswith("Sends:")]
    lines = " ".join(found).replace("\n", " ")
    return re.sub(r"\.? (?=(Keeps|Server|Adapts): )", ".\n- ", f"- {lines}")


def departures_of(cls: type[Algorithm]) -> str:
    """The paragraph that says where a method departs from a property, and with which keys it is checked."""
    said = "".join(f"\nDeparts from *{name}*: {why}.\n" for name, why in cls.departs.items())
    own = ", ".join(f"`{kebab(name)} = {_shown(value)}`" for name, value in cls.proven_with.items())
    return said + (f"\nChecked with {own}.\n" if own else "")


def section(name: str, cls: type[Algorithm], tests: tuple[str, list[str]]) -> str:
    """One method: what it is, what is sent and kept, its keys, and what its tests prove."""
    summary, paper = summary_of(cls)
    module = cls.__module__.rpartition(".")[2]
    keys = ", ".join(f"`{kebab(field.name)} = {_shown(getattr(cls(), field.name))}`" for field in fields(cls))
    notes = inspect.getdoc(cls) or ""
    file, names = tests
    proven = "; ".join(proof.replace("_", " ") for proof in names)
    return f"""## {name}

{summary} [fedmtl/algorithms/{module}.py](../fedmtl/algorithms/{module}.py)

{paper}

{traffic_of(cls)}

{notes}

Keys: {keys or "none"}.
{departures_of(cls)}
Proven in [{file}](../tests/algorithms/{file}): {proven}.
"""


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(list(value) if isinstance(value, tuple) else value)


def page() -> str:
    """The whole page. Raises KeyError for a method without a test file."""
    methods, known = discover("fedmtl.algorithms", Algorithm), proofs()
    with one_thread():
        costs = {name: cost_of(cls()) for name, cls in methods.items()}
    base = costs["fedavg"]
    listed = "\n".join(f"- *{name}*: {' '.join((function.__doc__ or '').split())}" for name, function in PROPERTIES.items())
    rows = {name: " | ".join(cost.over(base.down, base.trained)) for name, cost in costs.items()}
    table = "\n".join(f"| [{name}](#{name}) | {row} |" for name, row in rows.items())
    parts = [section(name, cls, known[cls.__module__.rpartition(".")[2]]) for name, cls in methods.items()]
    return INTRO.replace("{properties}", listed) + table + "\n\n" + "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
