"""Local training: every client alone, nothing on the wire."""

from __future__ import annotations

from tiny import client_of, data, descend, near, start, trial

from fedmtl.algorithms.local import Local


def test_two_rounds_by_hand() -> None:
    t = trial(Local())
    t.rounds(2)
    assert t.state == {}
    for client in (0, 1):
        near(client_of(t.kept(), client), descend(start(t), *data(t, client), 4))
        near(client_of(t.models()["personal"], client), descend(start(t), *data(t, client), 4))
    assert "global" not in t.models()


def test_no_client_knows_of_another() -> None:
    together, alone = trial(Local(), (4, 7)), trial(Local(), (4,))
    alone.federation.x[:4], alone.federation.y[:4] = together.federation.x[:4], together.federation.y[:4]
    together.rounds(2)
    alone.rounds(2)
    near(client_of(together.kept(), 0), client_of(alone.kept(), 0))
