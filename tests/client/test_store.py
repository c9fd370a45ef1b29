"""Private state: what was saved comes back, client by client, whoever asks for it and in whatever order."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmtl.client.store import DirectoryStore, MemoryStore
from fedmtl.errors import DiskError


@pytest.fixture(params=["memory", "directory"])
def store(request, tmp_path):
    return MemoryStore() if request.param == "memory" else DirectoryStore(tmp_path / "private")


def state(clients, version=0):
    rows = torch.tensor([1000.0 * version + client for client in clients])
    return {"w": rows.view(-1, 1).expand(-1, 3).clone(), "n": rows.to(torch.int64), "own": rows > 0}


def test_nobody_is_known_at_first(store):
    assert store.load([3, 4]) == ({}, [False, False])


def test_what_was_saved_comes_back_in_the_order_asked_for(store):
    store.save([5, 2, 9], state([5, 2, 9]), 1)
    leaves, known = store.load([9, 7, 5])
    assert known == [True, False, True]
    assert leaves["w"].tolist() == [[9.0] * 3, [5.0] * 3]
    assert leaves["n"].tolist() == [9, 5]
    assert leaves["own"].dtype == torch.bool
    store.save([2, 7], state([2, 7], version=1), 1)
    assert store.load([7, 2, 5])[0]["n"].tolist() == [1007, 1002, 5]


def test_what_is_handed_out_or_in_is_a_copy(store):
    given_in = state([1])
    store.save([1], given_in, 1)
    given_in["w"] += 1
    out, _ = store.load([1])
    out["w"] += 1
    assert store.load([1])[0]["w"].tolist() == [[1.0] * 3]


def test_an_empty_state_is_no_state(store):
    store.save([1, 2], {}, 1)
    assert store.load([1, 2]) == ({}, [False, False])


def test_gradients_stay_outside(store):
    leaf = torch.ones(1, 2, requires_grad=True)
    store.save([0], {"w": leaf * 2}, 1)
    assert not store.load([0])[0]["w"].requires_grad


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.integers(0, 60), unique=True, min_size=1, max_size=20), min_size=1, max_size=12))
def test_memory_is_a_dict_of_the_last_saved(saves):
    store, model = MemoryStore(), {}
    for version, clients in enumerate(saves):
        store.save(clients, state(clients, version), version)
        model |= {client: 1000 * version + client for client in clients}
    everyone = list(range(61))
    leaves, known = store.load(everyone)
    assert known == [client in model for client in everyone]
    assert leaves["n"].tolist() == [model[client] for client in everyone if client in model]


def test_memory_grows_with_the_clients_seen_and_not_with_their_ids():
    store = MemoryStore()
    for start in range(0, 3000, 100):
        store.save([10**6 + start + i for i in range(100)], {"w": torch.ones(100, 4)}, 1)
    assert len(store._row) == 3000
    assert all(3000 <= len(leaf) <= 6000 for leaf in store._leaves.values())


def test_a_directory_outlives_its_process_and_leaves_nothing_half_written(tmp_path):
    DirectoryStore(tmp_path / "p").save([3, 12], state([3, 12]), 1)
    assert sorted(path.name for path in (tmp_path / "p").iterdir()) == ["client-000003.safetensors", "client-000012.safetensors"]
    assert DirectoryStore(tmp_path / "p").load([12])[0]["n"].tolist() == [12]


def test_a_file_that_cannot_be_read_names_itself_and_its_client(tmp_path):
    store = DirectoryStore(tmp_path)
    store.save([3], state([3]), 1)
    file = tmp_path / "client-000003.safetensors"
    file.write_bytes(file.read_bytes()[:20])
    with pytest.raises(DiskError, match=r"client-000003.safetensors: the private state of client 3 cannot be read"):
        store.load([3])
