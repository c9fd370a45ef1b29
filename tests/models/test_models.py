"""Models: layouts and selectors, initial weights by key, and one forward pass computed in three ways."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn
from torch.func import functional_call

from fedmtl import keys
from fedmtl.errors import ScenarioError
from fedmtl.models import heads, trunks
from fedmtl.models.base import Layout, Net, make_net, state_of
from fedmtl.models.dropout import Dropout, noise
from fedmtl.models.stacked import Forward
from fedmtl.trees import Params

KEY = keys.stream(0, "model")
MLPS = [
    (trunks.Mlp(hidden=hidden, activation=activation, bias=bias, norm=norm, dropout=dropout), heads.Linear(head_bias=bias))
    for hidden, activation, bias, norm, dropout in itertools.product(
        [(5,), (6, 4)], ["relu", "tanh", "gelu", "identity"], [True, False], ["none", "layer"], [0.0, 0.4])
] + [(trunks.Mlp(hidden=(5,)), heads.Mlp(head_hidden=3))]


def cohort(net: Net, clients: int, seed: int = 0) -> Params:
    """Different parameters for every client."""
    draw = torch.Generator().manual_seed(seed)
    return {name: leaf + 0.3 * torch.randn(clients, *leaf.shape, generator=draw, dtype=leaf.dtype)
            for name, leaf in state_of(net).items()}


def with_keys(forward: Forward, params: Params, values: list[int]) -> Params:
    return {**params, **dict.fromkeys(forward.dropouts, torch.tensor(values, dtype=torch.int64))}


def at(params: Params, slots: list[int]) -> Params:
    return {name: leaf[slots] for name, leaf in params.items()}


@pytest.mark.parametrize("shape", [(3,), (1, 2, 3)])
@pytest.mark.parametrize(("trunk", "head"), MLPS, ids=str)
def test_three_forward_passes_agree(trunk: trunks.Mlp, head: heads.Linear, shape: tuple[int, ...]) -> None:
    """Stacked, vmapped and one by one, outputs and gradients, in training with dropout and out of it."""
    net = make_net(trunk, head, shape, 2, KEY).double()
    stacked, mapped = Forward(net), Forward(net)
    assert stacked.path == "stacked"
    mapped.layers = None
    params, x = cohort(net, 4), torch.randn(4, 6, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for training in (True, False):
        given = with_keys(stacked, params, [11, 12, 13, 14]) if training else params
        leaves = {k: v.clone().requires_grad_(v.is_floating_point()) for k, v in given.items()}
        free = [v for v in leaves.values() if v.requires_grad]
        results = []
        for way in ("stacked", "vmap", "loop"):
            if way == "loop":
                out = torch.cat([stacked(at(leaves, [c]), x[c : c + 1], training=training) for c in range(4)])
            else:
                out = (stacked if way == "stacked" else mapped)(leaves, x, training=training)
            results.append((out, torch.autograd.grad(out.square().sum(), free)))
        for out, grads in results[1:]:
            torch.testing.assert_close(out, results[0][0], rtol=1e-12, atol=1e-12)
            for mine, wanted in zip(grads, results[0][1], strict=True):
                torch.testing.assert_close(mine, wanted, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("norm", ["none", "layer"])
def test_stacked_bits_do_not_depend_on_slot_or_width(norm: str) -> None:
    net = make_net(trunks.Mlp(hidden=(32,), norm=norm, dropout=0.2), heads.Linear(), (16,), 4, KEY)  # type: ignore[arg-type]
    forward = Forward(net)
    params, x = cohort(net, 8), torch.randn(8, 10, 16, generator=torch.Generator().manual_seed(2))
    params = with_keys(forward, params, list(range(1, 9)))
    whole = forward(params, x, training=True)
    for slots in ([5, 2], [7, 6, 5, 4, 3, 2, 1, 0], [3, 3, 1]):
        assert torch.equal(forward(at(params, slots), x[slots], training=True), whole[slots])


@pytest.mark.parametrize("norm", ["none", "group"])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_cnn_vmap_and_loop_agree(norm: str, dropout: float) -> None:
    trunk = trunks.Cnn(channels=(2, 3), kernel=3, features=5, norm=norm, dropout=dropout)  # type: ignore[arg-type]
    net = make_net(trunk, heads.Linear(), (1, 8, 8), 3, KEY).double()
    forward = Forward(net)
    assert forward.path == "vmap"
    params = with_keys(forward, cohort(net, 3), [4, 5, 6])
    x = torch.randn(3, 4, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    together = forward(params, x, training=True)
    for c in range(3):
        alone = forward(at(params, [c]), x[c : c + 1], training=True)[0]
        torch.testing.assert_close(together[c], alone, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(("trunk", "shape"), [(trunks.Mlp(hidden=(5,), norm="layer"), (3,)),
                                              (trunks.Cnn(channels=(2, 3), kernel=3, features=5), (1, 8, 8)),
                                              (trunks.Cnn(channels=(2, 3), kernel=3, features=5, padding="valid"), (2, 10, 11))])
def test_forward_of_one_client_is_torchs_own(trunk, shape) -> None:
    net = make_net(trunk, heads.Linear(), shape, 2, KEY).double()
    params, x = cohort(net, 2), torch.randn(2, 4, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    before = x.clone()
    for c in range(2):
        wanted = functional_call(net, {name: leaf[c] for name, leaf in params.items()}, (x[c],))
        mine = at(params, [c])
        torch.testing.assert_close(Forward(net)(mine, x[c : c + 1])[0], wanted, rtol=0, atol=1e-13)
        learning = {name: leaf.requires_grad_() for name, leaf in mine.items()}
        torch.testing.assert_close(Forward(net)(learning, x[c : c + 1])[0], wanted, rtol=0, atol=1e-13)
    assert torch.equal(x, before)


def test_cnn_sizes() -> None:
    """McMahan et al. have 1,663,370 parameters; FedAvgCNN of PFLlib, without padding, 582,026."""
    for padding, wanted in (("same", 1_663_370), ("valid", 582_026)):
        net = make_net(trunks.Cnn(padding=padding), heads.Linear(), (1, 28, 28), 10, KEY)
        assert sum(leaf.numel() for leaf in net.parameters()) == wanted
    with pytest.raises(ScenarioError, match="kernels of 5 and poolings are too many for 8 x 8 images"):
        trunks.Cnn(padding="valid").build((1, 8, 8))


def test_batch_statistics_move_in_training_only() -> None:
    net = make_net(trunks.Cnn(channels=(2,), kernel=3, features=3, norm="batch"), heads.Linear(), (1, 4, 4), 2, KEY)
    params = {name: leaf.unsqueeze(0).clone() for name, leaf in state_of(net).items()}
    x = torch.randn(1, 5, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    start = params["trunk.norm0.running_mean"].clone()
    Forward(net)(params, x)
    assert torch.equal(params["trunk.norm0.running_mean"], start)
    Forward(net)(params, x, training=True)
    assert not torch.equal(params["trunk.norm0.running_mean"], start)


def test_layout_and_selectors() -> None:
    net = make_net(trunks.Cnn(channels=(2,), kernel=3, features=3, norm="batch"), heads.Linear(), (1, 4, 4), 2, KEY)
    layout = Layout.of(net)
    norm = {f"trunk.norm0.{part}" for part in ("weight", "bias", "running_mean", "running_var")}
    trunk = norm | {f"trunk.{layer}.{part}" for layer in ("conv0", "linear") for part in ("weight", "bias")}
    head = {"head.weight", "head.bias"}
    assert layout.names == tuple(state_of(net))
    for selector, wanted in {"trunk": trunk, "head": head, "norm": norm, "all": trunk | head, "none": set(),
                             "all-norm": (trunk | head) - norm, "trunk-norm": trunk - norm, "head+norm": head | norm,
                             "all-trunk": head, "all - head": trunk,
                             "none+head": head, "trunk-norm+norm": trunk}.items():
        assert layout.select(selector) == wanted, selector
    assert layout.trainable == (trunk | head) - {"trunk.norm0.running_mean", "trunk.norm0.running_var"}
    with pytest.raises(ScenarioError, match=r"unknown role 'heed'(.|\n)*did you mean 'head'"):
        layout.select("all-heed")


def test_initial_weights_depend_on_the_key_alone() -> None:
    def made(key: keys.Keys) -> Params:
        return state_of(make_net(trunks.Mlp(), heads.Linear(), (3,), 2, key))

    before = torch.get_rng_state()
    first = made(KEY)
    torch.manual_seed(123)
    again, other = made(KEY), made(keys.stream(1, "model"))
    assert all(torch.equal(leaf, again[name]) for name, leaf in first.items())
    assert not torch.equal(first["head.weight"], other["head.weight"])
    torch.set_rng_state(before)
    made(KEY)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(("trunk", "shape", "key"), [
    (trunks.Cnn(), (64,), "model.trunk"), (trunks.Cnn(channels=(2, 2, 2, 2)), (1, 8, 8), "model.channels"),
    (trunks.Mlp(hidden=()), (4,), "model.hidden"),
])
def test_shapes_that_do_not_fit(trunk: trunks.Mlp, shape: tuple[int, ...], key: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        make_net(trunk, heads.Linear(), shape, 2, KEY)
    assert caught.value.key == key


def test_a_trunk_without_features_is_told() -> None:
    class Flat(trunks.Mlp):
        def build(self, in_shape: tuple[int, ...]) -> nn.Module:
            return nn.Identity()

    with pytest.raises(ScenarioError, match=r"its output must be \[batch, features\], not \[2, 1, 3\]"):
        make_net(Flat(), heads.Linear(), (1, 3), 2, KEY)


def test_dropout_is_inverted_keyed_and_can_be_off() -> None:
    layer, x = Dropout(0.25), torch.ones(400, 100)
    out = layer.apply_keyed(x, torch.tensor(7))
    assert out.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert abs(float((out == 0).float().mean()) - 0.25) < 4 * (0.25 * 0.75 / x.numel()) ** 0.5
    assert torch.equal(out, layer.apply_keyed(x, torch.tensor(7)))
    assert not torch.equal(out, layer.apply_keyed(x, torch.tensor(8)))
    assert torch.equal(layer.apply_keyed(x, torch.tensor(0)), x)
    assert torch.equal(layer(x), x)
    assert torch.equal(layer.apply_keyed(x[:13], torch.tensor(7)), out[:13])


def test_noise_is_uniform_over_positions_and_keys() -> None:
    from scipy import stats

    for values in (noise(torch.tensor(3), 100_000), noise(torch.arange(1, 100_001), 1).flatten()):
        counts = torch.histc(values, 128, 0, 1).numpy()
        assert 1e-4 < stats.chisquare(counts).pvalue < 1 - 1e-4
    a, b = noise(torch.tensor([5, 6]), 50_000)
    assert abs(float(torch.corrcoef(torch.stack([a, b]))[0, 1])) < 4.5 / 50_000**0.5
