"""The gradient by hand of the plain loss of a stack of common layers is autograd's."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch.nn import functional as F

from fedmtl import trees
from fedmtl.algorithms.steps import Client
from fedmtl.client.store import MemoryStore
from fedmtl.models.stacked import Forward
from fedmtl.runtime.cohort import Host
from fedmtl.runtime.data import federation_of
from fedmtl.scenario import from_table
from fedmtl.tasks.objectives.basic import Classification

CNN = {"trunk": "cnn", "channels": [4, 6], "kernel": 3, "features": 10}
MODELS = [{"trunk": "mlp", "hidden": [8]}, {"trunk": "mlp", "hidden": [8, 6], "activation": "tanh", "norm": "layer"},
          {"trunk": "mlp", "hidden": [8], "dropout": 0.5}, {"trunk": "mlp", "hidden": [8], "adapter": 7, "bias": False}]


OPTIMIZERS = [{}, {"momentum": 0.5, "weight-decay": 0.01}, {"optimizer": "adam", "lr": 0.001}]


@pytest.mark.parametrize(("train", "optimizer"), [
    pytest.param(train, optimizer, marks=pytest.mark.slow if train != "all" and optimizer else ())
    for optimizer in OPTIMIZERS for train in ("all", "trunk", "head")])
@pytest.mark.parametrize(("model", "width"), [(model, 3) for model in MODELS] + [(model, 1) for model in [*MODELS, CNN]])
def test_training_is_that_of_autograd(model, width, train, optimizer, monkeypatch):
    tasks = {"source": "digits", "clients": 3, "image": model["trunk"] == "cnn"}
    scenario = from_table({"name": "by-hand", "rounds": 1, "tasks": tasks, "model": model,
                           "algorithm": {"name": "local"}, "training": {"dtype": "float64", **optimizer},
                           "runtime": {"cohort": width}})
    host = Host(scenario, federation_of(scenario), MemoryStore())
    start = {name: leaf.clone() for name, leaf in trees.expand(host.model, width).items()}
    one, other = (host.client(range(width), 1, "batches") for _ in range(2))
    climbed, climb = [], Forward.climb
    monkeypatch.setattr(Forward, "climb", lambda self, *args: climbed.append(climb(self, *args)) or climbed[-1])
    by_hand = one.sgd(one.loss, start, train=train)
    assert climbed
    assert all(found is not None for found in climbed)
    climbed.clear()
    by_autograd = other.sgd(partial(Client.loss, other), start, train=train)
    assert not climbed
    assert any(not torch.equal(by_hand[name], leaf) for name, leaf in start.items())
    for name, leaf in by_autograd.items():
        assert torch.allclose(by_hand[name], leaf, rtol=0, atol=1e-12), name
    assert torch.allclose(one.mean_train_loss(), other.mean_train_loss(), rtol=0, atol=1e-12)


def test_slope_is_the_gradient_of_the_loss():
    out = (40 * torch.randn(2, 6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))).requires_grad_()
    y = torch.arange(12).reshape(2, 6) % 5
    losses, slope = Classification().slope(out.detach(), y)
    plain = F.cross_entropy(out.flatten(0, 1), y.flatten(), reduction="none").reshape(2, 6)
    assert torch.allclose(losses, plain, rtol=1e-12)
    assert torch.allclose(slope, torch.autograd.grad(plain.sum(), out)[0], rtol=0, atol=1e-12)
    with torch.no_grad():
        assert torch.allclose(Classification().loss(out, y), plain, rtol=1e-12)
    assert not Classification(class_weights=(1.0, 2.0)).sloped(y)
    assert not Classification().sloped(y.double())
