"""Optimisers: torch.optim's own steps, slice by slice, and clients that rest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from fedmtl.optimizers import Adam, Adamw, Optimizer, Sgd

OPTIM = torch.optim
PAIRS: list[tuple[Optimizer, Callable[..., Any], dict[str, Any]]] = [
    (Sgd(lr=0.1), OPTIM.SGD, {}),
    (Sgd(lr=0.1, weight_decay=0.3), OPTIM.SGD, {"weight_decay": 0.3}),
    (Sgd(lr=0.1, momentum=0.9), OPTIM.SGD, {"momentum": 0.9}),
    (Sgd(lr=0.1, momentum=0.5, weight_decay=0.01), OPTIM.SGD, {"momentum": 0.5, "weight_decay": 0.01}),
    (Adam(lr=0.02), OPTIM.Adam, {}),
    (Adam(lr=0.02, weight_decay=0.2, beta1=0.8, beta2=0.95, eps=1e-4), OPTIM.Adam,
     {"weight_decay": 0.2, "betas": (0.8, 0.95), "eps": 1e-4}),
    (Adamw(lr=0.02), OPTIM.AdamW, {}),
    (Adamw(lr=0.02, weight_decay=0.5, beta1=0.7), OPTIM.AdamW, {"weight_decay": 0.5, "betas": (0.7, 0.999)}),
]
IDS = [repr(pair[0]) for pair in PAIRS]
ACTIVE = [None, 3, 3, 2, 2, 1, 1, 1, 0]
"""How many clients, the first ones, take each step."""


def begin() -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    return {name: torch.randn(*shape, generator=draw, dtype=torch.float64) for name, shape in {"w": (3, 4, 2), "b": (3,)}.items()}


def gradient(params: dict[str, torch.Tensor], step: int) -> dict[str, torch.Tensor]:
    """Of a function that differs from step to step."""
    return {name: leaf.sin() + 0.3 * step * leaf for name, leaf in params.items()}


@pytest.mark.parametrize(("ours", "theirs", "options"), PAIRS, ids=IDS)
def test_each_client_steps_as_torch_does(ours: Optimizer, theirs: Callable[..., Any], options: dict[str, Any]) -> None:
    params = begin()
    alone = [{name: leaf[c].clone().requires_grad_() for name, leaf in params.items()} for c in range(3)]
    reference = [theirs(list(one.values()), lr=ours.lr, **options) for one in alone]
    state = ours.start(params)
    for step, active in enumerate(ACTIVE, start=1):
        before = {k: v.clone() for k, v in params.items()}
        buffers = {s: {k: v.clone() for k, v in t.items()} for s, t in state.items()}
        ours.step(params, gradient(params, step), state, step, active)
        for c in range(3):
            if active is not None and c >= active:
                assert all(torch.equal(params[name][c], before[name][c]) for name in params)
                assert all(torch.equal(state[s][name][c], buffers[s][name][c]) for s in state for name in params)
                continue
            for name, leaf in alone[c].items():
                leaf.grad = gradient({name: leaf.detach()}, step)[name]
            reference[c].step()
            for name, leaf in alone[c].items():
                torch.testing.assert_close(params[name][c], leaf.detach(), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("ours", [pair[0] for pair in PAIRS], ids=IDS)
def test_a_step_does_not_write_to_gradients(ours: Optimizer) -> None:
    params = begin()
    grads = gradient(params, 1)
    kept = {name: leaf.clone() for name, leaf in grads.items()}
    ours.step(params, grads, ours.start(params), 1)
    assert all(torch.equal(leaf, kept[name]) for name, leaf in grads.items())


@pytest.mark.parametrize("ours", [pair[0] for pair in PAIRS], ids=IDS)
def test_learning_rate_0_stands_still(ours: Optimizer) -> None:
    params, still = begin(), replace(ours, lr=0.0)
    still.step(params, gradient(params, 1), still.start(params), 1)
    assert all(torch.equal(leaf, begin()[name]) for name, leaf in params.items())
