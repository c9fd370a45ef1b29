"""Who is there: asked once, every client exactly once, and a node that is none says why."""

from __future__ import annotations

import numpy as np
import pytest

from fedmtl.errors import FedmtlError
from fedmtl.server.messages import CLIENTS
from fedmtl.server.roster import Roster
from fedmtl.tasks.task import PARTS


def test_everyone_is_met_once(setting):
    bench = setting()
    roster = Roster.discover(bench.grid, 10)
    assert roster.clients == 6
    assert roster.node_of == {client: 100 + client for client in range(6)}
    assert not roster.trusted
    for part in PARTS:
        assert np.array_equal(roster.sizes[part], bench.grid.host.federation.sizes(part))
    assert roster.tasks == list(bench.grid.host.federation.tasks)
    assert roster.by_node([4, 1]) == {104: [4], 101: [1]}
    assert bench.strategy.join(bench.grid) is bench.strategy.join(bench.grid)


def test_missing_clients_are_counted(setting):
    bench = setting()
    del bench.grid.nodes[103]
    with pytest.raises(FedmtlError, match="5 of 6 clients answered in 0 s"):
        Roster.discover(bench.grid, 0.2)


def test_nodes_that_come_late_are_waited_for(setting):
    bench = setting()
    late, calls = bench.grid.nodes.pop(103), []

    def nodes():
        calls.append(1)
        if len(calls) == 3:
            bench.grid.nodes[103] = late
        return list(bench.grid.nodes)

    bench.grid.get_node_ids = nodes
    assert Roster.discover(bench.grid, 30).clients == 6
    assert len(calls) >= 3


def test_two_nodes_that_are_the_same_client(setting):
    bench = setting()
    bench.grid.nodes[999] = bench.grid.nodes[102]
    with pytest.raises(FedmtlError, match="two nodes say that they are client 2; give each its own partition-id"):
        Roster.discover(bench.grid, 10)


def test_a_client_that_is_not_in_the_scenario(setting):
    bench = setting()
    plain = bench.grid.nodes[102]

    def lies(message):
        reply = plain(message)
        reply.content.metric_records[CLIENTS]["client"] = [17]
        return reply

    bench.grid.nodes[102] = lies
    with pytest.raises(FedmtlError, match="a node says it is client 17; there are 6"):
        Roster.discover(bench.grid, 10)


def test_one_node_that_is_not_trusted_is_enough(setting):
    bench = setting()
    for node, handler in bench.grid.nodes.items():
        handler.trusted = node != 105
    assert not Roster.discover(bench.grid, 10).trusted
    bench.grid.nodes[105].trusted = True
    assert Roster.discover(bench.grid, 10).trusted


@pytest.mark.parametrize("part", PARTS)
def test_a_client_that_claims_other_numbers_of_rows_is_refused(part, setting):
    """They become weights: a client that says it has a million rows would be the mean."""
    bench = setting()
    expected = {name: bench.grid.host.federation.sizes(name) for name in PARTS}
    Roster.discover(bench.grid, 10).check(expected)
    plain = bench.grid.nodes[104]

    def boasts(message):
        reply = plain(message)
        reply.content.metric_records[CLIENTS][part] = [10**6]
        return reply

    bench.grid.nodes[104] = boasts
    said = rf"client 4 says that it has 1000000 {part} rows, not {expected[part][4]}\. Do all nodes run the same scenario\?"
    with pytest.raises(FedmtlError, match=said):
        Roster.discover(bench.grid, 10).check(expected)


def test_a_federation_of_another_size_is_refused(setting):
    bench = setting()
    other = {name: bench.grid.host.federation.sizes(name)[:5] for name in PARTS}
    with pytest.raises(FedmtlError, match="the nodes know of 6 clients, the scenario of 5"):
        Roster.discover(bench.grid, 10).check(other)


def test_the_first_of_several_wrong_claims_is_named(setting):
    bench = setting()
    roster = Roster.discover(bench.grid, 10)
    expected = {name: sizes.copy() for name, sizes in roster.sizes.items()}
    expected["train"][[2, 5]] += 1
    with pytest.raises(FedmtlError, match="client 2 says"):
        roster.check(expected)
    roster.check(roster.sizes)
