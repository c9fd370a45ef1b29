"""FedBABU: the head is never trained, only fine-tuned for evaluation."""

from __future__ import annotations

import pytest
import torch
from tiny import PHI, SIZES, H, client_of, data, descend, mean, near, start, trial

from fedmtl.algorithms.fedbabu import Fedbabu


def test_two_rounds_by_hand() -> None:
    t = trial(Fedbabu())
    w = start(t)
    for _ in range(2):
        w = w | mean([descend(w, *data(t, c), 2, train=[PHI]) for c in (0, 1)], SIZES, [PHI])
        near(t.rounds(1), {PHI: w[PHI]})
        assert torch.equal(t.kept()[H], t.host.model[H].expand(2, 1, 2))


@pytest.mark.parametrize(("tune", "train"), [("all", [PHI, H]), ("head", [H]), ("trunk", [PHI])])
@pytest.mark.parametrize("epochs", [0, 5])
def test_fine_tuning_by_hand(tune: str, train: list[str], epochs: int) -> None:
    t = trial(Fedbabu(tune=tune, tune_epochs=epochs))  # type: ignore[arg-type]
    t.rounds(2)
    before, kept = t.state, t.kept()
    whole = {PHI: t.state[PHI].numpy(), H: t.host.model[H].numpy()}
    models = t.models()
    for client in (0, 1):
        near(client_of(models["personal"], client), whole)
        near(client_of(models["adapted"], client), descend(whole, *data(t, client), epochs, train=train))
    near(t.state, before, 0)
    near(t.kept(), kept, 0)


def test_defaults_are_the_papers() -> None:
    assert (Fedbabu().tune, Fedbabu().tune_epochs) == ("all", 5)
