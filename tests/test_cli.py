"""The command line: every mistake is one message with an exit code, nothing is written, nothing is a traceback."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from there import skip_without_data

from fedmtl import cli
from fedmtl.report.heatmap import heat_maps
from fedmtl.report.holdings import holdings
from fedmtl.runs.preview import preview
from fedmtl.scenario import shipped

MODULES = {
    "broken_syntax": "def x(:\n",
    "broken_need": "import no_such_distribution\n",
    "broken_import": "\nfrom fedmtl.trees import no_such_name\n",
    "broken_raise": "\n\n1 / 0\n",
    "broken_exit": "raise SystemExit(3)\n",
    "mine": """
import numpy as np
from fedmtl.algorithms.base import Algorithm
class Plain: pass
class Half(Algorithm): pass
number = 3
def nan(clients, seed):
    x = np.zeros((100, 3)); x[3, 1] = np.nan
    return x, np.arange(100) % 3
def one(clients, seed): return 1
""",
}
FILES = {
    "good.csv": "f1,f2,y\n" + "".join(f"{i},{2 * i},{i % 3}\n" for i in range(60)),
    "hole.csv": "f1,f2,y\n" + "".join(f"{i},{'' if i == 7 else 2 * i},{i % 3}\n" for i in range(60)),
    "corrupt.npz": "PK\x03\x04 this is no archive",
    "broken.toml": 'name = "x"\nrounds = = 3\n',
    "bare.toml": 'name = "x"\n',
    "no-rounds.toml": 'name = "x"\n[tasks]\nsource = "digits"\n[algorithm]\nname = "local"\n',
    "no-tasks.toml": 'name = "x"\nrounds = 1\n[algorithm]\nname = "local"\n',
    "no-algorithm.toml": 'name = "x"\nrounds = 1\n[tasks]\nsource = "digits"\n',
    "no-method.toml": 'name = "x"\nrounds = 1\n[algorithm]\nlam = 1\n[tasks]\nsource = "digits"\n',
    "no-kind.toml": ('name = "x"\nrounds = 1\n[algorithm]\nname = "local"\n[tasks]\nsource = "digits"\n'
                     "[[tasks.split]]\nalpha = 1\n"),
    "twice.toml": 'name = "x"\nname = "y"\n',
}

# words after `fedmtl run quickstart`, then what the message must hold
OVERRIDES = {
    "nam=x": ["nam: unknown key", "did you mean 'name'"],
    "runtimes.workers=1": ["runtimes: unknown key", "did you mean 'runtime'"],
    "folder=x": ["folder: unknown key", "allowed: algorithm,"],
    "tasks.sourc=x": ["tasks.sourc:", "did you mean 'source'", "allowed: clients,"],
    "tasks.split.0.knd=iid": ["tasks.split.0.knd:", "did you mean 'kind'"],
    "tasks.transform.0.foo=1": ["tasks.transform.0.foo:", "allowed: kind"],
    "model.hiden=[3]": ["model.hiden:", "did you mean 'hidden'"],
    "algorithm.shar=all": ["algorithm.shar:", "did you mean 'share'"],
    "training.batch_size=4": ["training.batch_size:", "did you mean 'batch-size'"],
    "training.moment=0.5": ["training.moment:", "did you mean 'momentum'"],
    "server.particpation=1.0": ["server.particpation: neither weighting 'size' nor modulation", "did you mean 'participation'"],
    "evaluation.evry=1": ["evaluation.evry: unknown key", "did you mean 'every'"],
    "runtime.worker=1": ["runtime.worker: unknown key", "did you mean 'workers'"],
    "rounds=ten": ["rounds:", "valid integer", '"ten"'],
    'rounds="10"': ["rounds:", "valid integer"],
    "rounds=1.0": ["rounds:", "valid integer", "1.0"],
    "rounds=true": ["rounds:", "valid integer", "true"],
    "rounds=[3]": ["rounds:", "valid integer", "[3]"],
    "rounds=": ["rounds:", "valid integer"],
    "rounds=0": ["rounds:", "greater than or equal to 1"],
    "rounds=-1": ["rounds:", "greater than or equal to 1"],
    "rounds.x=3": ["rounds.x:", "'rounds' is a value"],
    "name=5": ["name:", "valid string"],
    'name=""': ["name:", "at least 1 character"],
    "name=1979-05-27": ["name:", "valid string"],
    "seed=-1": ["seed:", "greater than or equal to 0"],
    "seed=99999999999999999999": ["seed:", "less than"],
    "training.lr=-1": ["training.lr:", "greater than or equal to 0"],
    "training.lr=nan": ["training.lr:", "finite"],
    "training.lr=inf": ["training.lr:", "finite"],
    "training.lr=fast": ["training.lr:", "valid number"],
    "training.lr=[0.1]": ["training.lr:", "valid number"],
    "training.batch-size=0": ["training.batch-size:", "greater than or equal to 1"],
    "training.batch-size=2.5": ["training.batch-size:", "valid integer"],
    "training.momentum=2": ["training.momentum:", "less than or equal to 1"],
    "training.dtype=float16": ["training.dtype:", "did you mean", "float32, float64"],
    "training=[]": ["training:", "a table"],
    "tasks.val=nan": ["tasks.val:", "less than 1"],
    "tasks.val=-0.1": ["tasks.val:", "greater than or equal to 0"],
    "tasks.val=0.5 tasks.test=0.5": ["tasks.test:", "leave rows to train on"],
    "tasks.test=0": ["tasks.test:", "greater than 0"],
    "tasks.split=iid": ["tasks.split:", "a list"],
    "tasks.split=[{kind=iid}]": ["tasks.split:", "not a TOML value"],
    'tasks.split=["iid"]': ["tasks.split.0:", "a table"],
    "tasks.split.1.kind=iid": ["tasks.split.1.kind:", "there are 1"],
    "tasks.split.x.kind=iid": ["tasks.split.x.kind:", "'x' is not an entry's number"],
    "tasks..clients=3": ["'tasks..clients'", "section.name"],
    "server.participation=0": ["server.participation:", "greater than 0"],
    "server.participation=1.5": ["server.participation:", "less than or equal to 1"],
    "server.participation=nan": ["server.participation:", "less than or equal to 1"],
    "server.max-failures=-1": ["server.max-failures:", "greater than or equal to 0"],
    "server.weighting=sizes": ["server.weighting:", "did you mean 'size'", "inverse-size, q-fair, random, size"],
    "evaluation.parts=[\"tst\"]": ["evaluation.parts.0:", "did you mean 'test'"],
    "evaluation.parts=[]": ["evaluation.parts:", '"test" must be among them'],
    'evaluation.parts=["val"]': ["evaluation.parts:", '"test" must be among them'],
    "evaluation.every=0": ["evaluation.every:", "greater than or equal to 1"],
    "runtime.cohort=0": ["runtime.cohort:", '1 or more clients, or "auto"', "got 0"],
    "runtime.cohort=fast": ["runtime.cohort:", '1 or more clients, or "auto"'],
    "runtime.cohort=true": ["runtime.cohort:", '1 or more clients, or "auto"'],
    "runtime.workers=13": ["runtime.workers:", "runtime.shards = 12"],
    "runtime.kind=rai": ["runtime.kind:", "did you mean 'ray'"],
    "runtime.timeout=inf": ["runtime.timeout:", "finite"],
    "runtime.device=gpu": ["runtime.device:", "allowed: auto, cpu, cuda"],
    "algorithm.name=dito": ["algorithm.name:", "did you mean 'ditto'"],
    'algorithm.name=""': ["algorithm.name:", "allowed: apfl", "ditto"],
    "algorithm=ditto": ["algorithm:", "a table"],
    "algorithm.lam=1": ["algorithm.lam:", "'fedper' has no such key", "allowed: name, share"],
    "algorithm.name=ditto algorithm.lam=-1": ["algorithm.lam:", "greater than or equal to 0"],
    "algorithm.name=ditto algorithm.share=all": ["algorithm.share:", "'ditto' has no such key"],
    "algorithm.share=trunks": ["algorithm.share:", "did you mean 'trunk'"],
    "algorithm.share=trunk+": ["algorithm.share:", "all, head, none, norm, trunk"],
    "algorithm.share=": ["algorithm.share:", "all, head, none, norm, trunk"],
    "algorithm.name=mr-mtl algorithm.pull=heads": ["algorithm.pull:", "did you mean 'head'"],
    "tasks.source=digit": ["tasks.source:", "did you mean 'digits'"],
    "tasks.split.0.kind=dirichlt": ["tasks.split.0.kind:", "did you mean 'dirichlet'"],
    "tasks.transform.0.kind=relable": ["tasks.transform.0.kind:", "did you mean 'relabel'"],
    "model.trunk=mpl": ["model.trunk:", "did you mean 'mlp'"],
    "model.head=liner": ["model.head:", "did you mean 'linear'"],
    "training.optimizer=sdg": ["training.optimizer:", "did you mean 'sgd'"],
    "tasks.objective=regresion": ["tasks.objective.kind:", "did you mean 'regression'"],
    "tasks.objective=regression": ["tasks.objective:", "allowed: classification"],
    "tasks.clients=2000": ["tasks.clients:", "too few samples", "1797"],
    "tasks.clients=700": ["tasks.clients:", "too few samples"],
    "tasks.clients=0": ["tasks.clients:", "1 client or more"],
    "tasks.split=[{kind=\"pathological\",classes-per-client=11}]": ["tasks.split.classes-per-client:", "1 to 10"],
    "tasks.split.0.kind=dirichlet tasks.split.0.alpha=0": ["tasks.split.0.alpha:", "greater than 0"],
    "tasks.split.0.kind=dirichlet tasks.split.0.alpha=0.0001": ["tasks.split.alpha:", "choose a larger alpha"],
    "model.trunk=cnn": ["model.trunk:", "needs images"],
    "model.trunk=cnn tasks.image=true model.channels=[4,4,4,4]": ["model.channels:", "too many for 8 x 8"],
    "model.trunk=cnn tasks.image=true model.norm=batch runtime.cohort=4": ["runtime.cohort:", "batch statistics"],
    "model.channels=[3]": ["model.channels:", "neither trunk 'mlp' nor head 'linear'"],
    "model.hidden=[]": ["model.hidden:"],
    "model.hidden=[0]": ["model.hidden", "greater than 0"],
    "algorithm.name=no_module:X": ["algorithm.name: no module 'no_module'", "allowed: ", "mine"],
    "algorithm.name=broken_syntax:X": ["algorithm.name:", "SyntaxError", "broken_syntax.py, line 1"],
    "algorithm.name=broken_need:X": ["algorithm.name:", "needs 'no_such_distribution', which is not installed"],
    "algorithm.name=broken_import:X": ["algorithm.name:", "ImportError", "no_such_name", "broken_import.py, line 2"],
    "algorithm.name=broken_raise:X": ["algorithm.name:", "ZeroDivisionError", "broken_raise.py, line 3"],
    "algorithm.name=broken_exit:X": ["algorithm.name:", "SystemExit"],
    "algorithm.name=mine:Plan": ["algorithm.name:", "did you mean 'Plain'"],
    "algorithm.name=mine:Plain": ["algorithm.name:", "not a subclass of fedmtl.algorithms.base.Algorithm"],
    "algorithm.name=mine:number": ["algorithm.name:", "not a subclass"],
    "algorithm.name=mine:Half": ["algorithm.name:", "does not define local"],
    "algorithm.name=:X": ["algorithm.name:", "cannot be imported"],
    "tasks.source=broken_raise:load": ["tasks.source:", "ZeroDivisionError", "broken_raise.py, line 3"],
    "tasks.source=mine:nan": ["tasks.source:", "nan in row 3"],
    "tasks.source=mine:one": ["tasks.source:", "not Samples"],
    "tasks.source=mine:nan tasks.speed=1": ["tasks.speed:", "no such argument"],
    "tasks.source=file": ["tasks.path:", "required"],
    "tasks.source=file tasks.path=god.csv": ["tasks.path:", "did you mean 'good.csv'"],
    "tasks.source=file tasks.path=good.csv tasks.y=yy": ["tasks.y:", "did you mean 'y'", "f1, f2, y"],
    "tasks.source=file tasks.path=hole.csv": ["tasks.x:", "'f2' has no value in row 7"],
    "tasks.source=file tasks.path=corrupt.npz": ["tasks.path:", "cannot be read"],
    "tasks.source=file tasks.path=truncated.npz": ["tasks.path:", "cannot be read"],
    "tasks.source=file tasks.path=nan.npz": ["tasks.x:", "nan"],
    "rounds": ["'rounds'", "key=value"],
    "=3": ["''", "section.name"],
}

SCENARIOS = {
    "quickstat": ["quickstat:", "did you mean 'quickstart'"],
    "quikstart.toml": ["quikstart.toml: no such file"],
    "broken.toml": ["broken.toml:", "line 2"],
    "twice.toml": ["twice.toml:", "line 2"],
    "bare.toml": ["required"],
    "no-rounds.toml": ["rounds:", "required"],
    "no-tasks.toml": ["tasks:", "required"],
    "no-algorithm.toml": ["algorithm:", "required"],
    "no-method.toml": ["algorithm.name:", "required"],
    "no-kind.toml": ["tasks.split.0.kind:", "every entry needs a kind", "dirichlet"],
    ".": [".:", "no scenario file"],
    "linear-representation tasks.objective=classification": ["tasks.objective:", "allowed: regression"],
    "linear-representation tasks.split=[{kind=\"dirichlet\"}]": ["tasks.split.kind:", "needs class labels"],
    "linear-representation tasks.transform=[{kind=\"relabel\"}]": ["tasks.transform.kind:", "changes class labels"],
    "linear-representation tasks.rank=30": ["tasks.rank:", "20 dimensions"],
}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("work")
    for name, text in MODULES.items():
        (place / f"{name}.py").write_text(text)
    for name, text in FILES.items():
        (place / name).write_text(text)
    x = np.zeros((40, 3))
    np.savez(place / "whole.npz", x=x, y=np.arange(40) % 2)
    (place / "truncated.npz").write_bytes((place / "whole.npz").read_bytes()[:-40])
    assert not zipfile.is_zipfile(place / "truncated.npz")
    x[4, 1] = np.nan
    np.savez(place / "nan.npz", x=x, y=np.arange(40) % 2)
    return place


def call(words, monkeypatch, capsys, place):
    """(exit code, standard output, standard error) of the real main() in a working directory."""
    monkeypatch.chdir(place)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "argv", ["fedmtl", *words])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr()
    return ended.value.code, said.out, said.err


def files(place):
    return {p.relative_to(place) for p in place.rglob("*") if "__pycache__" not in p.parts}


def split_words(text):
    return text.split(" ") if text else [text]


@pytest.mark.parametrize("words", [f"quickstart {w}" for w in OVERRIDES] + list(SCENARIOS))
def test_a_bad_scenario_is_one_message_and_nothing_is_written(words, workplace, monkeypatch, capsys):
    wanted = OVERRIDES.get(words.removeprefix("quickstart ")) or SCENARIOS[words]
    before = files(workplace)
    code, out, err = call(["run", *split_words(words)], monkeypatch, capsys, workplace)
    assert code == 2
    assert out == ""
    assert "Traceback" not in err
    assert err.startswith("fedmtl: ")
    assert len(err) < 2000
    for part in wanted:
        assert part in err
    assert files(workplace) == before


def test_cuda_where_there_is_none(workplace, monkeypatch, capsys):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is one")
    for words, key in ((["runtime.device=cuda"], "runtime.device:"),
                       (["runtime.kind=ray", "runtime.gpus-per-worker=1"], "runtime.gpus-per-worker:")):
        code, _, err = call(["run", "quickstart", *words], monkeypatch, capsys, workplace)
        assert code == 2
        assert key in err
    assert not (workplace / "runs").exists()


@pytest.mark.parametrize("words", [
    [], ["run"], ["run", "quickstart", "--nope"], ["rn", "quickstart"], ["run", "quickstart", "--out"], ["cp", "quickstart"],
    ["report"], ["deploy", "quickstart", "--clients", "0"], ["deploy", "quickstart", "--clients", "many"]], ids=" ".join)
def test_usage_errors_are_exit_code_2(words, tmp_path, monkeypatch, capsys):
    code, out, err = call(words, monkeypatch, capsys, tmp_path)
    assert code == 2
    assert "Usage" in out + err or "Error: " in err
    assert "Traceback" not in err
    assert files(tmp_path) == set()


@pytest.mark.parametrize("words", ["run quickstart algorithm.name=broken_raise:X", "run --nope"])
def test_in_a_process_of_its_own(words, workplace):
    command = [sys.executable, "-B", "-m", "fedmtl.cli", *words.split()]
    done = subprocess.run(command, cwd=workplace, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert not (workplace / "runs").exists()


TINY = ["rounds=1", "tasks.clients=3", "runtime.kind=inline", "model.hidden=[4]"]


def test_a_directory_that_holds_a_run_is_left_alone(tmp_path, monkeypatch, capsys):
    words = ["run", "quickstart", *TINY, "--out", "here"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["fedmtl", *words])
    cli_ends_well(capsys)
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in (tmp_path / "here").rglob("*") if p.is_file()}
    code, _, err = call(words, monkeypatch, capsys, tmp_path)
    assert code == 4
    assert "already holds a run" in err
    assert {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in (tmp_path / "here").rglob("*") if p.is_file()} == before


def cli_ends_well(capsys):
    """Runs main() with the argv that is set; its standard output and error."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code in (0, None)
    return capsys.readouterr()


@pytest.mark.parametrize("out", ["a-file", "a-file/below", "/proc/fedmtl-run"])
def test_an_unwritable_out_is_exit_code_4(out, tmp_path, monkeypatch, capsys):
    (tmp_path / "a-file").write_text("keep me")
    code, _, err = call(["run", "quickstart", *TINY, "--out", out], monkeypatch, capsys, tmp_path)
    assert code == 4
    assert f"{out} cannot be written" in err
    assert "Traceback" not in err
    assert (tmp_path / "a-file").read_text() == "keep me"


def test_a_full_disk_is_exit_code_4(tmp_path, monkeypatch, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "journal.jsonl").symlink_to("/dev/full")
    code, _, err = call(["run", "quickstart", *TINY, "--out", "full"], monkeypatch, capsys, tmp_path)
    assert code == 4
    assert "journal.jsonl cannot be written: No space left" in err


def test_json_is_one_object_and_nothing_else(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["fedmtl", "run", "quickstart", *TINY, "--out", "r", "--json"])
    said = cli_ends_well(capfd)
    [line] = said.out.splitlines()
    printed = json.loads(line)
    assert printed.pop("out") == "r"
    assert printed == json.loads((tmp_path / "r" / "summary.json").read_text())
    assert "\x1b" not in said.err  # plain lines where there is no terminal
    rounds = [text for text in said.err.splitlines() if text.split()[:1] == ["1"]]
    assert len(rounds) == 1


def test_a_terminal_gets_a_progress_bar(tmp_path):
    mine, theirs = pty.openpty()
    words = [sys.executable, "-m", "fedmtl.cli", "run", "quickstart", *TINY, "--out", "r"]
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    process = subprocess.Popen(words, cwd=tmp_path, stdin=theirs, stdout=theirs, stderr=theirs, env=env)
    os.close(theirs)
    seen = b""
    while True:
        try:
            piece = os.read(mine, 65536)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        seen += piece
    os.close(mine)
    assert process.wait() == 0
    assert b"rounds" in seen
    assert b"\x1b[" in seen
    assert b"report: r/report.html" in seen


@pytest.mark.parametrize("kind", ["algorithms", "scenarios", "sources", "splits", "transforms", "objectives", "models"])
def test_ls_as_json(kind, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["fedmtl", "ls", kind, "--json"])
    said = cli_ends_well(capsys)
    [line] = said.out.splitlines()
    listed = json.loads(line)
    assert list(listed) == ["kind", "items"]
    assert listed["kind"] == kind
    assert listed["items"]
    for item in listed["items"]:
        assert list(item) == ["name", "summary", "paper"]
        assert all(isinstance(text, str) for text in item.values())
        assert item["name"]
        assert item["summary"]


def test_every_algorithm_has_a_paper(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["fedmtl", "ls", "algorithms", "--json"])
    for item in json.loads(cli_ends_well(capsys).out)["items"]:
        assert re.search(r"\b(19|20)\d\d\b", item["paper"]), item


def test_ls_filters_and_names_the_nearest_kind(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["fedmtl", "ls", "algorithms", "DITTO", "--json"])
    assert [item["name"] for item in json.loads(cli_ends_well(capsys).out)["items"]] == ["ditto"]
    monkeypatch.setattr(sys, "argv", ["fedmtl", "ls"])
    assert "fedper" in cli_ends_well(capsys).out
    code, _, err = call(["ls", "algoritms"], monkeypatch, capsys, tmp_path)
    assert code == 2
    assert "did you mean 'algorithms'" in err


def test_cp_copies_and_never_overwrites(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["fedmtl", "cp", "quickstart", "mine.toml"])
    cli_ends_well(capsys)
    assert (tmp_path / "mine.toml").read_bytes() == shipped()["quickstart"].read_bytes()
    (tmp_path / "mine.toml").write_text("changed")
    code, _, err = call(["cp", "quickstart", "mine.toml"], monkeypatch, capsys, tmp_path)
    assert code == 4
    assert "exists already" in err
    assert (tmp_path / "mine.toml").read_text() == "changed"
    code, _, err = call(["cp", "quickstart", "nowhere/mine.toml"], monkeypatch, capsys, tmp_path)
    assert code == 4
    assert "nowhere/mine.toml cannot be written" in err
    code, _, err = call(["cp", "quickstar", "other.toml"], monkeypatch, capsys, tmp_path)
    assert code == 2
    assert "did you mean 'quickstart'" in err


@pytest.mark.parametrize("name", sorted(shipped()))
def test_there_is_something_to_show_of_every_shipped_scenario(name):
    skip_without_data(name)
    split, costs = preview(name, [])
    console = Console(file=io.StringIO(), width=200)
    console.print(holdings(split))
    assert split["clients"][0]["task"] in console.file.getvalue()
    assert heat_maps(split)
    assert 0 < costs["clients"] <= len(split["clients"])


DRAWN = {"quickstart", "same-input", "linear-representation"}
"""A scenario with class labels, one with groups, one with numbers: what is the same of all others are slow tests."""


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=() if name in DRAWN else pytest.mark.slow) for name in sorted(shipped())])
def test_show_and_check_work_for_every_shipped_scenario(name, tmp_path, monkeypatch, capsys):
    skip_without_data(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["fedmtl", "show", name, "--out", "seen"])
    said = cli_ends_well(capsys).out
    assert "a round moves" in said
    assert list((tmp_path / "seen").glob("split*.png"))
    monkeypatch.setattr(sys, "argv", ["fedmtl", "check", name])
    assert "can run" in cli_ends_well(capsys).out
    assert not (tmp_path / "runs").exists()


def test_show_writes_a_page(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["fedmtl", "show", "class-pairs", "--html", "who.html"])
    assert "page: who.html" in cli_ends_well(capsys).out
    assert "transform subset" in (tmp_path / "who.html").read_text()
    code, _, err = call(["show", "class-pairs", "--html", "/proc/fedmtl.html"], monkeypatch, capsys, tmp_path)
    assert code == 4
    assert "/proc/fedmtl.html cannot be written" in err


def test_a_local_run_beside_is_a_baseline_and_another_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for words in (["algorithm.name=local"], [], ["algorithm.name=fedavg", "seed=1", "--out", "other"]):
        monkeypatch.setattr(sys, "argv", ["fedmtl", "run", "quickstart", *TINY, *words])
        said = cli_ends_well(capsys).out
    run = Path("runs") / "quickstart-fedper-seed0"
    assert "harmed" in json.loads((run / "summary.json").read_text())
    assert "Gain over local" in (run / "report.html").read_text()
    assert "Delta-m" not in said
    code, _, err = call(["report", str(run), "--baseline", "other"], monkeypatch, capsys, tmp_path)
    assert code == 1
    assert "cannot be compared: another seed (seed is 0 here and 1 there)" in err


def test_show_into_an_unwritable_place(tmp_path, monkeypatch, capsys):
    code, _, err = call(["show", "quickstart", "--out", "/proc/fedmtl"], monkeypatch, capsys, tmp_path)
    assert code == 4
    assert "cannot be written" in err


def test_report_writes_the_page_again(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["fedmtl", "run", "quickstart", *TINY])
    cli_ends_well(capsys)
    run = Path("runs") / "quickstart-fedper-seed0"
    page = run / "report.html"
    before = page.read_bytes()
    page.unlink()
    monkeypatch.setattr(sys, "argv", ["fedmtl", "report", str(run)])
    assert str(page) in cli_ends_well(capsys).out
    assert page.read_bytes() == before
    code, _, err = call(["report", "nowhere"], monkeypatch, capsys, tmp_path)
    assert code == 1
    assert "is nowhere a run directory" in err
