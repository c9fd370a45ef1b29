"""Sums whose bits depend neither on the order of replies nor on who adds them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedmtl.server import reduce
from fedmtl.server.reduce import ShardSums, deal, order_of

SHARDS = 12


def federation(seed: int, clients: int) -> tuple[np.ndarray, dict[str, torch.Tensor]]:
    draw = np.random.default_rng(seed)
    scale = 10.0 ** draw.integers(-6, 7, (clients, 1, 1))
    return draw.integers(1, 40, clients), {"w": torch.from_numpy((scale * draw.normal(size=(clients, 3, 2))).astype(np.float32)),
                                           "b": torch.from_numpy(draw.normal(size=(clients, 1)).astype(np.float32))}


def added(sizes: np.ndarray, rows: dict[str, torch.Tensor], clients: list[int], chunk: int = 10**6,
          shards: Sequence[int] = range(SHARDS)) -> ShardSums:
    """The sums over some clients, added `chunk` at a time."""
    shard, sums, order = deal(sizes, SHARDS), ShardSums(shards), order_of(sizes, clients)
    for start in range(0, len(order), chunk):
        part = order[start : start + chunk]
        sums.add({name: leaf[part] for name, leaf in rows.items()}, sizes[part].astype(np.float64), shard[part])
    return sums


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(leaf, b[name]) for name, leaf in a.items())


@pytest.mark.parametrize("piece", [reduce.PIECE, 4])  # with pieces of four numbers, one of the two leaves is a large one
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**6), clients=st.integers(1, 60), workers=st.integers(1, 5), chunk=st.integers(1, 9), data=st.data())
def test_shards_rows_workers_and_orders_give_the_same_bits(monkeypatch: pytest.MonkeyPatch, piece: int, seed: int, clients: int,
                                                           workers: int, chunk: int, data: st.DataObject) -> None:
    monkeypatch.setattr(reduce, "PIECE", piece)
    sizes, rows = federation(seed, clients)
    here = data.draw(st.permutations(range(clients)))[: data.draw(st.integers(1, clients))]
    whole = added(sizes, rows, here).total()
    assert same(whole, added(sizes, rows, sorted(here), chunk).total())
    shard, merged = deal(sizes, SHARDS), ShardSums(range(SHARDS))
    for worker in data.draw(st.permutations(range(workers))):
        mine = [c for c in here if shard[c] % workers == worker]
        if mine:
            owned, mine_too = sorted({int(shard[c]) for c in mine}), list(range(worker, SHARDS, workers))
            merged.merge(owned, added(sizes, rows, mine, chunk, mine_too).of(owned))
    assert same(whole, merged.total())


@pytest.mark.parametrize("piece", [reduce.PIECE, 4])
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**6), clients=st.integers(1, 30), chunk=st.integers(1, 3))
def test_the_sum_is_right(monkeypatch: pytest.MonkeyPatch, piece: int, seed: int, clients: int, chunk: int) -> None:
    monkeypatch.setattr(reduce, "PIECE", piece)
    sizes, rows = federation(seed, clients)
    for name, leaf in added(sizes, rows, list(range(clients)), chunk).total().items():
        assert leaf.dtype == torch.float64
        terms = np.moveaxis(leaf_by(rows[name], sizes), 0, -1)
        np.testing.assert_allclose(leaf.numpy(), terms.sum(-1), rtol=1e-12, atol=1e-12 * np.abs(terms).sum())


def leaf_by(leaf: torch.Tensor, sizes: np.ndarray) -> np.ndarray:
    return leaf.double().numpy() * sizes.reshape(-1, *[1] * (leaf.dim() - 1))


@settings(max_examples=40, deadline=None)
@given(sizes=st.lists(st.integers(0, 1000), min_size=1, max_size=100), shards=st.integers(1, 16))
def test_shards_are_even(sizes: list[int], shards: int) -> None:
    shard = deal(np.array(sizes), shards)
    assert shard.min() >= 0
    assert shard.max() < shards
    counts = np.bincount(shard, minlength=shards)
    assert counts.max() - counts.min() <= 1
    loads = np.bincount(shard, weights=sizes, minlength=shards)
    assert loads.max() - loads.min() <= 2 * max(sizes)


def test_order_is_by_falling_size_then_id() -> None:
    assert order_of(np.array([3, 9, 3, 9, 1]), [4, 3, 2, 1, 0]) == [1, 3, 0, 2, 4]
    assert deal(np.array([5, 5, 5, 5, 5]), 2).tolist() == [0, 1, 1, 0, 0]


def test_one_number_a_client() -> None:
    sums = ShardSums([0, 1])
    sums.add({"alpha": torch.tensor([1.0, 2.0, 5.0])}, np.array([3.0, 2.0, 1.0]), np.array([0, 1, 1]))
    assert sums.total()["alpha"].item() == 12


def test_a_total_is_a_new_tensor() -> None:
    """Who divides it by a mass leaves the sums as they are."""
    for shards in ([0], [0, 1]):
        sums, part = ShardSums(range(2)), {"b": torch.ones(len(shards), 3, dtype=torch.float64)}
        sums.merge(shards, part)
        sums.total()["b"].zero_()
        assert (part["b"] == 1).all()


def test_nothing_added_is_nothing() -> None:
    assert ShardSums(range(SHARDS)).total() == {}
    sums = ShardSums(range(SHARDS))
    sums.add({}, np.ones(3), np.zeros(3, np.int64))
    assert sums.total() == {}
