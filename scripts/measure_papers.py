"""Measures the rows of docs/papers.md and writes its table: every method of a scenario of scenarios/papers, on several draws.

    python scripts/measure_papers.py school                                all rows, on the draws of the page
    python scripts/measure_papers.py har --rows local,fedu --seeds 10,11   some of them
    python scripts/measure_papers.py --table                               measures nothing: only the table, from docs/papers.csv

Every figure goes to docs/papers.csv (scenario, row, seed, figure, value); a row that is measured again takes its old place.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

import fedmtl
from fedmtl.scenario import load_scenario
from fedmtl.tasks.federation import make_federation
from fedmtl.tasks.task import Federation

ROOT = Path(__file__).parents[1]
SCENARIOS, PAGE, FIGURES = ROOT / "scenarios" / "papers", ROOT / "docs" / "papers.md", ROOT / "docs" / "papers.csv"
BEGIN, END = "<!-- measured: begin -->\n", "<!-- measured: end -->\n"
DRAWS = (10, 11, 12, 13, 14)
"""Seeds that nothing was chosen on."""

Central = Callable[[Federation], float]
Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Row:
    """One row of the table: keys that change in the scenario, or a central solver; which figure, and what was published."""

    label: str
    changes: dict[str, Any] = field(default_factory=dict)
    published: str = ""
    figure: str = "mean"
    scale: float = 1.0
    central: Central | None = None


def _design(federation: Federation, client: int, part: str) -> tuple[Numbers, npt.NDArray[Any]]:
    """x [n, d + 1] with a column of ones, y [n]."""
    rows = federation.part(client, part)  # type: ignore[arg-type]
    return np.c_[federation.x[rows], np.ones(len(rows))].astype(np.float64), federation.y[rows].reshape(len(rows))


def _school(solve: Callable[[Numbers, Numbers, Numbers], Numbers]) -> Central:
    """Explained variance of the weights [T, d] that `solve` makes of the second moments A [T, d, d], b [T, d] and sizes [T]."""

    def solved(federation: Federation) -> float:
        train = [_design(federation, client, "train") for client in range(federation.clients)]
        n = np.array([len(y) for _, y in train], dtype=np.float64)
        weights = solve(np.stack([x.T @ x / len(y) for x, y in train]), np.stack([x.T @ y / len(y) for x, y in train]), n / n.sum())
        error = distance = 0.0
        for client, w in enumerate(weights):
            x, y = _design(federation, client, "test")
            error, distance = error + ((y - x @ w) ** 2).sum(), distance + ((y - y.mean()) ** 2).sum()
        return float(1 - error / distance)

    return solved


def _one_ridge(a: Numbers, b: Numbers, share: Numbers) -> Numbers:
    """One ridge for all rows."""
    w = np.linalg.solve(np.tensordot(share, a, 1) + 5e-4 * np.eye(a.shape[1]), share @ b)
    return np.tile(w, (len(b), 1))


def _own_ridges(a: Numbers, b: Numbers, share: Numbers) -> Numbers:
    """A ridge for each."""
    return np.linalg.solve(a + 0.03 * np.eye(a.shape[1]), b[..., None])[..., 0]


def _tied_ridges(a: Numbers, b: Numbers, share: Numbers) -> Numbers:
    """sum_t F_t(w_t) + norm(w_t - wbar)^2 / 2, wbar the mean by rows: what MR-MTL with lam = 1 goes to."""
    inverse = np.linalg.inv(2 * a + np.eye(a.shape[1]))
    own = np.einsum("tij,tj->ti", inverse, 2 * b)
    wbar = np.linalg.solve(np.eye(a.shape[1]) - np.tensordot(share, inverse, 1), share @ own)
    return own + inverse @ wbar


def _logistic(together: bool) -> Central:
    """Mean accuracy over people of scikit-learn's logistic regression on standardised features (C = 1), one or one each."""

    def solved(federation: Federation) -> float:
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        return _each(federation, together, lambda: make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)))

    return solved


def _tied_logistic(lam: float, ridge: float) -> Central:
    """Mean accuracy over people of the weights that `tied_weights` finds."""

    def solved(federation: Federation) -> float:
        train, test = ([_design(federation, client, part) for client in range(federation.clients)] for part in ("train", "test"))
        weights = tied_weights(train, lam, ridge)
        return float(np.mean([((x @ w).argmax(1) == y).mean() for (x, y), w in zip(test, weights, strict=True)]))

    return solved


def tied_weights(train: Sequence[tuple[Numbers, npt.NDArray[Any]]], lam: float, ridge: float) -> Numbers:
    """w_t [T, d, K], the least of sum_t F_t(w_t) + lam/2 norm(w_t - w)^2 + ridge/2 norm(w)^2 over w and every w_t.

    F_t is the mean cross-entropy of x_t [n, d], y_t [n], of K classes 0, 1 and so on. One logistic regression finds it: of
    x sqrt(lam / ridge), for w, beside x in columns of its task's own, for w_t - w.
    """
    from scipy.sparse import csr_array, hstack, kron, vstack
    from sklearn.linear_model import LogisticRegression

    scale, tasks = (lam / ridge) ** 0.5, np.eye(len(train))
    x = vstack([hstack([csr_array(x * scale), kron(own[None], csr_array(x))]) for (x, _), own in zip(train, tasks, strict=True)],
               format="csr")
    share = np.concatenate([np.full(len(y), 1 / len(y)) for _, y in train])
    fitted = LogisticRegression(C=1 / lam, fit_intercept=False, max_iter=5000, tol=1e-5)
    found = fitted.fit(x, np.concatenate([y for _, y in train]), sample_weight=share).coef_
    parts = found.reshape(len(found), len(train) + 1, -1)
    return np.asarray((parts[:, :1] * scale + parts[:, 1:]).transpose(1, 2, 0))


def _machine(lam: float) -> Central:
    """Mean accuracy over clients of one linear support vector machine on all rows: mean hinge + lam/2 norm(w)^2."""

    def solved(federation: Federation) -> float:
        from sklearn.svm import LinearSVC

        n = int(federation.sizes("train").sum())
        return _each(federation, True, lambda: LinearSVC(loss="hinge", C=1 / (lam * n), fit_intercept=False, max_iter=20000))

    return solved


def _each(federation: Federation, together: bool, make: Callable[[], Any]) -> float:
    train = [_design(federation, client, "train") for client in range(federation.clients)]
    test = [_design(federation, client, "test") for client in range(federation.clients)]
    if together:
        model = make().fit(np.concatenate([x for x, _ in train]), np.concatenate([y for _, y in train]))
        return float(np.mean([model.score(x, y) for x, y in test]))
    return float(np.mean([make().fit(*own).score(*held) for own, held in zip(train, test, strict=True)]))


def _method(name: str, **fields: Any) -> dict[str, Any]:
    return {"algorithm": {"name": name, **fields}}


EXPLAINED: dict[str, Any] = {"figure": "explained", "scale": 100.0}
PERCENT: dict[str, Any] = {"scale": 100.0}
PLAIN = {"training.momentum": 0.0}
SAME = {"rounds": 1000, "training.epochs": 1, "training.batch-size": 512}
"""As many passes in smaller portions, each of all rows at once."""
UNITS = {"school": "explained variance, %", "har": "accuracy, %, mean over people", "har-sitting": "accuracy, %, mean over people",
         "vehicle": "accuracy, %, mean over sensors", "landmine": "AUC, mean over fields",
         "fedem-mixture": "error of the mixture weights", "ifca-clusters": "adjusted Rand index",
         "fedrep-linear": "sine of the angle to the true subspace",
         "fedprox-synthetic": "accuracy, %, weighted by rows"}
ROWS: dict[str, dict[str, Row]] = {
    "school": {
        "global": Row("Global: FedAvg", _method("fedavg"), "22.7 (m)", **EXPLAINED),
        "central-global": Row("the same, central ridge", central=_school(_one_ridge), **EXPLAINED),
        "local": Row("Local", _method("local") | {"training.weight-decay": 0.06}, "23.8 (m)", **EXPLAINED),
        "central-local": Row("the same, central ridges", central=_school(_own_ridges), **EXPLAINED),
        "mr-mtl": Row("MR-MTL", {}, "26.7 (m), another method", **EXPLAINED),
        "central-mr-mtl": Row("the same, central", central=_school(_tied_ridges), **EXPLAINED),
        "fedu": Row("FedU", _method("fedu", a=1.0, lam=0.0144), **EXPLAINED),
    },
    "har": {
        "fedavg": Row("FedAvg, 200 rounds of 5 epochs", _method("fedavg") | PLAIN, **PERCENT),
        "global": Row("Global: FedAvgM, 1000 rounds of 1 pass", _method("fedavgm", beta=0.9) | PLAIN | SAME, "93.79", **PERCENT),
        "central-global": Row("the same, central", central=_logistic(together=True), **PERCENT),
        "local": Row("Local", _method("local"), "98.29", **PERCENT),
        "central-local": Row("the same, central, ridge as scikit-learn has it", central=_logistic(together=False), **PERCENT),
        "central-own": Row("the same, central, ridge .00001", central=_tied_logistic(1e-5, 10.0), **PERCENT),
        "mr-mtl": Row("MR-MTL", _method("mr-mtl", lam=0.0003), **PERCENT),
        "central-mr-mtl": Row("the same, central", central=_tied_logistic(3e-4, 1e-4), **PERCENT),
        "fedu": Row("FedU", {}, "99.10", **PERCENT),
        "mocha": Row("MOCHA", _method("mocha", relation="mean", tie=10.0, lam=0.001, fraction=1.0), "98.79", **PERCENT),
    },
    "har-sitting": {
        "global": Row("Global: one linear machine, central", central=_machine(1e-4), published="97.77", **PERCENT),
        "local": Row("Local: MOCHA, independent", _method("mocha", relation="independent", lam=0.001), "98.66", **PERCENT),
        "mocha": Row("MOCHA, relation to the mean", {}, "99.54, learned", **PERCENT),
    },
    "vehicle": {
        "global": Row("Global: one linear machine, central", central=_machine(0.01), published="86.6", **PERCENT),
        "local": Row("Local: MOCHA, independent", _method("mocha", relation="independent", lam=0.1), "92.19", **PERCENT),
        "mocha": Row("MOCHA, relation to the mean", {}, "93.41, learned", **PERCENT),
    },
    "landmine": {
        "global": Row("Global: FedAvg", _method("fedavg")),
        "local": Row("Local", _method("local") | {"training.weight-decay": 0.03}),
        "mr-mtl": Row("MR-MTL", {}),
    },
    "fedem-mixture": {"fedem": Row("FedEM", figure="mixture_mae")},
    "ifca-clusters": {"ifca": Row("IFCA", figure="cluster_ari"),
                      "cfl": Row("CFL", _method("cfl", e1=0.05, e2=0.3, after=5) | {"rounds": 40}, figure="cluster_ari")},
    "fedrep-linear": {"fedrep": Row("FedRep", figure="subspace_sine")},
    "fedprox-synthetic": {
        "fedavg": Row("FedAvg, stragglers left out", _method("fedavg") | {"server.late": "drop"}, figure="weighted", **PERCENT),
        "partial": Row("FedProx, mu = 0", _method("fedavg"), figure="weighted", **PERCENT),
        "fedprox": Row("FedProx, mu = 1", {}, figure="weighted", **PERCENT),
        "all": Row("FedAvg, no stragglers", _method("fedavg") | {"server.slow": 0.0}, figure="weighted", **PERCENT),
        "fedprox-all": Row("FedProx, mu = 1, no stragglers", {"server.slow": 0.0}, figure="weighted", **PERCENT),
    },
}
"""Of each scenario the rows of the table, by their names."""


def explained(table: pd.DataFrame, part: str = "test") -> float:
    """1 - (squared error of all rows) / (squared distance of all rows from the mean of their school), in the last round."""
    last = table[(table["split"] == part) & (table["model"] == "personal") & (table["round"] == table["round"].max())]
    scores = last.pivot(index="client", columns="metric", values="value")
    rows = last.groupby("client")["n"].first()[scores.index]
    return float(1 - (rows * scores["mse"]).sum() / (rows * scores["mse"] / (1 - scores["r2"])).sum())


def measured(name: str, row: Row, seed: int) -> dict[str, float]:
    """The figures of one run: mean and weighted mean of the primary score, truth scores, and School's explained variance."""
    settings = {"seed": seed, "runtime.kind": "inline", "evaluation.every": 10000} | row.changes
    scenario = load_scenario(str(SCENARIOS / f"{name}.toml"), settings)
    if row.central is not None:
        [group] = scenario.groups
        made = make_federation(group.source, group.splits, group.transforms, clients=group.clients, val=group.val, test=group.test,
                               seed=seed)
        return {row.figure: row.central(made)}
    with tempfile.TemporaryDirectory() as folder:
        run = fedmtl.run(scenario, out=Path(folder) / "run", report=False)
        score, gap = run.summary["test"][run.summary["primary"]], run.summary.get("method", {})
        out = {"mean": score["mean"], "weighted": score["weighted_mean"], "std over clients": score["std"]} | gap
        return out | run.summary.get("truth", {}) | ({"explained": explained(run.metrics)} if name == "school" else {})


def keep(found: pd.DataFrame) -> None:
    """Puts rows into docs/papers.csv, in the place of those of the same scenario, row and seed."""
    known = pd.read_csv(FIGURES) if FIGURES.exists() else found[:0]
    same = known.set_index(["scenario", "row", "seed"]).index.isin(found.set_index(["scenario", "row", "seed"]).index)
    order = {(name, row): (i, j) for i, name in enumerate(ROWS) for j, row in enumerate(ROWS[name])}
    every = pd.concat([known[~same], found]) if len(known) else found
    place = [(*order[key[:2]], key[2]) for key in zip(every["scenario"], every["row"], every["seed"], strict=True)]
    every.iloc[sorted(range(len(every)), key=place.__getitem__)].to_csv(FIGURES, index=False, float_format="%.6g")


def table() -> str:
    """The table of docs/papers.md from docs/papers.csv: mean +- standard deviation over draws, and how many there are."""
    known = pd.read_csv(FIGURES).set_index(["scenario", "row", "figure"])["value"].sort_index()
    lines = ["| scenario | row | published | ours | draws |", "|---|---|---|---|---|"]
    for name, rows in ROWS.items():
        for i, (key, row) in enumerate(rows.items()):
            link = "" if i else f"[papers/{name}.toml](../scenarios/papers/{name}.toml): {UNITS[name]}"
            there = (name, key, row.figure) in known.index
            values = known.loc[[(name, key, row.figure)]].to_numpy() * row.scale if there else np.array([])
            lines.append(f"| {link} | {row.label} | {row.published} | {shown(values)} | {len(values)} |")
    return "\n".join(lines) + "\n"


def shown(values: Numbers) -> str:
    """mean +- standard deviation with three significant digits of the larger."""
    if not len(values):
        return "not measured"
    digits = max(0, 2 - int(np.floor(np.log10(max(abs(values).max(), 1e-9)))))
    spread = f" +- {values.std(ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{values.mean():.{digits}f}{spread}"


def write_table() -> None:
    """Puts the table between the two marks of docs/papers.md."""
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    PAGE.write_text(before + BEGIN + table() + END + rest.split(END)[1], encoding="utf-8")


def main() -> None:
    """Prints each run, keeps its figures, and writes the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("name", nargs="?", choices=list(ROWS))
    parser.add_argument("--rows", default="", help="some of the rows, with commas")
    parser.add_argument("--seeds", default=",".join(map(str, DRAWS)), help="the draws, with commas")
    parser.add_argument("--table", action="store_true", help="only write the table")
    words = parser.parse_args()
    if bool(words.name) == words.table:
        parser.error("either a scenario to measure, or --table")
    for key in [] if words.table else words.rows.split(",") if words.rows else ROWS[words.name]:
        for seed in map(int, words.seeds.split(",")):
            start = time.perf_counter()
            found = measured(words.name, ROWS[words.name][key], seed)
            listed = ", ".join(f"{figure} {value:.4f}" for figure, value in found.items())
            print(f"{words.name} {key} seed {seed}: {listed} ({time.perf_counter() - start:.0f} s)", flush=True)
            figures, values = list(found), list(found.values())
            keep(pd.DataFrame({"scenario": words.name, "row": key, "seed": seed, "figure": figures, "value": values}))
    write_table()


if __name__ == "__main__":
    main()
