"""Cycles of dead objects are looked for seldom while rounds run, and as before afterwards."""

from __future__ import annotations

import gc
import weakref

import pytest

from fedmtl.runtime.garbage import SELDOM, seldom_collected


class Node:
    """May point to itself."""


def fail_while_seldom(seen: list[tuple[tuple[int, int, int], int]]) -> None:
    with seldom_collected():
        seen.append((gc.get_threshold(), gc.get_freeze_count()))
        raise ZeroDivisionError


def test_seldom_for_a_while_and_as_before_after_an_error() -> None:
    before, seen = gc.get_threshold(), []
    with pytest.raises(ZeroDivisionError):
        fail_while_seldom(seen)
    assert seen[0][0] == SELDOM
    assert seen[0][1] > 1000
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0


def test_cycles_are_found_nevertheless() -> None:
    with seldom_collected():
        alive = []
        for _ in range(20 * SELDOM[0]):
            node = Node()
            node.self = node  # type: ignore[attr-defined]
            alive.append(weakref.ref(node))
        assert sum(one() is not None for one in alive) < 2 * SELDOM[0]
