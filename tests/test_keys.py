"""Keyed randomness: the same everywhere, uniform, and without relations between keys."""

from __future__ import annotations

import subprocess
import sys
from itertools import permutations

import numpy as np
import torch
from scipy import stats

from fedmtl import keys
from fedmtl.algorithms.fedavg import Fedavg
from fedmtl.conformance.case import Trial

FROZEN = 4435374136777386876


def test_frozen_values_in_this_and_another_process() -> None:
    """Bits that may never change: results of old runs hang on them."""
    code = ("from fedmtl import keys\n"
            "print(int(keys.stream(7, 'batches', 3, 5)), keys.permutation(keys.stream(0, 'x'), 6).tolist())")
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split(" ", 1)
    assert int(there[0]) == int(keys.stream(7, "batches", 3, 5)) == FROZEN
    assert there[1].strip() == str(keys.permutation(keys.stream(0, "x"), 6).tolist())




def test_arrays_of_clients_give_what_single_clients_give() -> None:
    many = keys.stream(3, "p", 2, np.arange(50))
    assert many.tolist() == [int(keys.stream(3, "p", 2, c)) for c in range(50)]
    assert keys.uniform(many, 4)[7].tolist() == keys.uniform(many[7], 4).tolist()
    assert keys.permutation(many, 9)[11].tolist() == keys.permutation(many[11], 9).tolist()


def test_no_two_draws_share_a_key() -> None:
    found = {int(k) for seed in range(5) for purpose in ("batches", "adapt", "participation", "model") for round in range(20)
             for k in keys.stream(seed, purpose, round, np.arange(50))}
    assert len(found) == 5 * 4 * 20 * 50


def test_uniform_by_chi_square() -> None:
    """Over one key's positions, and over the keys of many clients, seeds and rounds."""
    series = [keys.uniform(keys.stream(1, "u"), 100_000), keys.uniform(keys.stream(1, "u", 0, np.arange(100_000)), 1).ravel(),
              np.array([keys.uniform(keys.stream(seed, "u"), 1)[0] for seed in range(20_000)]),
              np.array([keys.uniform(keys.stream(0, "u", round), 1)[0] for round in range(20_000)])]
    for values in series:
        assert values.min() >= 0
        assert values.max() < 1
        counts = np.histogram(values, bins=256, range=(0, 1))[0]
        assert 1e-4 < stats.chisquare(counts).pvalue < 1 - 1e-4


def test_permutations_are_uniform_by_chi_square() -> None:
    drawn = keys.permutation(keys.stream(0, "order", 0, np.arange(24_000)), 4)
    names = {order: i for i, order in enumerate(permutations(range(4)))}
    counts = np.bincount([names[tuple(row)] for row in drawn.tolist()], minlength=24)
    assert 1e-4 < stats.chisquare(counts).pvalue < 1 - 1e-4


def test_avalanche() -> None:
    """Every bit of a seed, round or client flips every bit of the key about half of the time."""
    base = np.arange(2000, dtype=np.uint64)
    for flip in (lambda b: keys.fold(base ^ b, 1, 2), lambda b: keys.fold(9, base ^ b, 2), lambda b: keys.fold(9, 1, base ^ b)):
        for bit in range(0, 64, 7):
            changed = flip(np.uint64(0)) ^ flip(np.uint64(1) << np.uint64(bit))
            share = ((changed[:, None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)).mean(0)
            assert abs(share - 0.5).max() < 0.06


def test_purposes_rounds_and_clients_are_independent() -> None:
    n = 20_000
    draws = [keys.uniform(keys.stream(0, p, r, c), n) for p in ("a", "b") for r in (0, 1) for c in (0, 1)]
    correlation = np.corrcoef(draws) - np.eye(len(draws))
    assert abs(correlation).max() < 4.5 / np.sqrt(n)
    lagged = keys.uniform(keys.stream(0, "a"), n)
    assert abs(np.corrcoef(lagged[:-1], lagged[1:])[0, 1]) < 4.5 / np.sqrt(n)
    assert int(keys.stream(0, "a", 1, 2)) != int(keys.stream(0, "a", 2, 1))
    assert int(keys.fold(5, 1, 2)) != int(keys.fold(5, 2, 1))


def test_batches_of_a_client_do_not_depend_on_its_neighbours() -> None:
    """The padded permutation of a cohort is, row by row, the client's own."""
    host = Trial(Fedavg()).host
    slots = [3, 2, 4, 1, 0]
    together = [list(b.x[i][b.weight[i] > 0]) for b in host.client(slots, 1, "batches").batches(2) for i in range(5)]
    for i, slot in enumerate(slots):
        alone = [list(b.x[0][b.weight[0] > 0]) for b in host.client([slot, slot], 1, "batches").batches(2)]
        mine = [rows for rows in together[i::5] if rows]
        assert len(mine) == len(alone)
        for one, other in zip(mine, alone, strict=True):
            assert torch.equal(torch.stack(one), torch.stack(other))


def test_every_epoch_shows_every_row_once_and_weights_add_to_one() -> None:
    host = Trial(Fedavg()).host
    slots = [2, 1, 0]
    client = host.client(slots, 1, "batches")
    seen: list[list[list[float]]] = [[], [], []]
    for batch in client.batches(3):
        resting = (batch.weight == 0).all(1)
        assert resting.tolist() == [slot >= batch.active for slot in range(3)]
        for slot in range(batch.active):
            real = int((batch.weight[slot] > 0).sum())
            assert (batch.weight[slot][:real] == 1 / real).all()
            seen[slot] += batch.x[slot][:real].tolist()
    for slot, c in enumerate(slots):
        rows = host.pool.x[torch.from_numpy(host.federation.part(c, "train"))]
        epochs = [seen[slot][start : start + len(rows)] for start in range(0, len(seen[slot]), len(rows))]
        assert len(epochs) == 3
        assert all(sorted(epoch) == sorted(rows.tolist()) for epoch in epochs)
        assert len({str(epoch) for epoch in epochs}) == 3 or len(rows) == 3


def test_first_epoch_goes_on_where_others_ended() -> None:
    host = Trial(Fedavg()).host
    client = host.client([3, 0], 1, "batches")
    whole = torch.cat([b.x[0][b.weight[0] > 0] for b in client.batches(3)])
    parts = torch.cat([b.x[0][b.weight[0] > 0] for first in range(3) for b in client.batches(1, first)])
    assert torch.equal(whole, parts)


def test_generators_have_no_shared_state() -> None:
    before = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    assert keys.generator(keys.stream(0, "g")).random() == keys.generator(keys.stream(0, "g")).random()
    one, two = (torch.rand(3, generator=keys.torch_generator(keys.stream(0, "g"))) for _ in range(2))
    assert torch.equal(one, two)
    assert np.array_equal(before[0], np.random.get_state()[1])  # noqa: NPY002
    assert torch.equal(before[1], torch.get_rng_state())
