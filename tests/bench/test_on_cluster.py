"""A benchmark on a Ray cluster of two nodes of this machine: what the process pool writes, and processes that die."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from fedmtl.bench.alike import sort_out
from fedmtl.bench.command import Benchmark
from fedmtl.bench.pool import Work, run_jobs
from fedmtl.errors import FedmtlError

ray = pytest.importorskip("ray")

# Ray leaves files and processes to the garbage collector
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.usefixtures("leftovers"),
              pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")]

WORDS = ["rounds=2", "tasks.clients=4", "model.hidden=[8]", "training.epochs=1"]
TABLES = ("leaderboard.md", "leaderboard.csv", "leaderboard.parquet", "leaderboard.tex", "pairs.csv", "ranks.csv")
SAME = ("scenario.toml", "split.json", "metrics.jsonl")


class Visit(Work):
    """Says on which node it is done, and how often it was begun there: the text's key `does` says what it does then."""

    def finished(self, root: Path) -> bool:
        return (root / self.name / "end").exists()

    def clear(self, root: Path) -> None:
        """What was begun before is counted."""

    def work(self, place: Path) -> None:
        place.mkdir(exist_ok=True)
        with (place / "begun").open("a") as file:
            file.write(ray.get_runtime_context().get_node_id() + "\n")
        if "dies" in self.text:
            os.kill(os.getpid(), signal.SIGKILL)
        if "fails" in self.text:
            raise ArithmeticError("odd")
        while "waits" in self.text and not (place.parent / "go").exists():
            time.sleep(0.05)
        (place / "end").touch()

    def said(self, root: Path) -> str:
        return "been there"


def visits(*does):
    return [Visit(f"visit{i}", "s", f"m{i}", 0, f'does = "{what}"', None) for i, what in enumerate(does)]


def begun(root, job):
    file = root / job.name / "begun"
    return file.read_text().split() if file.exists() else []


def until(true, seconds=120):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture(scope="module")
def cluster():
    from ray.cluster_utils import Cluster

    assert not ray.is_initialized()
    before = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), before])  # where the nodes find Visit
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        made.add_node(num_cpus=1)
        made.wait_for_nodes()
        yield made
    finally:
        ray.shutdown()
        made.shutdown()
        os.environ["PYTHONPATH"] = before


@pytest.fixture
def tasks(cluster, tmp_path):
    from fedmtl.runtime.ray_tasks import Tasks

    made = Tasks(cluster.address, tmp_path)
    yield made
    made.close()


def test_it_writes_what_the_process_pool_writes(cluster, tmp_path):
    def board(name, *words):
        asked = Benchmark(["digits-pathological"], ["fedper"], 1, [*WORDS, *words])
        failed, _, _ = asked.run(tmp_path / name, 2)
        assert failed == {}
        return tmp_path / name

    pool, there = board("pool"), board("cluster", f"runtime.address={cluster.address}")
    assert not ray.is_initialized()
    runs = sorted(path.parent.name for path in pool.glob("*/summary.json"))
    assert len(runs) == 2
    for run in runs:
        checksums = [json.loads((root / run / "summary.json").read_text())["checksum"] for root in (pool, there)]
        assert checksums[0] == checksums[1]
        for name in SAME:
            assert (there / run / name).read_bytes() == (pool / run / name).read_bytes()
    for name in TABLES:
        assert (there / name).read_bytes() == (pool / name).read_bytes()
    compared = sort_out([pool / runs[0], there / runs[1]])
    assert (compared.apart, compared.left, len(compared.runs)) == ({}, {}, 2)
    times = [(there / run / "summary.json").stat().st_mtime_ns for run in runs]
    (there / "leaderboard.md").unlink()
    board("cluster")
    assert [(there / run / "summary.json").stat().st_mtime_ns for run in runs] == times
    assert (there / "leaderboard.md").exists()


def test_both_nodes_work_and_a_failure_concerns_nobody_else(tasks, tmp_path):
    jobs = visits("waits", "waits", "fails", "dies")
    seen = []

    def let_go():
        until(lambda: begun(tmp_path, jobs[0]) and begun(tmp_path, jobs[1]))
        (tmp_path / "go").touch()

    thread = threading.Thread(target=let_go, daemon=True)
    thread.start()
    failed = run_jobs(jobs, tmp_path, 0, lambda job, state: seen.append((job.name, state[0])), tasks)
    thread.join()
    assert len({*begun(tmp_path, jobs[0]), *begun(tmp_path, jobs[1])}) == 2
    assert set(failed) == {"visit2", "visit3"}
    assert failed["visit2"].startswith("ArithmeticError: odd (test_on_cluster.py, line ")
    assert failed["visit3"].startswith("Ray gave it up: ")
    assert len(begun(tmp_path, jobs[3])) == 4
    assert (tmp_path / "visit3" / "failed.txt").read_text().strip() == failed["visit3"]
    assert [name for name, state in seen if state == "running"][:2] == ["visit0", "visit1"]
    again = run_jobs(visits("waits", "waits", "waits", "waits"), tmp_path, 0, lambda *_: None, tasks)
    assert again == {}
    assert [len(begun(tmp_path, job)) for job in jobs] == [1, 1, 2, 5]


def test_a_node_that_dies_costs_no_run(cluster, tasks, tmp_path):
    lost = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    jobs = visits("waits", "waits", "waits")

    def pull():
        until(lambda: all(begun(tmp_path, job) for job in jobs))
        cluster.remove_node(lost, allow_graceful=False)
        until(lambda: all(node["NodeID"] != lost.node_id or not node["Alive"] for node in ray.nodes()))
        (tmp_path / "go").touch()

    thread = threading.Thread(target=pull, daemon=True)
    thread.start()
    assert run_jobs(jobs, tmp_path, 0, lambda *_: None, tasks) == {}
    thread.join()
    assert sorted(len(begun(tmp_path, job)) for job in jobs) == [1, 1, 2]
    again = next(begun(tmp_path, job) for job in jobs if len(begun(tmp_path, job)) == 2)
    assert again[0] == lost.node_id != again[1]
    assert all(job.finished(tmp_path) for job in jobs)


def test_a_node_that_does_not_reach_the_directory_says_so(tasks, tmp_path):
    jobs = visits("", "")
    (tmp_path / ".cluster").write_text("another")
    failed = run_jobs(jobs, tmp_path, 0, lambda *_: None, tasks)
    assert len(failed) == 2
    assert all(f"directory of its own at {tmp_path}" in reason for reason in failed.values())
    (tmp_path / ".cluster").unlink()
    failed = run_jobs(jobs, tmp_path, 0, lambda *_: None, tasks)
    assert all(f"does not reach {tmp_path}" in reason for reason in failed.values())
    assert [begun(tmp_path, job) for job in jobs] == [[], []]


def test_nobody_answers_at_the_address(tmp_path):
    begin = time.monotonic()
    asked = Benchmark(["digits-pathological"], ["fedper"], 1, [*WORDS, "runtime.address=127.0.0.1:1"])
    with pytest.raises(FedmtlError, match=r"no Ray cluster answers at 127\.0\.0\.1:1"):
        asked.run(tmp_path / "bench", 0)
    assert [path.name for path in (tmp_path / "bench").iterdir()] == [".lock"]
    assert time.monotonic() - begin < 60
