"""Embeddings of tokens: the mean of the words' vectors, its gradient in parts, and inputs that are none."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from fedmtl import trees
from fedmtl.algorithms.ditto import Ditto
from fedmtl.algorithms.fedavg import Fedavg
from fedmtl.algorithms.steps import Client
from fedmtl.conformance.case import Trial, federation_from
from fedmtl.errors import ScenarioError
from fedmtl.models.stacked import Forward
from fedmtl.models.tokens import MeanEmbedding

SIZES = (37, 30, 21, 12)
EMBEDDING = {"trunk": "embedding", "tokens": 50, "features": 4}
OPTIMIZERS = [{}, {"momentum": 0.5, "weight-decay": 0.01}, {"optimizer": "adam", "lr": 0.01}]


def a_trial(dtype=np.int64, method=None, tokens=40, **sections):
    """Clients whose rows hold up to 7 of `tokens` tokens, the last ones filled up with 0."""
    draw, count = np.random.default_rng(0), sum(SIZES) + 8 * len(SIZES)
    x = draw.integers(1, tokens, (count, 7)) * (np.arange(7) < draw.integers(0, 8, (count, 1)))
    federation = federation_from(x.astype(dtype), (x > 20).sum(1) % 3, SIZES, tuple("abc"))
    return Trial(method or Fedavg(), federation, {"model": EMBEDDING, **sections}, together=True)


def test_it_is_the_mean_of_the_vectors_without_padding():
    module = MeanEmbedding(5, 2)
    vectors = module.weight.detach()
    rows = torch.tensor([[1.0, 4, 0], [2, 0, 0], [0, 0, 0], [3, 3, 1]])
    wanted = torch.stack([(vectors[1] + vectors[4]) / 2, vectors[2], torch.zeros(2), (2 * vectors[3] + vectors[1]) / 3])
    assert torch.allclose(module(rows), wanted)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("width", [1, 4])
def test_training_is_that_of_autograd(width, optimizer, monkeypatch):
    trial = a_trial(training={"dtype": "float64", "epochs": 2, **optimizer}, runtime={"cohort": width})
    start = {name: leaf.clone() for name, leaf in trees.expand(trial.host.model, width).items()}
    one, other = (trial.host.client(range(width), 1, "batches") for _ in range(2))
    climbed, climb = [], Forward.climb
    monkeypatch.setattr(Forward, "climb", lambda self, *args: climbed.append(climb(self, *args)) or climbed[-1])
    by_hand = one.sgd(one.loss, start)
    assert climbed
    assert all(found is not None for found in climbed)
    by_autograd = other.sgd(partial(Client.loss, other), start)
    for name, leaf in by_autograd.items():
        assert not torch.equal(leaf, start[name])
        assert torch.allclose(by_hand[name], leaf, rtol=0, atol=1e-12), name
    whole = one.grad(one.loss, start, next(iter(one.batches(1))))
    assert whole["trunk.embedding.weight"].shape == (width, 50, 4)


def test_vectors_of_tokens_that_do_not_occur_keep_every_bit():
    trial = a_trial(tokens=30)
    before = trial.shared["trunk.embedding.weight"].clone()
    after = trial.rounds(2)["trunk.embedding.weight"]
    moved = (after != before).any(1)
    assert not moved[0]
    assert moved[1:30].all()
    assert not moved[30:].any()


@pytest.mark.parametrize("method", [Fedavg(), Ditto()])
def test_tokens_may_come_as_whole_numbers_or_as_real_ones(method):
    first, other = (a_trial(dtype, method) for dtype in (np.int64, np.float32))
    assert (np.array(first.host.train(1, range(len(SIZES)), first.parcel).loss) > 0.1).all()
    one, two = first.rounds(2), other.rounds(2)
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_bits_do_not_depend_on_who_trains_together():
    trial, found = a_trial(runtime={"cohort": 4}), {}
    for clients in ([0, 1, 2, 3], [0, 2], [1, 3], [3]):
        got = trial.host.train(1, clients, trial.parcel)
        for place, client in enumerate(got.clients):
            rows = [leaf[place] for _, leaf in sorted(got.rows.items())]
            assert all(torch.equal(a, b) for a, b in zip(rows, found.setdefault(client, rows), strict=True)), client


@pytest.mark.parametrize(("x", "model", "key", "problem"), [
    (np.array([[3, 50]]), EMBEDDING, "model.trunk", "from 0 to tokens - 1 = 49, not 50"),
    (np.array([[-1, 2]]), EMBEDDING, "model.trunk", "not -1"),
    (np.array([[1, 1.5]], np.float32), EMBEDDING, "model.trunk", "not 1.5"),
    (np.array([[1, 2]]), {"trunk": "mlp"}, "model.trunk", "it takes numbers, and x holds tokens"),
    (np.array([[1, 2]]), {**EMBEDDING, "adapter": 3}, "model.adapter", "an adapter takes numbers"),
    (np.array([[1, 2]], np.float32), {**EMBEDDING, "adapter": 3}, "model.trunk", "whole numbers"),
])
def test_inputs_that_a_model_cannot_take(x, model, key, problem):
    federation = federation_from(np.repeat(x, 12, axis=0), np.arange(12) % 2, (4,), tuple("ab"))
    with pytest.raises(ScenarioError, match=problem) as caught:
        Trial(Fedavg(), federation, {"model": model})
    assert caught.value.key == key
