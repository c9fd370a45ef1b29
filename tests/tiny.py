"""Two tiny clients with a linear model, and the same local training written out in numpy, independent of fedmtl's code.

The model is y = h phi x with phi [2, 3] (the trunk) and h [1, 2] (the head), no biases; the loss is the squared error, its mean
over rows and outputs without the half. Batches are whole, so no step depends on a draw.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from fedmtl.algorithms.base import Algorithm
from fedmtl.algorithms.fedavg import Fedavg
from fedmtl.conformance.case import Trial, federation_from
from fedmtl.server.messages import to_arrays
from fedmtl.tasks.task import Federation
from fedmtl.trees import Params

PHI, H = "trunk.linear0.weight", "head.weight"
SIZES = (4, 7)
LR = 0.05
Theta = dict[str, np.ndarray]
Extra = Callable[[Theta], Theta]


def regressions(sizes: Sequence[int] = SIZES) -> Federation:
    """Clients with different true weights, in float64."""
    draw = np.random.default_rng(5)
    n = sum(sizes) + 2 * len(sizes)
    x = draw.normal(size=(n, 3))
    owner = np.repeat(np.arange(len(sizes)), [size + 2 for size in sizes])
    y = (x * draw.normal(size=(len(sizes), 3))[owner]).sum(1, keepdims=True) + 0.1 * draw.normal(size=(n, 1))
    return federation_from(x, y, sizes, held=1)


def trial(method: Algorithm, sizes: Sequence[int] = SIZES, *, epochs: int = 2, lr: float = LR, cohort: int = 2,
          **sections: Any) -> Trial:
    """A method on `regressions`, full batches, float64."""
    return Trial(method, regressions(sizes), {
        "model": {"trunk": "mlp", "hidden": [2], "activation": "identity", "bias": False, "head-bias": False},
        "training": {"lr": lr, "batch-size": 100, "epochs": epochs, "dtype": "float64"} | sections.pop("training", {}),
        "runtime": {"cohort": cohort}, **sections})


def data(t: Trial, client: int) -> tuple[np.ndarray, np.ndarray]:
    """A client's train rows."""
    rows = t.federation.part(client, "train")
    return t.federation.x[rows], t.federation.y[rows]


def start(t: Trial) -> Theta:
    """The initial model."""
    return {name: leaf.numpy().copy() for name, leaf in t.host.model.items()}


def gradient(theta: Theta, x: np.ndarray, y: np.ndarray) -> Theta:
    """d/dtheta of mean_r (h phi x_r - y_r)^2."""
    phi, h = theta[PHI], theta[H]
    error = x @ phi.T @ h.T - y
    return {PHI: 2 / len(x) * h.T @ (error.T @ x), H: 2 / len(x) * error.T @ (x @ phi.T)}


def descend(theta: Theta, x: np.ndarray, y: np.ndarray, steps: int, *, lr: float = LR, train: Sequence[str] = (PHI, H),
            extra: Extra | None = None) -> Theta:
    """`steps` steps of gradient descent; `extra` gives the gradient of what is added to the loss."""
    theta = dict(theta)
    for _ in range(steps):
        g = gradient(theta, x, y)
        more = extra(theta) if extra else {}
        theta = {name: leaf - lr * (g[name] + more.get(name, 0.0)) if name in train else leaf for name, leaf in theta.items()}
    return theta


def central_optimum(t: Trial) -> Theta:
    """Where the gradient of the loss of all clients, of equal sizes, is 0 (to 1e-12)."""
    x, y = (np.concatenate(part) for part in zip(*(data(t, k) for k in range(t.federation.clients)), strict=True))
    theta = descend(start(t), x, y, 6000, lr=0.1)
    assert max(np.abs(leaf).max() for leaf in gradient(theta, x, y).values()) < 1e-12
    return theta


def optimum_stays(method: Algorithm, server: str, own: str) -> None:
    """Asserts that the optimum of all, which FedAvg leaves, is a fixed point of a method.

    It is one where the server's correction, the leaves under `server`, is 0, and each client's, under `own`, its gradient there.
    """
    t, plain = trial(method, (5, 5), epochs=5), trial(Fedavg(), (5, 5), epochs=5)
    best = central_optimum(t)
    slope = [gradient(best, *data(t, k)) for k in (0, 1)]
    begin(t, best | {f"{server}/{name}": 0 * leaf for name, leaf in best.items()},
          [{f"{own}/{n}": g for n, g in each.items()} for each in slope])
    begin(plain, best, [])
    stays, leaves = t.rounds(2), plain.rounds(2)
    near({name: stays[name] for name in best}, best, 1e-8)
    assert max(np.abs(leaf.numpy() - best[name]).max() for name, leaf in leaves.items()) > 1e-3


def begin(t: Trial, state: Mapping[str, Any], kept: Sequence[Mapping[str, Any]]) -> None:
    """Has a trial begin from a server's state and from what each client keeps."""
    t.arrays = to_arrays({name: torch.as_tensor(leaf) for name, leaf in state.items()})
    for client, tree in enumerate(kept):
        t.store.save([client], {name: torch.as_tensor(leaf)[None] for name, leaf in tree.items()}, 0)


def mean(thetas: Sequence[Theta], sizes: Sequence[int], names: Sequence[str] = (PHI, H)) -> Theta:
    """The mean weighted by numbers of samples."""
    return {name: sum(n * theta[name] for n, theta in zip(sizes, thetas, strict=True)) / sum(sizes) for name in names}


def minus(a: Theta, b: Theta, by: float = 1.0) -> Theta:
    """by * (a - b)."""
    return {name: by * (leaf - b[name]) for name, leaf in a.items()}


def plus(a: Theta, b: Theta, by: float = 1.0) -> Theta:
    """a + by b."""
    return {name: leaf + by * b[name] for name, leaf in a.items()}


def near(found: Mapping[str, Any], wanted: Mapping[str, Any], tolerance: float = 1e-10) -> None:
    """Asserts equal names and values."""
    assert set(found) == set(wanted)
    for name, leaf in wanted.items():
        np.testing.assert_allclose(np.asarray(found[name]), np.asarray(leaf), rtol=tolerance, atol=tolerance, err_msg=name)


def client_of(tree: Params, client: int) -> Theta:
    """One client's slice as numpy."""
    return {name: leaf[client].numpy() for name, leaf in tree.items()}


def same_bits(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor]) -> None:
    """Asserts equal names and bits."""
    assert a.keys() == b.keys()
    assert a
    for name, leaf in a.items():
        assert torch.equal(leaf, b[name]), name
