"""A client's bits do not depend on who shares its cohort: neither by how many rest, nor by how the clients are dealt."""

import numpy as np
import pytest
import torch
from torch import nn

from fedmtl.algorithms.fedavg import Fedavg
from fedmtl.conformance.case import Trial, federation_from
from fedmtl.models.layered import layers_of
from fedmtl.models.stacked import Forward
from fedmtl.trees import expand

SIZES = (37, 52, 21, 64, 90, 33, 45, 12, 71, 28)
EVERYONE = range(len(SIZES))


def a_federation(features):
    draw, count = np.random.default_rng(0), sum(SIZES) + 8 * len(SIZES)
    x = draw.standard_normal((count, features)).astype(np.float32)
    return federation_from(x, draw.integers(0, 3, count), SIZES, tuple("abc"))


@pytest.mark.parametrize(("features", "model", "training"), [
    (20, {"hidden": [7], "activation": "gelu"}, {"dtype": "float64", "epochs": 2}),
    (20, {"hidden": [7], "activation": "tanh"}, {"epochs": 2}),
    (64, {"hidden": [64]}, {"batch-size": 1, "lr": 0.01, "epochs": 1}),
    (20, {"hidden": [50], "norm": "layer"}, {"momentum": 0.9, "optimizer": "sgd", "epochs": 2}),
])
def test_dealt_in_another_way_every_bit_is_the_same(features, model, training):
    federation, found = a_federation(features), {}
    for dealt in ([EVERYONE], [EVERYONE[::2], EVERYONE[1::2]], [EVERYONE[:5], EVERYONE[5:]]):
        for clients in dealt:
            trial = Trial(Fedavg(), federation, {"model": {"trunk": "mlp", **model}, "runtime": {"cohort": 16},
                                                 "training": {"lr": 0.1, "batch-size": 10, **training}}, together=True)
            got = trial.host.train(1, list(clients), trial.parcel)
            for place, client in enumerate(got.clients):
                rows = [leaf[place] for _, leaf in sorted(got.rows.items())]
                first = found.setdefault(client, (rows, got.loss[place]))
                assert got.loss[place] == first[1], client
                assert all(torch.equal(a, b) for a, b in zip(rows, first[0], strict=True)), client


class Around(nn.Sequential):
    """A Sequential that does something of its own."""

    def forward(self, x):
        return x + super().forward(x)


def one_relu_twice():
    relu = nn.ReLU()
    return nn.Sequential(nn.Linear(5, 5), relu, nn.Linear(5, 5), relu, nn.Linear(5, 2))


def hooked():
    net = nn.Sequential(nn.Linear(5, 2))
    net[0].register_forward_hook(lambda module, args, out: 2 * out)
    return net


@pytest.mark.parametrize("make", [one_relu_twice, lambda: nn.Sequential(Around(nn.Linear(5, 5)), nn.Linear(5, 2)), hooked])
@pytest.mark.parametrize("clients", [1, 3])
def test_layers_are_what_the_module_is(make, clients):
    torch.manual_seed(0)
    net, x = make().double(), torch.randn(clients, 4, 5, dtype=torch.float64)
    params = expand({name: leaf.detach() for name, leaf in net.named_parameters()}, clients)
    torch.testing.assert_close(Forward(net)(params, x), torch.stack([net(rows) for rows in x]))


def test_one_layer_used_twice_has_no_such_form():
    shared = nn.Linear(5, 5)
    assert layers_of(nn.Sequential(shared, nn.ReLU(), shared), "") is None
