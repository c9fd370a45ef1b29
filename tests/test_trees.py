"""The algebra of trees: against numpy, client by client."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmtl import trees


def tree(seed: int, clients: int = 3) -> trees.Params:
    draw = torch.Generator().manual_seed(seed)
    return {"a": torch.randn(clients, 2, 4, generator=draw, dtype=torch.float64),
            "b": torch.randn(clients, 3, generator=draw, dtype=torch.float64),
            "c": torch.randn(clients, generator=draw, dtype=torch.float64)}


def rows(a: trees.Params) -> np.ndarray:
    return np.concatenate([leaf.reshape(len(leaf), -1).numpy() for leaf in a.values()], axis=1)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 5), st.floats(-3, 3))
def test_algebra_is_that_of_rows(seed: int, clients: int, t: float) -> None:
    a, b = tree(seed, clients), tree(seed + 1, clients)
    each = torch.linspace(-1, 2, clients, dtype=torch.float64)
    close = {"rtol": 1e-12, "atol": 1e-12}
    np.testing.assert_allclose(rows(trees.add(a, b)), rows(a) + rows(b), **close)
    np.testing.assert_allclose(rows(trees.sub(a, b)), rows(a) - rows(b), **close)
    np.testing.assert_allclose(rows(trees.scale(a, t)), t * rows(a), **close)
    np.testing.assert_allclose(rows(trees.scale(a, each)), each.numpy()[:, None] * rows(a), **close)
    np.testing.assert_allclose(rows(trees.lerp(a, b, t)), (1 - t) * rows(a) + t * rows(b), **close)
    s = each.numpy()[:, None]
    np.testing.assert_allclose(rows(trees.lerp(a, b, each)), (1 - s) * rows(a) + s * rows(b), **close)
    np.testing.assert_allclose(trees.dot(a, b).numpy(), (rows(a) * rows(b)).sum(1), **close)
    np.testing.assert_allclose(trees.sqdist(a, b).numpy(), ((rows(a) - rows(b)) ** 2).sum(1), **close)
    np.testing.assert_allclose(trees.norm(a).numpy(), np.linalg.norm(rows(a), axis=1), **close)
    np.testing.assert_allclose(trees.matrix(a).numpy(), rows(a), rtol=0)


@pytest.mark.parametrize("t", [0.0, 1.0, torch.tensor([0.0, 1.0, 0.0])])
def test_lerp_is_exact_at_its_ends(t: float | torch.Tensor) -> None:
    a, b = tree(1), tree(2)
    ends = torch.as_tensor(t, dtype=torch.float64).expand(3)
    wanted = trees.where(ends == 1, b, a)
    assert all(torch.equal(leaf, wanted[name]) for name, leaf in trees.lerp(a, b, t).items())


def test_where_takes_whole_clients() -> None:
    a, b = tree(1), tree(2)
    out = trees.where(torch.tensor([True, False, True]), a, b)
    for name, leaf in out.items():
        assert torch.equal(leaf[[0, 2]], a[name][[0, 2]])
        assert torch.equal(leaf[1], b[name][1])


def test_sqdist_over_common_leaves_is_squared_and_has_a_gradient() -> None:
    a = {name: leaf.requires_grad_() for name, leaf in tree(1).items()}
    anchor = trees.pick(tree(2), ["a"])
    distance = trees.sqdist(a, anchor)
    assert distance.shape == (3,)
    grads = torch.autograd.grad(distance.sum(), list(a.values()), allow_unused=True)
    torch.testing.assert_close(grads[0], 2 * (a["a"] - anchor["a"]).detach())
    assert grads[1] is None
    assert grads[2] is None


def test_empty_trees() -> None:
    assert float(trees.dot({}, {})) == 0
    assert float(trees.sqdist(tree(1), {})) == 0
    assert trees.pick(tree(1), []) == {}


def test_unequal_keys_are_told() -> None:
    with pytest.raises(KeyError, match=r"trees differ in .*'c'"):
        trees.add(tree(1), trees.pick(tree(1), ["a", "b"]))


def test_flatten_and_matrix_have_inverses() -> None:
    nested = {"v": tree(1), "w": {"deep": tree(2)}, "alpha": torch.ones(3)}
    flat = trees.flatten(nested)
    assert set(flat) == {"v/a", "v/b", "v/c", "w/deep/a", "w/deep/b", "w/deep/c", "alpha"}
    again = trees.flatten(trees.unflatten(flat))
    assert list(again) == list(flat)
    assert all(again[name] is leaf for name, leaf in flat.items())
    a = tree(3)
    back = trees.from_matrix(trees.matrix(a), a)
    assert all(torch.equal(leaf, back[name]) for name, leaf in a.items())


def test_expand_gives_every_client_the_same() -> None:
    model = {name: leaf[0] for name, leaf in tree(1).items()}
    out = trees.expand(model, 4)
    for name, leaf in out.items():
        assert leaf.shape == (4, *model[name].shape)
        assert all(torch.equal(one, model[name]) for one in leaf)
        assert leaf.data_ptr() == model[name].data_ptr()
