"""Private state on disk: every version that may be asked for comes back as it was, and damage is told, never loaded."""

from __future__ import annotations

import os
import resource
import signal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmtl.client.durable import HEAD, DurableStore
from fedmtl.errors import DiskError

KINDS = {"f": torch.float32, "d": torch.float64, "n": torch.int64, "own": torch.bool}


def state(clients, version=0):
    """Leaves of every dtype and of several shapes, one number a client among them; what they hold tells client and version."""
    rows = torch.tensor([1000.0 * version + client for client in clients], dtype=torch.float64)
    return {"f": rows.float().view(-1, 1).expand(-1, 3).clone(), "d": rows.view(-1, 1, 1) / 3 + torch.zeros(1, 2, 2),
            "n": rows.to(torch.int64), "own": torch.stack([rows % 2 == 0, rows % 3 == 0], dim=1)}


def same(found, wanted):
    assert found.keys() == wanted.keys()
    for name, leaf in wanted.items():
        assert found[name].dtype == KINDS[name] == leaf.dtype
        assert torch.equal(found[name], leaf)


def forget(store):
    """Everybody rests."""
    store._free += store._row.values()
    store._row.clear()


@pytest.mark.parametrize("through", ["memory", "disk", "another process"])
def test_every_dtype_and_shape_comes_back_in_the_order_asked_for(through, tmp_path):
    store = DurableStore(tmp_path / "deep" / "node")
    assert store.load([3]) == ({}, [False])
    store.save([5, 2, 9], state([5, 2, 9]), 1)
    store.save([7], state([7]), 1)
    if through == "disk":
        forget(store)
    elif through == "another process":
        store = DurableStore(tmp_path / "deep" / "node", before=2)
    found, known = store.load([9, 4, 7, 5])
    assert known == [True, False, True, True]
    same(found, state([9, 7, 5]))
    assert not os.stat(tmp_path / "deep" / "node.a").st_mode & 0o077  # nobody else's business


def test_a_single_number_a_client_is_a_state_too(tmp_path):
    DurableStore(tmp_path / "node").save([3, 1], {"loss": torch.tensor([0.5, 0.25])}, 1)
    found, known = DurableStore(tmp_path / "node", before=2).load([1, 3])
    assert known == [True, True]
    assert found["loss"].tolist() == [0.25, 0.5]


def test_a_state_without_leaves_is_none_and_gradients_stay_outside(tmp_path):
    store = DurableStore(tmp_path / "node")
    store.save([1], {}, 1)
    assert store.load([1]) == ({}, [False])
    store.save([1], {"w": torch.ones(1, 2, requires_grad=True) * 2}, 1)
    assert not store.load([1])[0]["w"].requires_grad


def test_reopened_before_a_round_it_holds_what_stood_before_it(tmp_path):
    store = DurableStore(tmp_path / "node")
    for round in (1, 2):
        store.save([0, 1, 2, 3], state([0, 1, 2, 3], round), round)
    store.save([1, 4], state([1, 4], 3), 3)  # round 3 broke off here; client 4 is new
    again = DurableStore(tmp_path / "node", before=3)
    found, known = again.load([0, 1, 2, 3, 4])
    assert known == [True, True, True, True, False]
    same(found, state([0, 1, 2, 3], 2))
    again.save([4, 1, 2], state([4, 1, 2], 33), 3)  # the round is done again, and breaks off once more
    found, known = DurableStore(tmp_path / "node", before=3).load([1, 2, 4])
    assert known == [True, True, False]
    same(found, state([1, 2], 2))
    found, _ = DurableStore(tmp_path / "node", before=4).load([0, 1, 2, 4])
    assert found["n"].tolist() == [2000, 33001, 33002, 33004]


def test_without_a_round_it_starts_empty(tmp_path):
    DurableStore(tmp_path / "node").save([1, 2], state([1, 2], 8), 8)
    fresh = DurableStore(tmp_path / "node")
    assert fresh.load([1, 2]) == ({}, [False, False])
    fresh.save([2], {"w": torch.ones(1, 3)}, 1)
    found, known = DurableStore(tmp_path / "node", before=9).load([1, 2])  # of the old files nothing is left
    assert (found["w"].tolist(), known) == ([[1.0] * 3], [False, True])


def test_nothing_to_reopen_is_nobody_known(tmp_path):
    assert DurableStore(tmp_path / "node", before=5).load([1]) == ({}, [False])


def test_clients_that_rest_leave_memory_and_are_read_back(tmp_path):
    one = sum(leaf[0].numel() * leaf.element_size() for leaf in state([0]).values())
    store = DurableStore(tmp_path / "node", resident=4 * one)
    everyone = list(range(30))
    for round in (1, 2, 3):
        for start in range(0, 30, 5):
            clients = everyone[start : start + 5]
            store.load(clients)
            store.save(clients, state(clients, round), round)
            assert len(store._row) <= 4
    assert all(len(leaf) <= 32 for leaf in store._leaves.values())  # memory follows those who are awake, not those who exist
    found, known = store.load([29, 3, 17, 0])
    assert all(known)
    same(found, state([29, 3, 17, 0], 3))
    found, _ = store.load(everyone)  # more at once than may stay
    same(found, state(everyone, 3))
    assert len(store._row) <= 4


def position(store, client):
    """(file, offset) of a client's newest record."""
    turn = store._version[client][0]
    return store.path.with_suffix(".ab"[0] + "ab"[turn]), store._place[client] * store._size


@pytest.mark.parametrize("place", ["client", "round", "crc", "seal", "body", "last"])
@pytest.mark.parametrize("reopened", [False, True])
def test_a_flipped_byte_is_told_by_client_and_never_loaded(place, reopened, tmp_path):
    store = DurableStore(tmp_path / "node")
    for round in (1, 2, 3):
        store.save([10, 11, 12], state([10, 11, 12], round), round)
    path, offset = position(store, 11)
    within = {"body": HEAD.itemsize, "last": store._size - 1} | {name: HEAD.fields[name][1] for name in HEAD.names}
    data = bytearray(path.read_bytes())
    data[offset + within[place]] ^= 1
    path.write_bytes(data)
    forget(store)

    def read():
        return (DurableStore(tmp_path / "node", before=4) if reopened else store).load([11])

    with pytest.raises(DiskError, match=r"node: the private state of client 1[01] is damaged" if place == "client" else
                       r"node: the private state of client 11 is damaged"):
        read()
    if not reopened or place in ("body", "last"):  # its neighbours are well
        other = DurableStore(tmp_path / "node", before=4) if reopened else store
        same(other.load([12, 10])[0], state([12, 10], 3))


@pytest.mark.parametrize("reopened", [False, True])
def test_a_record_cut_short_is_told_and_never_loaded(reopened, tmp_path):
    store = DurableStore(tmp_path / "node")
    store.save([10, 11], state([10, 11], 1), 1)
    path, offset = position(store, 11)
    os.truncate(path, offset + HEAD.itemsize + 4)
    forget(store)
    other = DurableStore(tmp_path / "node", before=2) if reopened else store
    with pytest.raises(DiskError, match="the private state of client 11 is damaged"):
        other.load([11])
    same(other.load([10])[0], state([10], 1))


def test_a_write_torn_in_the_round_that_is_done_again_costs_nothing(tmp_path):
    store = DurableStore(tmp_path / "node")
    for round in (1, 2):
        store.save([10, 11], state([10, 11], round), round)
    store.save([10, 11, 12], state([10, 11, 12], 3), 3)
    path, offset = position(store, 11)
    data = bytearray(path.read_bytes())
    data[offset + HEAD.itemsize + 2 : offset + store._size] = bytes(store._size - HEAD.itemsize - 2)
    path.write_bytes(data)
    path, offset = position(store, 12)
    os.truncate(path, offset + HEAD.itemsize + 4)
    found, known = DurableStore(tmp_path / "node", before=3).load([10, 11, 12])
    assert known == [True, True, False]
    same(found, state([10, 11], 2))


def test_a_first_file_that_lost_its_end_is_noticed(tmp_path):
    store = DurableStore(tmp_path / "node")
    for round in (1, 2, 3):
        store.save([10, 11], state([10, 11], round), round)
    os.truncate(tmp_path / "node.a", store._size)
    with pytest.raises(DiskError, match="the private state of client 11 is damaged"):
        DurableStore(tmp_path / "node", before=4)


def test_a_damaged_layout_is_told(tmp_path):
    DurableStore(tmp_path / "node").save([1], state([1]), 1)
    (tmp_path / "node.json").write_text("[[\"f\", ")
    with pytest.raises(DiskError, match=r"node.json is damaged"):
        DurableStore(tmp_path / "node", before=2)


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError, match="private state cannot be kept there"):
        DurableStore(tmp_path / "file" / "node")


def test_a_disk_that_takes_only_part_of_a_write_is_told(tmp_path):
    store = DurableStore(tmp_path / "node")
    store.save([0], {"w": torch.zeros(1, 1000)}, 1)
    before, limits = signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (3 * store._size // 2, limits[1]))
        with pytest.raises(DiskError, match="private state cannot be written: File too large"):
            store.save([1, 2], {"w": torch.ones(2, 1000)}, 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)


def test_the_files_are_closed_when_nobody_needs_them(tmp_path):
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        DurableStore(tmp_path / "node").save([1], state([1]), 1)
    assert len(os.listdir("/proc/self/fd")) <= before + 1


STEPS = st.lists(st.one_of(
    st.tuples(st.just("save"), st.lists(st.integers(0, 25), unique=True, min_size=1, max_size=12)),
    st.tuples(st.just("load"), st.lists(st.integers(0, 25), unique=True, min_size=1, max_size=12)),
    st.tuples(st.just("reopen"), st.just([])), st.tuples(st.just("redo"), st.just([]))), max_size=25)


@settings(max_examples=60, deadline=None)
@given(steps=STEPS, resident=st.sampled_from([1, 200, 2**20]))
def test_it_is_a_dict_of_versions(steps, resident, tmp_path_factory):
    """Each save is a round. "reopen" comes after the last round, "redo" in it: it is made again, by the same clients at least."""
    path = tmp_path_factory.mktemp("model") / "node"
    store, now, before, last, round = DurableStore(path, resident=resident), {}, None, [], 0
    for number, (what, asked) in enumerate(steps):
        if what == "save":
            clients = sorted({*asked, *last}) if before is None else asked
            before, last, round = dict(now), clients, round + 1
            store.save(clients, state(clients, number), round)
            now |= {client: 1000 * number + client for client in clients}
        elif what == "load":
            check(store, now, asked)
        elif what == "redo" and before is not None:
            store, now, before = DurableStore(path, before=round, resident=resident), before, None
            round -= 1
        else:
            store = DurableStore(path, before=round + 1, resident=resident)
    check(store, now, range(26))
    check(DurableStore(path, before=round + 1), now, range(26))


def check(store, model, clients):
    found, known = store.load(list(clients))
    assert known == [client in model for client in clients]
    if any(known):
        wanted = [model[client] for client in clients if client in model]
        assert found["n"].tolist() == wanted
        assert found["f"].tolist() == [[float(number)] * 3 for number in wanted]
        assert found["own"].tolist() == [[number % 2 == 0, number % 3 == 0] for number in wanted]
