"""The regularised multi-task problem, solved federatedly, against central solvers; its round by hand; its limits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.optimize import brentq
from tiny import PHI, H, client_of, data, descend, near, start, trial

from fedmtl.algorithms.local import Local
from fedmtl.algorithms.regularised import Regularised
from fedmtl.conformance.case import Trial, federation_from
from fedmtl.errors import ScenarioError
from fedmtl.optimizers import Adam, Sgd

SIZES = (12, 9, 15, 10, 12, 8)
D, T = 5, len(SIZES)
EDGES = ((0, 2), (2, 4), (1, 3))
DRAW = np.random.default_rng(3)
TRUE = DRAW.normal(size=(T, 2)) @ DRAW.normal(size=(2, D)) * np.array([1, 1, 1, 1, 0])
X = [DRAW.normal(size=(n, D)) for n in SIZES]
Y = [x @ w + 0.2 * DRAW.normal(size=len(x)) for x, w in zip(X, TRUE, strict=True)]
LAM = {"mean": 0.7, "graph": 0.5, "trace-norm": 0.3, "learned": 0.1, "group-sparse": 0.2}


def tasks(epochs: int = 1, lr: float = 0.2, **algorithm: Any) -> Trial:
    """Linear regressions in whole batches, float64; two held rows each repeat the first."""
    federation = federation_from(np.concatenate([np.concatenate([x, x[:1], x[:1]]) for x in X]),
                                 np.concatenate([np.concatenate([y, y[:1], y[:1]]) for y in Y])[:, None], SIZES, held=1)
    sections = {"model": {"trunk": "flat", "head-bias": False}, "runtime": {"cohort": 64},
                "training": {"dtype": "float64", "epochs": epochs, "lr": lr, "batch-size": 100}}
    return Trial(Regularised(**algorithm), federation, sections, together=True)


def found(t: Trial) -> np.ndarray:
    """[T, D] the models that would be sent next."""
    return t.shared["head.weight"].numpy()[:, 0]


def slopes(w: np.ndarray) -> np.ndarray:
    """[T, D] the gradients of every task's mean squared error."""
    return np.stack([2 / len(x) * x.T @ (x @ row - y) for x, y, row in zip(X, Y, w, strict=True)])


def singular(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    """A function of a matrix that changes its singular values."""
    def changed(v: np.ndarray) -> np.ndarray:
        left, s, right = np.linalg.svd(v, full_matrices=False)
        return (left * change(s)) @ right
    return changed


def half_square(s: np.ndarray, by: float) -> np.ndarray:
    """argmin over x >= 0 of norm(x - s)^2 / 2 + by sum(x)^2 / 2, by the root of its condition."""
    tau = brentq(lambda tau: by * np.maximum(s - tau, 0).sum() - tau, 0, s.max(), xtol=1e-15)
    return np.maximum(s - tau, 0)


def proximal(penalty: str, by: float) -> Callable[[np.ndarray], np.ndarray]:
    """The proximal map of by * g, written out once more."""
    return {"trace-norm": singular(lambda s: np.maximum(s - by, 0)), "learned": singular(lambda s: half_square(s, by)),
            "group-sparse": lambda v: v * np.maximum(0, 1 - by / np.linalg.norm(v, axis=0))}[penalty]


def central(penalty: str, lam: float) -> np.ndarray:
    """The central solution: one linear system, or proximal gradient until it stands still."""
    if penalty in ("mean", "graph"):
        a = np.full((T, T), 1 / T) if penalty == "mean" else np.zeros((T, T))
        for k, other in EDGES if penalty == "graph" else ():
            a[k, other] = a[other, k] = 1
        system = lam * np.kron(np.diag(a.sum(1)) - a, np.eye(D))
        for c, x in enumerate(X):
            system[c * D : (c + 1) * D, c * D : (c + 1) * D] += 2 / len(x) * x.T @ x
        return np.linalg.solve(system, np.concatenate([2 / len(x) * x.T @ y for x, y in zip(X, Y, strict=True)])).reshape(T, D)
    step = 1 / max(np.linalg.eigvalsh(2 / len(x) * x.T @ x).max() for x in X)
    w, prox = np.zeros((T, D)), proximal(penalty, step * lam)
    for _ in range(20000):
        before, w = w, prox(w - step * slopes(w))
        if np.abs(w - before).max() < 1e-15:
            break
    assert np.abs(w - before).max() < 1e-13
    return w


@pytest.mark.parametrize("epochs", [pytest.param(1, marks=pytest.mark.slow), 6])
@pytest.mark.parametrize("penalty", LAM)
def test_it_equals_the_central_solution(penalty: str, epochs: int) -> None:
    """Whatever the number of local steps: without the shift u several steps would come to another W."""
    t = tasks(epochs, penalty=penalty, lam=LAM[penalty], edges=EDGES)
    t.rounds(100 if epochs == 1 else 40)
    wanted = central(penalty, LAM[penalty])
    gap = np.linalg.norm(found(t) - wanted) / np.linalg.norm(wanted)
    assert gap < 1e-5
    alone = np.stack([np.linalg.lstsq(x, y, rcond=None)[0] for x, y in zip(X, Y, strict=True)])
    assert np.linalg.norm(alone - wanted) > 0.05 * np.linalg.norm(wanted)  # g counts
    figures = t.method.figures(t.state)
    rank = np.linalg.matrix_rank(wanted, 1e-8)
    used = (np.abs(wanted).max(0) > 1e-12).mean()
    assert figures == {"trace-norm": {"rank": rank}, "learned": {"rank": rank}, "group-sparse": {"used_parameters": used}}.get(
        penalty, {})
    assert penalty != "trace-norm" or rank < D
    assert penalty != "group-sparse" or used == 0.8


@pytest.mark.parametrize("penalty", ["trace-norm", "mean"])
def test_half_of_the_clients_a_round_come_to_it_too(penalty: str) -> None:
    t = tasks(3, penalty=penalty, lam=LAM[penalty])
    t.strategy.pick = lambda number: [(number + k) % T for k in (0, 1, 3)]  # type: ignore[method-assign]
    t.rounds(120)
    wanted = central(penalty, LAM[penalty])
    assert np.linalg.norm(found(t) - wanted) < 1e-6 * np.linalg.norm(wanted)


@pytest.mark.parametrize(("share", "names"), [("all", [PHI, H]), ("trunk", [PHI])])
@pytest.mark.parametrize("over", ["model", "layers"])
def test_three_rounds_by_hand(over: str, share: str, names: list[str]) -> None:
    lam, sizes, eta = 0.8, (4, 7, 5), 0.05 * 2
    t = trial(Regularised(lam=lam, over=over, share=share), sizes)
    w = [start(t) for _ in sizes]
    u = [{n: np.zeros_like(w[0][n]) for n in names} for _ in sizes]
    for _ in range(3):
        w = [descend(w[c], *data(t, c), 2, extra=lambda _, c=c, u=u: u[c]) for c in range(3)]
        v = [{n: w[c][n] + eta * u[c][n] for n in names} for c in range(3)]
        for some in [names] if over == "model" else [[n] for n in names]:
            rows = np.stack([np.concatenate([v[c][n].ravel() for n in some]) for c in range(3)])
            kept = proximal("trace-norm", eta * lam)(rows)
            for c in range(3):
                cut = np.split(kept[c], np.cumsum([v[c][n].size for n in some])[:-1])
                w[c] |= {n: part.reshape(v[c][n].shape) for n, part in zip(some, cut, strict=True)}
        u = [{n: (v[c][n] - w[c][n]) / eta for n in names} for c in range(3)]
        t.rounds(1)
        for c in range(3):
            near(client_of(t.shared, c), {n: w[c][n] for n in names} | {f"pull/{n}": u[c][n] for n in names}, 1e-9)
            near(client_of(t.models()["personal"], c), w[c], 1e-9)


@pytest.mark.parametrize("penalty", LAM)
def test_lam_0_is_local(penalty: str) -> None:
    a, b = trial(Regularised(lam=0.0, penalty=penalty, edges=((0, 1),)), (4, 7, 5)), trial(Local(), (4, 7, 5))
    a.rounds(3)
    b.rounds(3)
    near(a.models()["personal"], b.models()["personal"], 1e-14)


def test_large_lam() -> None:
    """The mean's models become one, and those of a norm 0."""
    t = tasks(penalty="mean", lam=1e6)
    t.rounds(20)
    assert np.ptp(found(t), axis=0).max() < 1e-4
    assert np.abs(found(t)).max() > 0.1
    for penalty in ("trace-norm", "group-sparse"):
        t = tasks(penalty=penalty, lam=1e3)
        t.rounds(1)
        assert np.abs(found(t)).max() < 1e-12


def test_the_longest_way_of_local_steps_counts() -> None:
    """Batches of 4: clients of 4, 7 and 5 rows make 1, 2 and 2 steps; a client that is away keeps w and u."""
    t = trial(Regularised(lam=0.5), (4, 7, 5), training={"batch-size": 4})
    t.rounds(1, lambda replies: replies[:1])
    assert float(t.state["server/reach"]) == pytest.approx(0.05 * 2 * 1)
    t.rounds(1)
    assert float(t.state["server/reach"]) == pytest.approx(0.05 * 2 * 2)


def test_a_relation_is_told_by_the_singular_penalties() -> None:
    t = tasks(lam=0.3)
    t.rounds(3)
    left, s, _ = np.linalg.svd(found(t), full_matrices=False)
    root = (left * s) @ left.T
    wanted = root / np.sqrt(np.outer(root.diagonal(), root.diagonal()))
    np.testing.assert_allclose(t.method.estimates(t.state)["relation"].numpy(), wanted, atol=1e-6)
    assert tasks(penalty="mean").method.estimates(t.state) == {}


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ScenarioError, match=r"algorithm.edges: an edge from 0 to 9"):
        tasks(penalty="graph", edges=((0, 9),))
    with pytest.raises(ScenarioError, match=r"training.momentum: 'regularised' has no rule for momentum"):
        Regularised().check(Sgd(momentum=0.9))
    with pytest.raises(ScenarioError, match=r"training.optimizer: 'regularised' has no rule for Adam"):
        Regularised().check(Adam())
