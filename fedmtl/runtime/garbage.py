"""Python's search for cycles of dead objects, held back while rounds run: at its usual pace it is a tenth of a small round."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

SELDOM = (5000, 20, 100)
"""gc.set_threshold: new objects before the youngest are looked through, and how often the older ones are."""


def collect_seldom() -> None:
    """From now on in this process, what is here already is taken to stay, and cycles among what comes are looked for seldom."""
    gc.freeze()
    gc.set_threshold(*SELDOM)


@contextmanager
def seldom_collected() -> Iterator[None]:
    """The same for a while."""
    before, frozen = gc.get_threshold(), gc.get_freeze_count()
    collect_seldom()
    try:
        yield
    finally:
        gc.set_threshold(*before)
        if not frozen:  # else some are not ours to let go
            gc.unfreeze()
