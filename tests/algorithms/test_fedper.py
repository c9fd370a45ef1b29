"""FedPer by hand, and its two ends."""

from __future__ import annotations

import pytest
from tiny import PHI, SIZES, H, client_of, data, descend, mean, near, same_bits, start, trial

from fedmtl.algorithms.fedavg import Fedavg
from fedmtl.algorithms.fedper import Fedper
from fedmtl.algorithms.local import Local


@pytest.mark.parametrize(("share", "shared", "private"), [("trunk", PHI, H), ("head", H, PHI), ("all-trunk", H, PHI)])
def test_two_rounds_by_hand(share: str, shared: str, private: str) -> None:
    t = trial(Fedper(share=share))
    thetas = [start(t), start(t)]
    for _ in range(2):
        thetas = [descend(thetas[c], *data(t, c), 2) for c in (0, 1)]
        average = mean(thetas, SIZES, [shared])
        thetas = [theta | average for theta in thetas]
        near(t.rounds(1), average)
        for client in (0, 1):
            near(client_of(t.kept(), client), {private: thetas[client][private]})
            near(client_of(t.models()["personal"], client), thetas[client])


def test_nothing_private_is_fedavg() -> None:
    a, b = trial(Fedper(share="all")), trial(Fedavg())
    same_bits(a.rounds(3), b.rounds(3))
    assert a.kept() == {}


def test_everything_private_is_local() -> None:
    a, b = trial(Fedper(share="none")), trial(Local())
    assert a.rounds(3) == b.rounds(3) == {}
    same_bits(a.kept(), b.kept())


def test_one_client_is_central_training() -> None:
    t = trial(Fedper(), (9,))
    t.rounds(3)
    near(client_of(t.models()["personal"], 0), descend(start(t), *data(t, 0), 6))
