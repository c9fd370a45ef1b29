"""Samplers: what they draw and how often, equal steps, one cohort or many, and the default as it always was."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from tiny import same_bits, trial

from fedmtl import keys, run
from fedmtl.algorithms.deltas import steps
from fedmtl.algorithms.fedavg import Fedavg
from fedmtl.errors import ScenarioError
from fedmtl.mtl.losses import Losses
from fedmtl.mtl.sampling import Capped, ClassBalanced, Epochs, LossProportional, Steps, Temperature, strata
from fedmtl.scenario import load_scenario
from fedmtl.tasks.objectives.basic import Classification, Regression

INLINE = {"runtime.kind": "inline", "runtime.workers": 1}
COUNTS = np.array([60, 5, 1, 0])
KEY = keys.stream(3, "batches", 1, np.arange(4))
Y = torch.tensor([0] * 40 + [1] * 15 + [2] * 5)


def orders(sampler, counts=COUNTS, passes=2, classes=(), batch=10, state=None):
    drawn = sampler.rows(counts, batch)
    found = sampler.order(KEY[: len(counts)], np.arange(passes), counts, drawn, classes, state or {})
    return [found[slot, :, :many] for slot, many in enumerate(drawn)]


def by_class(counts=COUNTS):
    return [strata(Classification(), Y[:count]) for count in counts]


def test_epochs_are_permutations_with_the_bits_they_always_had() -> None:
    for slot, found in enumerate(orders(Epochs(), passes=3)):
        old = [np.argsort(keys.fold(KEY[slot], epoch, np.arange(COUNTS[slot])), kind="stable") for epoch in range(3)]
        assert np.array_equal(found, np.array(old).reshape(3, -1))


def test_capped_is_the_beginning_of_an_epoch() -> None:
    for found, whole in zip(orders(Capped(steps=2)), orders(Epochs()), strict=True):
        assert np.array_equal(found, whole[:, :20])
    assert Capped(steps=2).rows(COUNTS, 10).tolist() == [20, 5, 1, 0]


def test_steps_go_through_all_rows_before_any_comes_again() -> None:
    large, small, single, nobody = orders(Steps(steps=3))
    assert [found.shape for found in (large, small, single, nobody)] == [(2, 30)] * 3 + [(2, 0)]
    assert all(len(set(row)) == 30 for row in large)
    assert all(sorted(row[start : start + 5]) == list(range(5)) for row in small for start in range(0, 30, 5))
    assert not np.array_equal(small[0, :5], small[0, 5:10])
    assert not single.any()


def test_steps_give_every_row_its_share() -> None:
    key = keys.stream(7, "batches", 1, np.arange(4000))
    found = Steps(steps=1).order(key, np.arange(1), np.full(4000, 8), np.full(4000, 3), [], {})
    assert chisquare(np.bincount(found.ravel(), minlength=8)).pvalue > 0.01
    assert chisquare(np.bincount(found[:, 0, 0], minlength=8)).pvalue > 0.01


@pytest.mark.parametrize(("sampler", "power"), [(ClassBalanced(steps=4000), 0.0), (Temperature(tau=0.5, steps=4000), 0.5),
                                                (Temperature(tau=1.0, steps=4000), 1.0), (Temperature(tau=0.0, steps=4000), 0.0)])
def test_draws_follow_the_stated_chances(sampler, power) -> None:
    found = orders(sampler, COUNTS[:1], passes=1, classes=by_class(COUNTS[:1]))[0][0]
    sizes = np.array([40, 15, 5])
    chance = sizes**power / (sizes**power).sum()
    assert chisquare(np.bincount(Y[found], minlength=3), chance * len(found)).pvalue > 0.01
    rows = np.repeat(chance / sizes, sizes)
    assert chisquare(np.bincount(found, minlength=60), rows * len(found)).pvalue > 0.01
    if power == 0.5:
        assert chisquare(np.bincount(Y[found], minlength=3), sizes / 60 * len(found)).pvalue < 1e-9


TASKS = np.zeros((60, 3), bool)
TASKS[:40, 0] = TASKS[40:55, 1] = TASKS[55:, 2] = True
"""60 rows, each of one of three tasks."""


@pytest.mark.parametrize("sharpness", [0.0, 1.0, 2.0])
def test_a_task_is_drawn_by_its_loss(sharpness) -> None:
    state = {"last": torch.tensor([[0.5, 2.0, 1.0]])}
    sampler = LossProportional(steps=4000, sharpness=sharpness)
    found = orders(sampler, COUNTS[:1], passes=1, classes=[TASKS], state=state)[0][0]
    chance = np.array([0.5, 2.0, 1.0]) ** sharpness
    assert chisquare(TASKS[found].sum(0), chance / chance.sum() * len(found)).pvalue > 0.01
    if sharpness == 0:
        assert np.array_equal(found, orders(ClassBalanced(steps=4000), COUNTS[:1], passes=1, classes=[TASKS])[0][0])


def test_what_has_no_loss_yet_counts_as_the_mean_of_the_others() -> None:
    sizes = np.array([3, 4, 5, 0])
    shares = LossProportional().shares(sizes, {"last": torch.tensor([2.0, 0.0, 1.0, 7.0])})
    assert (shares / shares[0]).tolist() == [1.0, 0.75, 0.5, 3.5]
    assert LossProportional().shares(sizes, LossProportional().start(4)).tolist() == [1.0] * 4


def test_losses_are_remembered_row_by_row_and_taken_up_after_the_round() -> None:
    def seen(values, rows):
        return Losses(torch.tensor([values]), torch.tensor([rows]), ("a", "b"), torch.zeros(2, dtype=torch.bool), KEY[:1])

    sampler = LossProportional()
    state = {name: leaf[None] for name, leaf in sampler.start(2).items()}
    for values, rows in (([1.0, 5.0], [3.0, 0.0]), ([2.0, 5.0], [1.0, 0.0])):
        state = sampler.learn(seen(values, rows), state)
        assert not state["last"].any()
    state = sampler.close(state)
    assert state["last"].tolist() == [[1.25, 0.0]]
    assert not state["sum"].any()
    assert sampler.close(state)["last"].tolist() == [[1.25, 0.0]]


def test_what_goes_badly_is_drawn_more_often(tmp_path) -> None:
    """Of the four tasks of a client each has the rows; the share of a task in what is drawn follows its last loss."""
    words = {"rounds": 2, "tasks.clients": 4, "training.sampler": "loss-proportional", **INLINE}
    first, again = (run("task-sets", words, out=tmp_path / str(i), report=False) for i in range(2))
    assert first.summary["checksum"] == again.summary["checksum"]
    balanced = run("task-sets", {**words, "training.sampler": "class-balanced"}, out=tmp_path / "c", report=False)
    assert first.summary["checksum"] != balanced.summary["checksum"]


def test_rows_without_a_label_are_drawn_only_where_there_are_no_others() -> None:
    y = torch.tensor([[float("nan")], [0.0], [-1.0], [1.0], [1.0]])
    found = orders(ClassBalanced(steps=50), np.array([5]), classes=[strata(Classification(), y)])[0]
    assert set(found.ravel()) == {1, 3, 4}
    found = orders(ClassBalanced(steps=50), np.array([3]), classes=[strata(Classification(), torch.full((3, 1), -1.0))])[0]
    assert set(found.ravel()) == {0, 1, 2}


def test_passes_clients_and_neighbours_have_draws_of_their_own() -> None:
    for sampler in (Epochs(), Steps(steps=3), ClassBalanced(), Temperature()):
        together = orders(sampler, COUNTS, classes=by_class())
        assert not np.array_equal(together[0][0], together[0][1])
        for slot in (0, 1, 2):
            count = COUNTS[slot : slot + 1]
            drawn = sampler.rows(count, 10)
            alone = sampler.order(KEY[slot : slot + 1], np.arange(2), count, drawn, by_class(count), {})
            assert np.array_equal(alone[0, :, : drawn[0]], together[slot])


def test_strata_of_what_has_no_classes() -> None:
    assert strata(Regression(), torch.zeros(4, 1)) is None
    assert strata(Classification(), torch.zeros(4, 2, 2, dtype=torch.int64)) is None


@pytest.mark.parametrize("cohort", [1, 3])
def test_every_client_makes_as_many_steps(cohort) -> None:
    t = trial(Fedavg(), sizes=(30, 4, 1), cohort=cohort, training={"sampler": "steps", "steps": 3, "batch-size": 8})
    for _, slots in t.host.chunks([0, 1, 2]):
        client = t.host.client(slots, 1, "batches")
        batches = list(client.batches(2))
        assert len(batches) == 6
        assert all(batch.active == len(slots) for batch in batches)
        assert all(torch.equal((batch.weight > 0).sum(1), torch.full((len(slots),), 8)) for batch in batches)
        assert client.steps.tolist() == [3] * len(slots)
        assert steps(client).tolist() == [6.0] * len(slots)


@pytest.mark.parametrize("sampler", [{"sampler": "steps", "steps": 3}, {"sampler": "capped", "steps": 2}])
def test_one_cohort_or_many(sampler) -> None:
    a, b = (trial(Fedavg(), sizes=(30, 4, 1), cohort=cohort, training={**sampler, "batch-size": 8}).rounds(3) for cohort in (1, 3))
    for name, leaf in a.items():
        torch.testing.assert_close(leaf, b[name], rtol=1e-12, atol=1e-12)


def test_the_default_is_epochs() -> None:
    a, b = trial(Fedavg(), training={"batch-size": 3}), trial(Fedavg(), training={"batch-size": 3, "sampler": "epochs"})
    same_bits(a.rounds(2), b.rounds(2))
    assert load_scenario("quickstart").sampler == Epochs()


SHORT = {"rounds": 2, "training.batch-size": 2, **INLINE}


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> str:
    """The checksum of a run without a sampler of its own."""
    return run("digits-pathological", SHORT, out=tmp_path_factory.mktemp("plain") / "run", report=False).summary["checksum"]


@pytest.mark.parametrize("name", ["steps", "capped", "class-balanced", "temperature"])
def test_a_run_and_what_it_writes(name, plain, tmp_path) -> None:
    words = {"training.sampler": name, **SHORT}
    first = run("digits-pathological", words, out=tmp_path / "a", report=False)
    again = run(first.path / "scenario.toml", out=tmp_path / "b", report=False)
    assert first.summary["checksum"] == again.summary["checksum"]
    assert first.summary["checksum"] != plain


@pytest.mark.parametrize(("words", "key"), [
    ({"training.sampler": "step"}, r"training.sampler: unknown name 'step'\n  did you mean 'steps'\?"),
    ({"training.sampler": "steps", "training.steps": 0}, r"training.steps: .*greater than or equal to 1"),
    ({"training.steps": 5}, r"training.steps: neither optimizer 'sgd' nor loss-weighting 'uniform' nor modulation 'none' nor "
     "sampler 'epochs' has"),
    ({"training.sampler": "temperature", "training.tau": 2.0}, r"training.tau: .*less than or equal to 1"),
    ({"server.sampler": "none"}, r"server.sampler")])
def test_what_a_scenario_cannot_say(words, key) -> None:
    with pytest.raises(ScenarioError, match=key):
        load_scenario("quickstart", words)


def test_classes_must_be_there() -> None:
    with pytest.raises(ScenarioError, match=r"training.sampler: 'loss-proportional' draws among a client's own tasks, and"):
        trial(Fedavg(), training={"sampler": "loss-proportional"})
    with pytest.raises(ScenarioError, match=r"training.sampler: 'regression' has no one class a row"):
        trial(Fedavg(), training={"sampler": "class-balanced"})
