"""FedRep by hand: the head first, with phi frozen, then phi, with the new head frozen."""

from __future__ import annotations

import pytest
from tiny import PHI, SIZES, H, client_of, data, descend, mean, near, start, trial

from fedmtl.algorithms.fedrep import Fedrep


@pytest.mark.parametrize(("head", "trunk"), [(10, 1), (3, 2), (0, 2), (3, 0)])
def test_two_rounds_by_hand(head: int, trunk: int) -> None:
    t = trial(Fedrep(head_epochs=head, trunk_epochs=trunk), epochs=7)
    thetas = [start(t), start(t)]
    for _ in range(2):
        thetas = [descend(descend(thetas[c], *data(t, c), head, train=[H]), *data(t, c), trunk, train=[PHI]) for c in (0, 1)]
        average = mean(thetas, SIZES, [PHI])
        thetas = [theta | average for theta in thetas]
        near(t.rounds(1), average)
        for client in (0, 1):
            near(client_of(t.kept(), client), {H: thetas[client][H]})


def test_the_order_matters() -> None:
    """Phi first and head after is another method: the test above would see it."""
    t = trial(Fedrep(head_epochs=3, trunk_epochs=2))
    w = start(t)
    t.rounds(1)
    swapped = descend(descend(w, *data(t, 0), 2, train=[PHI]), *data(t, 0), 3, train=[H])
    assert abs(swapped[H] - t.kept()[H][0].numpy()).max() > 1e-3


def test_defaults_are_the_papers() -> None:
    assert (Fedrep().head_epochs, Fedrep().trunk_epochs) == (10, 1)


def test_the_trunk_goes_on_with_fresh_batches() -> None:
    """Mini-batches: the trunk's epochs are numbered after the head's, so it does not see the head's first batches again."""
    t = trial(Fedrep(head_epochs=2, trunk_epochs=1), training={"batch-size": 2})
    cohort = t.host.client([1, 0], 1, "batches")
    wanted = [start(t), start(t)]
    for first, epochs, part in ((0, 2, H), (2, 1, PHI)):
        for batch in cohort.batches(epochs, first):
            for slot in range(batch.active):
                real = batch.weight[slot] > 0
                x, y = batch.x[slot][real].numpy(), batch.y[slot][real].numpy()
                wanted[slot] = descend(wanted[slot], x, y, 1, train=[part])
    near(t.rounds(1), mean(wanted, SIZES[::-1], [PHI]))
    for slot, client in enumerate((1, 0)):
        near(client_of(t.kept(), client), {H: wanted[slot][H]})
