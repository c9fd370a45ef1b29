"""The strategy on real messages: one bad client can neither stop nor poison a round."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message
from flwr.serverapp.strategy import Strategy

from fedmtl import run
from fedmtl.algorithms.fedper import Fedper
from fedmtl.client.store import digest as checksum
from fedmtl.errors import PrivacyError, ScenarioError, TooManyFailures
from fedmtl.report.files import load_journal
from fedmtl.runs.engine import run_rounds
from fedmtl.runs.results import RunDirectory
from fedmtl.runtime.data import federation_of
from fedmtl.runtime.inline import InlineGrid
from fedmtl.scenario import load_scenario
from fedmtl.server.messages import ABOUT, ARRAYS, CLIENTS, FAILED, LEAKED, to_arrays, to_params
from fedmtl.server.strategy import MethodStrategy

VICTIM = 2


def params_of(reply: Message) -> dict[str, torch.Tensor]:
    return to_params(reply.content.array_records[ARRAYS])


def fill(value):
    def spoil(reply):
        reply.content[ARRAYS] = to_arrays({name: torch.full_like(leaf, value) for name, leaf in params_of(reply).items()})
    return spoil


def one_number(value):
    def spoil(reply):
        params = params_of(reply)
        next(iter(params.values())).view(-1)[0] = value
        reply.content[ARRAYS] = to_arrays(params)
    return spoil


def arrays(change):
    def spoil(reply):
        reply.content[ARRAYS] = to_arrays(change(params_of(reply)))
    return spoil


def raw(**changes):
    """The first array with other bytes or another description."""
    def spoil(reply):
        record = reply.content.array_records[ARRAYS]
        name, array = next(iter(record.items()))
        told = {"dtype": array.dtype, "shape": tuple(array.shape), "stype": array.stype, "data": array.data} | changes
        reply.content[ARRAYS] = ArrayRecord({**record, name: Array(*told.values())})
    return spoil


def column(name, value):
    def spoil(reply):
        reply.content.metric_records[CLIENTS][name] = value
    return spoil


def about(name, value):
    def spoil(reply):
        reply.content.config_records[ABOUT][name] = value
    return spoil


def without(record, name=None):
    def spoil(reply):
        if name is None:
            del reply.content[record]
        else:
            del reply.content[record][name]
    return spoil


def no_first(params):
    return dict(list(params.items())[1:])


def first(change):
    def changed(params):
        name = next(iter(params))
        return {**params, name: change(params[name])}
    return changed


SPOILT = {
    "NaN everywhere": (fill(float("nan")), "not finite"),
    "one NaN": (one_number(float("nan")), "not finite"),
    "one infinity": (one_number(float("inf")), "not finite"),
    "1e30": (fill(1e30), "not finite"),
    "one value for all": (arrays(first(lambda leaf: leaf.flatten()[:1])), "has shape [1], expected"),
    "no client axis": (arrays(first(lambda leaf: leaf[0])), "has shape"),
    "two clients' rows": (arrays(lambda p: {n: torch.cat([t, t]) for n, t in p.items()}), "has shape"),
    "float64": (arrays(lambda p: {n: t.double() for n, t in p.items()}), "has dtype float64"),
    "integers": (arrays(first(lambda leaf: leaf.to(torch.int64))), "has dtype int64"),
    "a missing key": (arrays(no_first), "are missing"),
    "no key": (arrays(lambda params: {}), "are missing"),
    "an extra key": (arrays(lambda p: {**p, "head.weight": torch.zeros(1, 10, 5)}), "unexpected parameters ['head.weight']"),
    "a key of nobody's": (arrays(lambda p: {**p, "mine": torch.zeros(1)}), "unexpected parameters ['mine']"),
    "a renamed key": (arrays(lambda p: {("x" + n if i == 0 else n): t for i, (n, t) in enumerate(p.items())}), "unexpected"),
    "cut bytes": (raw(data=b"abc"), "malformed reply"),
    "a pickle": (raw(stype="pickle"), "malformed reply"),
    "objects": (raw(dtype="object"), "malformed reply"),
    "no dtype": (raw(dtype="no such dtype"), "malformed reply"),
    "a shape beyond all memory": (raw(shape=(2**40, 2**20)), "malformed reply"),
    "a negative shape": (raw(shape=(-1, 64, 5)), "malformed reply"),
    "a negative weight": (column("num-examples", [-5]), "weight -5"),
    "no weight": (column("num-examples", [0]), "weight 0"),
    "weight 1e12": (column("num-examples", [10**12]), "differs from the"),
    "weight NaN": (column("num-examples", [float("nan")]), "weight nan"),
    "weight infinity": (column("num-examples", [float("inf")]), "weight inf"),
    "two weights": (column("num-examples", [50, 50]), "malformed reply"),
    "a weight that is no list": (column("num-examples", 50), "malformed reply"),
    "another client's id": (column("client", [VICTIM + 1]), f"it answers for clients [{VICTIM + 1}]"),
    "an unknown client's id": (column("client", [999]), "it answers for clients [999]"),
    "a negative id": (column("client", [-1]), "it answers for clients [-1]"),
    "a fractional id": (column("client", [0.5]), "must be a list of integers"),
    "the same id twice": (column("client", [VICTIM, VICTIM]), "twice"),
    "no id": (column("client", []), "malformed reply"),
    "two losses": (column("loss", [1.0, 2.0]), "malformed reply"),
    "no clients record": (without(CLIENTS), "malformed reply: KeyError"),
    "no arrays record": (without(ARRAYS), "malformed reply: KeyError"),
    "no about record": (without(ABOUT), "malformed reply: KeyError"),
    "no id column": (without(CLIENTS, "client"), "malformed reply: KeyError"),
    "no loss column": (without(CLIENTS, "loss"), "malformed reply: KeyError"),
    "no form": (without(ABOUT, "failed"), "malformed reply: KeyError"),
    "failures without reasons": (about("failed", [VICTIM]), "malformed reply"),
    "failures that are no list": (about("failed", "all"), "malformed reply"),
}


def spoil_one(change, victim=VICTIM):
    def changed(reply, client):
        if client == victim:
            change(reply)
        return [reply]
    return changed


def refuse(reply, reason, code=FAILED):
    """An error reply in place of a reply."""
    out = Message(Error(code=code, reason=reason), reply_to=reply)
    out.metadata.__dict__["_src_node_id"] = reply.metadata.src_node_id
    return [out]


def drop_one(reply, client):
    return [] if client == VICTIM else [reply]


def same(one, two):
    one, two = to_params(one), to_params(two)
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@pytest.fixture(scope="module")
def without_it(setting):
    """A round in which the victim does not answer."""
    return setting().train(drop_one)


@pytest.mark.parametrize("what", SPOILT)
def test_a_bad_reply_is_rejected_and_the_others_are_as_without_it(what, setting, without_it):
    spoil, reason = SPOILT[what]
    now, arrays = setting().train(spoil_one(spoil))
    absent, wanted = without_it
    assert list(now.rejected) == [VICTIM]
    assert reason in now.rejected[VICTIM]
    assert sorted(now.accepted) == sorted(absent.accepted) == [0, 1, 3, 4, 5]
    assert VICTIM not in now.loss
    assert same(arrays, wanted)
    assert now.bytes_up == absent.bytes_up


def test_no_reply_and_an_error_reply(setting):
    now, wanted = setting().train(drop_one)
    assert now.rejected == {VICTIM: "no reply in time"}
    now, arrays = setting().train(lambda reply, client: refuse(reply, "out of memory") if client == VICTIM else [reply])
    assert now.rejected == {VICTIM: "out of memory"}
    assert same(arrays, wanted)
    now, _ = setting().train(lambda reply, client: refuse(reply, None, 7) if client == VICTIM else [reply])
    assert now.rejected == {VICTIM: "error 7"}


def test_one_client_cannot_blame_another(setting):
    def blame(reply):
        reply.content.config_records[ABOUT]["failed"] = [0, 1, 3]
        reply.content.config_records[ABOUT]["reasons"] = ["lazy", "lazy", "lazy"]

    now, arrays = setting().train(spoil_one(blame))
    assert now.rejected == {}
    assert sorted(now.accepted) == list(range(6))
    assert same(arrays, setting().train()[1])


def test_one_client_cannot_claim_that_the_method_leaks(setting):
    now, arrays = setting().train(lambda reply, client: refuse(reply, "leak!", LEAKED) if client == VICTIM else [reply])
    assert now.rejected == {VICTIM: "leak!"}
    assert same(arrays, setting().train(drop_one)[1])
    with pytest.raises(PrivacyError, match="leak!"):
        setting().train(lambda reply, client: refuse(reply, "leak!", LEAKED))


def test_a_client_cannot_have_its_sums_taken(setting):
    """Sums are for our own workers: from anybody else they are read as rows, which they are not."""
    def sums(reply):
        about("form", "sums")(reply)
        about("shards", list(range(12)))(reply)
        reply.content[ARRAYS] = to_arrays({n: t.double().expand(12, *t.shape[1:]) for n, t in params_of(reply).items()})

    now, arrays = setting().train(spoil_one(sums))
    assert list(now.rejected) == [VICTIM]
    assert same(arrays, setting().train(drop_one)[1])


def test_a_second_reply_and_a_strangers_reply_count_for_nothing(setting):
    now, arrays = setting().train(lambda reply, client: [reply, reply] if client == VICTIM else [reply])
    assert now.rejected == {}
    assert sorted(now.accepted) == list(range(6))
    assert same(arrays, setting().train()[1])

    def stranger(reply, client):
        if client == VICTIM:
            reply.metadata.__dict__["_src_node_id"] = 4711
        return [reply]

    now, arrays = setting().train(stranger)
    assert now.rejected == {VICTIM: "no reply in time"}
    assert same(arrays, setting().train(drop_one)[1])


def test_the_order_of_replies_changes_no_bit(setting):
    one, other = setting(), setting()
    messages = one.strategy.configure_train(1, one.strategy.initial_arrays(), ConfigRecord(), one.grid)
    replies = list(one.grid.send_and_receive(messages))
    other.strategy.configure_train(1, other.strategy.initial_arrays(), ConfigRecord(), other.grid)
    assert same(one.strategy.aggregate_train(1, replies)[0], other.strategy.aggregate_train(1, replies[::-1])[0])


def test_what_most_clients_sent_decides_who_is_odd(setting):
    now, _ = setting().train(lambda reply, client: [reply] if client > 1 else spoil_one(arrays(no_first), client)(reply, client))
    assert sorted(now.rejected) == [0, 1]


def test_too_many_failures_name_the_reasons(setting):
    half = setting()
    half.train(lambda reply, client: refuse(reply, f"tired {client}") if client < 3 else [reply])  # 3 of 6 may fail
    most = setting()
    with pytest.raises(TooManyFailures, match=r"round 1: 4 of 6 clients failed.*client 0: tired 0; client 1: tired 1") as caught:
        most.train(lambda reply, client: refuse(reply, f"tired {client}") if client < 4 else [reply])
    assert caught.value.exit_code == 3
    strict = setting(**{"server.max-failures": 0.0})
    with pytest.raises(TooManyFailures):
        strict.train(drop_one)
    lenient = setting(**{"server.max-failures": 1.0})
    now, arrays = lenient.train(lambda reply, client: [])
    assert arrays is None  # the state stays
    assert len(now.rejected) == 6


def evaluated(bench, change):
    bench.strategy.join(bench.grid)
    bench.grid.change = change
    messages = bench.strategy.configure_evaluate(1, bench.strategy.initial_arrays(), ConfigRecord(), bench.grid)
    bench.strategy.aggregate_evaluate(1, bench.grid.send_and_receive(messages))
    return bench.strategy.rounds[1]


def table(change):
    def spoil(reply):
        scores = params_of(reply)["scores"]
        reply.content[ARRAYS] = to_arrays({"scores": change(scores)})
    return spoil


def extra_score(name):
    def spoil(reply):
        reply.content.config_records[ABOUT]["scores"] = [*reply.content.config_records[ABOUT]["scores"], name]
        table(lambda t: torch.cat([t, torch.full_like(t[:1], 9.0)]))(reply)
    return spoil


@pytest.mark.parametrize(("spoil", "reason"), [
    (without(ABOUT), "KeyError"), (without(CLIENTS), "KeyError"), (without(ARRAYS), "KeyError"),
    (without(ABOUT, "scores"), "KeyError"), (column("client", [0]), "it answers for clients [0]"),
    (column("client", [99]), "it answers for clients [99]"), (column("client", [VICTIM, VICTIM]), "twice"),
    (table(lambda t: t[:1]), "malformed"), (table(lambda t: t.float()), "malformed"),
    (table(lambda t: torch.cat([t, t], 1)), "malformed"), (about("scores", "all"), "malformed"), (raw(data=b""), "malformed"),
    (extra_score("test/adapted/accuracy"), "unexpected scores ['test/adapted/accuracy']"),
    (extra_score("test/personal/beauty"), "unexpected scores"), (extra_score("exam/personal/accuracy"), "unexpected scores"),
    (extra_score("accuracy"), "unexpected scores")])
def test_a_bad_evaluation_costs_its_client_alone(spoil, reason, setting):
    usual = evaluated(setting(), lambda reply, client: [reply])
    now = evaluated(setting(), spoil_one(spoil))
    assert list(now.unscored) == [VICTIM]
    assert reason in now.unscored[VICTIM]
    assert usual.unscored == {}
    assert now.scores.keys() == usual.scores.keys()
    for key, values in now.scores.items():
        assert np.isnan(values[VICTIM])
        assert np.array_equal(np.delete(values, VICTIM), np.delete(usual.scores[key], VICTIM))


def test_evaluations_that_fail_or_never_come(setting):
    now = evaluated(setting(), lambda reply, client: [] if client == 0 else refuse(reply, "tired") if client == 1 else [reply])
    assert now.unscored == {0: "no reply in time", 1: "tired"}


def test_a_whole_run_with_a_bad_client_is_told_in_the_journal(setting, tmp_path):
    bench = setting()
    bench.grid.change = lambda reply, client: (
        spoil_one(fill(float("nan")))(reply, client) if "num-examples" in reply.content[CLIENTS] else drop_one(reply, client))
    federation = federation_of(bench.scenario)
    with RunDirectory(tmp_path / "run") as files:
        files.begin(bench.scenario, federation, "accuracy", ["accuracy"])
        metrics = bench.grid.host.metrics
        state = run_rounds(bench.scenario, bench.grid, bench.strategy, metrics, "accuracy", files, lambda line: None)
    assert all(leaf.isfinite().all() for leaf in state.values())
    rounds = [event for event in load_journal(tmp_path / "run") if event["event"] == "round"]
    assert len(rounds) == 3
    for event in rounds:
        assert event["accepted"] == 5
        assert event["rejected"] == [{"client": VICTIM, "reason": "its parameters are not finite"}]
        assert event["unscored"] == [{"client": VICTIM, "reason": "no reply in time"}]
        assert np.isfinite(event["train_loss"])


def test_a_run_that_stops_says_so_in_the_journal(setting, tmp_path):
    bench = setting()
    bench.grid.change = lambda reply, client: refuse(reply, f"tired {client}") if client < 4 else [reply]
    with pytest.raises(TooManyFailures), RunDirectory(tmp_path / "run") as files:  # noqa: PT012
        files.begin(bench.scenario, federation_of(bench.scenario), "accuracy", ["accuracy"])
        run_rounds(bench.scenario, bench.grid, bench.strategy, bench.grid.host.metrics, "accuracy", files, lambda line: None)
    stopped, failed = load_journal(tmp_path / "run")[-2:]
    assert stopped["event"] == "stopped"
    assert stopped["rejected"] == [{"client": c, "reason": f"tired {c}"} for c in range(4)]
    assert failed["event"] == "failed"
    assert failed["error"] == "TooManyFailures"


@dataclass(frozen=True, kw_only=True)
class Touchy(Fedper):
    """FedPer whose code fails for some clients: those that have an odd number of training rows."""

    def local(self, client, received, kept):
        if (client.n % 2 == 1).any():
            raise ArithmeticError("odd")
        return super().local(client, received, kept)


@pytest.mark.parametrize("kind", ["inline"])
def test_a_method_that_raises_for_one_client_fails_that_client_alone(kind, tmp_path):
    name = f"{__name__}:Touchy"
    words = {"algorithm.name": name, "rounds": 2, "runtime.kind": kind, "tasks.clients": 7, "server.max-failures": 1.0}
    scenario = load_scenario("quickstart", words)
    odd = np.flatnonzero(federation_of(scenario).sizes("train") % 2 == 1).tolist()
    assert 0 < len(odd) < 7
    result = run(scenario, out=tmp_path / "run", report=False)
    rounds = [event for event in load_journal(result.path) if event["event"] == "round"]
    for event in rounds:
        assert event["rejected"] == [{"client": c, "reason": "ArithmeticError: odd"} for c in odd]
        assert event["accepted"] == 7 - len(odd)
    with pytest.raises(TooManyFailures, match="ArithmeticError: odd"):
        run("quickstart", {**words, "server.max-failures": 0.0}, out=tmp_path / "strict")


@dataclass(frozen=True, kw_only=True)
class Shy(Fedper):
    """FedPer that cannot be evaluated for clients that have an odd number of training rows."""

    adapts = True

    def adapt(self, client, params):
        if (client.n % 2 == 1).any():
            raise ArithmeticError("odd")
        return params


def test_a_method_that_raises_in_an_evaluation_costs_that_clients_scores_alone(tmp_path):
    words = {"algorithm.name": f"{__name__}:Shy", "rounds": 1, "runtime.kind": "inline", "tasks.clients": 7}
    result = run("quickstart", words, out=tmp_path / "run", report=False)
    [event] = [event for event in load_journal(result.path) if event["event"] == "round"]
    assert {one["reason"] for one in event["unscored"]} == {"ArithmeticError: odd"}


def test_it_is_a_flower_strategy(setting):
    assert isinstance(setting().strategy, Strategy)


@pytest.mark.parametrize("method", ["fedper", "ditto", "local"])
def test_flowers_own_loop_gives_the_same_bits(method, tmp_path):
    words = {"algorithm.name": method, "rounds": 3, "tasks.clients": 5, "runtime.kind": "inline", "server.participation": 0.6}
    ours = run("quickstart", words, out=tmp_path / "run", report=False)
    scenario = load_scenario(ours.path / "scenario.toml")
    grid = InlineGrid(scenario, federation_of(scenario))
    host = grid.handler.host
    strategy = MethodStrategy(scenario, host.model, host.wire)
    result = strategy.start(grid, strategy.initial_arrays(), num_rounds=3, timeout=60)
    assert checksum(strategy.method.sends(to_params(result.arrays))) == ours.summary["checksum"]
    assert sorted(result.train_metrics_clientapp) == [1, 2, 3]
    assert sorted(result.evaluate_metrics_clientapp) == [1, 2, 3]
    last = result.evaluate_metrics_clientapp[3]
    assert np.nanmean(last["test/personal/accuracy"]) == pytest.approx(ours.summary["test"]["accuracy"]["mean"])


def test_who_takes_part_is_drawn_by_key(setting):
    bench = setting(**{"server.participation": 0.5, "seed": 3})
    bench.strategy.join(bench.grid)
    picks = [bench.strategy.pick(number) for number in range(1, 60)]
    assert all(len(pick) == len(set(pick)) == 3 and pick == sorted(pick) for pick in picks)
    assert len({tuple(pick) for pick in picks}) > 5
    assert {client for pick in picks for client in pick} == set(range(6))
    again = setting(**{"server.participation": 0.5, "seed": 3})
    again.strategy.join(again.grid)
    assert [again.strategy.pick(number) for number in range(1, 60)] == picks


@pytest.mark.parametrize(("share", "count"), [(1.0, 6), (0.5, 3), (0.01, 1), (0.4, 2)])
def test_how_many_take_part(share, count, setting):
    bench = setting(**{"server.participation": share})
    now, _ = bench.train()
    assert len(now.sampled) == len(now.accepted) == count


def test_uniform_weights(setting):
    sized, even = setting().train()[1], setting(**{"server.weighting": "uniform"}).train()[1]
    bench = setting()
    rows = [to_params(reply.content.array_records[ARRAYS]) for reply in bench.grid.send_and_receive(
        bench.strategy.configure_train(1, bench.strategy.initial_arrays(), ConfigRecord(), bench.grid))]
    n = bench.strategy.roster.sizes["train"].astype(float)
    for name, leaf in to_params(even).items():
        stacked = torch.cat([row[name] for row in rows]).double()
        assert torch.allclose(leaf.double(), stacked.mean(0), atol=1e-7)
        weighted = (stacked * torch.from_numpy(n).view(-1, *[1] * (stacked.dim() - 1))).sum(0) / n.sum()
        assert torch.allclose(to_params(sized)[name].double(), weighted, atol=1e-7)


def test_the_message_holds_what_is_shared_and_nothing_else(setting):
    bench = setting()
    for message in bench.strategy.configure_train(1, bench.strategy.initial_arrays(), ConfigRecord(), bench.grid):
        assert set(message.content.array_records[ARRAYS]) == bench.grid.host.wire
        assert all(name.startswith("trunk.") for name in message.content.array_records[ARRAYS])


def test_a_strategy_that_has_met_nobody_says_so(setting):
    with pytest.raises(RuntimeError, match="configure_train first"):
        setting().strategy.pick(1)


def test_a_selector_is_checked_before_the_start():
    with pytest.raises(ScenarioError) as caught:
        load_scenario("quickstart", {"algorithm.name": f"{__name__}:Touchy", "algorithm.share": "trunks"})
    assert caught.value.key == "algorithm.share"
