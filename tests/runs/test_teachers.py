"""Models that a run keeps, and finished runs as teachers of other runs."""

import json

import numpy as np
import pytest
import torch

from fedmtl.client.store import DirectoryStore, MemoryStore
from fedmtl.errors import ScenarioError
from fedmtl.runs.runner import run
from fedmtl.runtime.cohort import Host
from fedmtl.runtime.data import federation_of
from fedmtl.runtime.inline import InlineGrid
from fedmtl.scenario import from_table

GROUPS = [{"name": "a", "source": "digits", "clients": 2, "trunk": {"hidden": [9]}}, {"name": "b", "source": "wine", "clients": 2}]


def table(name="local", keep=True, rounds=12, hidden=(12,), tasks=None, evaluation=None, **algorithm):
    return {"name": "taught", "rounds": rounds, "seed": 4,
            "tasks": tasks or {"source": "digits", "clients": 5, "transform": [{"kind": "relabel"}]},
            "model": {"hidden": list(hidden)}, "algorithm": {"name": name, **algorithm},
            "training": {"lr": 0.3, "batch-size": 30}, "evaluation": {"keep-models": keep, **(evaluation or {})},
            "runtime": {"kind": "inline"}}


@pytest.fixture(scope="module")
def teachers(tmp_path_factory):
    return run(from_table(table()), out=tmp_path_factory.mktemp("runs") / "local", report=False)


def scores(result, part):
    lines = [json.loads(line) for line in (result.path / "metrics.jsonl").read_text().splitlines()]
    return np.array([line["value"] for line in lines if (line["split"], line["metric"]) == (part, "accuracy")])


def test_each_client_keeps_what_did_best_on_its_validation_rows(teachers):
    store, by_round = DirectoryStore(teachers.path / "models"), scores(teachers, "val")
    state, known = store.load(range(5))
    assert all(known)
    np.testing.assert_array_equal(state["score"].numpy(), by_round.max(0))
    first_best = by_round.argmax(0)
    assert len(set(first_best.tolist())) > 1
    scenario = from_table(table())
    host = Host(scenario, federation_of(scenario), MemoryStore())
    test = scores(teachers, "test")
    for client in range(5):
        model = {name: leaf[[client]] for name, leaf in state.items() if name != "score"}
        found = host.score([client], lambda x, model=model: host.signature.forward(model, x))
        assert found["test", "accuracy"][0] == pytest.approx(test[first_best[client], client])


def test_nothing_is_kept_unless_it_is_asked_for(tmp_path):
    assert not (run(from_table(table(keep=False, rounds=1)), out=tmp_path / "run", report=False).path / "models").exists()


def test_whoever_takes_a_client_over_finds_what_it_has_to_beat(tmp_path, teachers):
    """A grid that is born again in the middle of a run keeps no worse model over a better one."""
    scenario = from_table(table())
    federation = federation_of(scenario)
    models = tmp_path / "models"
    InlineGrid(scenario, federation, models).handler.host.evaluate(1, range(5), _nothing())
    before = DirectoryStore(models).load(range(5))[0]
    again = InlineGrid(scenario, federation, models).handler.host
    again.model = {name: torch.zeros_like(leaf) for name, leaf in again.model.items()}
    worse = again.evaluate(2, range(5), _nothing())[0]["val", "personal", "accuracy"]
    after = DirectoryStore(models).load(range(5))[0]
    lost = worse <= before["score"].numpy()
    assert lost.any()
    for name, leaf in before.items():
        assert torch.equal(leaf[lost], after[name][lost])


def _nothing():
    from fedmtl.runtime.parcels import Parcel

    return Parcel({})


def test_soft_targets_are_what_the_kept_models_say_of_train_rows(teachers):
    scenario = from_table(table("distil", False, hidden=(4,), teachers=str(teachers.path)))
    federation, whole = federation_of(scenario), from_table(table())
    host, state = Host(whole, federation_of(whole), MemoryStore()), DirectoryStore(teachers.path / "models").load(range(5))[0]
    for client in range(5):
        rows = federation.part(client, "train")
        model = {name: leaf[[client]] for name, leaf in state.items() if name != "score"}
        said = host.signature.forward(model, host.pool.x[rows].unsqueeze(0))[0]
        np.testing.assert_allclose(federation.soft[rows], said.detach().numpy(), atol=2e-6)
        for part in ("val", "test"):
            assert np.isnan(federation.soft[federation.part(client, part)]).all()


def test_one_process_of_one_client_is_told_the_same(teachers):
    scenario = from_table(table("distil", False, teachers=str(teachers.path)))
    whole, alone = federation_of(scenario), federation_of(scenario, [3])
    np.testing.assert_allclose(alone.soft[alone.part(3, "train")], whole.soft[whole.part(3, "train")], atol=2e-6)


@pytest.mark.slow
def test_a_small_student_learns_from_outputs_alone(tmp_path, teachers):
    """No label is ever used: alpha 1 and no annealing. Cohort and loop agree."""
    words = {"teachers": str(teachers.path), "anneal_rounds": 0}
    asked = table("distil", False, rounds=40, hidden=(10,), teachers=words["teachers"], **{"anneal-rounds": 0, "temperature": 1.0})
    one, many = (run(from_table({**asked, "runtime": {"kind": "inline", "cohort": width}}), out=tmp_path / str(width), report=False)
                 for width in (1, 4))
    assert one.summary["test"]["accuracy"]["mean"] == pytest.approx(many.summary["test"]["accuracy"]["mean"], abs=0.02)
    assert one.summary["test"]["accuracy"]["mean"] > 0.6


def test_who_has_no_teacher_learns_from_labels_alone(tmp_path, teachers):
    """Without its file a client is as under FedPer, though its cohort's other clients have teachers."""
    import shutil

    folder = tmp_path / "some"
    shutil.copytree(teachers.path, folder)
    for client in range(4):
        (folder / "models" / f"client-{client:06d}.safetensors").unlink()
    both = [Host(scenario, federation_of(scenario), MemoryStore()) for scenario in (
        from_table(table("distil", False, teachers=str(folder))), from_table(table("fedper", False)))]
    from fedmtl.runtime.parcels import Parcel

    kept = []
    for host in both:
        host.train(1, range(5), Parcel(host.method.init(host.model, host.wire, 5)))
        kept.append(host.store.load(range(5))[0]["head.weight"])
    torch.testing.assert_close(kept[0][:4], kept[1][:4], rtol=1e-6, atol=1e-6)
    assert not torch.allclose(kept[0][4], kept[1][4], atol=1e-3)


def test_groups_keep_and_teach_apart(tmp_path):
    tasks = {"group": GROUPS}
    first = run(from_table(table(tasks=tasks, rounds=2)), out=tmp_path / "local", report=False)
    assert {path.name for path in (first.path / "models").iterdir()} == {"a", "b"}
    bare = {"group": [{key: value for key, value in group.items() if key != "trunk"} for group in GROUPS]}
    asked = table("distil", False, tasks=bare, teachers=str(first.path), share="none")
    members = federation_of(from_table(asked)).members
    assert [member.soft.shape[1] for member in members] == [10, 3]
    assert all(np.isfinite(member.soft[member.part(1, "train")]).all() for member in members)


@pytest.mark.parametrize(("change", "said"), [
    ({"seed": 5}, "other tasks, another split or another seed"),
    ({"tasks": {"source": "digits", "clients": 5}}, "other tasks"),
])
def test_other_tasks_are_refused(change, said, teachers):
    asked = table("distil", False, teachers=str(teachers.path)) | change
    with pytest.raises(ScenarioError, match=f"algorithm.teachers: .*{said}"):
        federation_of(from_table(asked))


def test_what_holds_no_models_is_refused(tmp_path, teachers):
    with pytest.raises(ScenarioError, match=r"algorithm.teachers: .*none is no directory of a finished run"):
        federation_of(from_table(table("distil", False, teachers=str(tmp_path / "none"))))
    empty = run(from_table(table(keep=False, rounds=1)), out=tmp_path / "empty", report=False)
    with pytest.raises(ScenarioError, match=r"holds no models: run it with evaluation.keep-models=true"):
        federation_of(from_table(table("distil", False, teachers=str(empty.path))))


@pytest.mark.parametrize("change", [{"evaluation": {"parts": ["test"]}},
                                    {"tasks": {"source": "digits", "clients": 5, "val": 0.0}}])
def test_the_best_needs_validation_rows(change):
    with pytest.raises(ScenarioError, match=r"evaluation.keep-models: .*validation rows"):
        from_table(table(**change))


def test_a_damaged_model_is_not_loaded(tmp_path, teachers):
    import shutil

    from fedmtl.errors import DiskError

    folder = tmp_path / "damaged"
    shutil.copytree(teachers.path, folder)
    path = folder / "models" / "client-000002.safetensors"
    bits = bytearray(path.read_bytes())
    bits[-5] ^= 1
    path.write_bytes(bytes(bits))
    with pytest.raises(DiskError, match="client 2 is damaged"):
        federation_of(from_table(table("distil", False, teachers=str(folder))))
