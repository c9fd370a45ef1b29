"""Components: found by scanning, built strictly, and a user's own by module:Class."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from typing import Literal

import pytest

from fedmtl import registry
from fedmtl.algorithms.base import Algorithm
from fedmtl.algorithms.ditto import Ditto
from fedmtl.errors import ScenarioError
from fedmtl.registry import Amount, Count, Share
from fedmtl.tasks.task import Source

HERE = __name__


@dataclass(frozen=True, kw_only=True)
class Part:
    """A component.

    Somebody. Some paper. 2020.

    More.
    """

    rate: Amount = 0.5
    count: Count = 1
    share: Share = 0.0
    widths: tuple[int, ...] = (1,)
    mode: Literal["fast", "slow"] = "fast"
    names: str | tuple[str, ...] = ""
    label: str | None = None

    def __post_init__(self) -> None:
        if self.count == 13:
            raise ValueError("13 is no count")


def build(**table):
    return registry.build(Part, HERE, f"{HERE}:Part", {key.replace("_", "-"): v for key, v in table.items()}, "parts")


@pytest.mark.parametrize(("name", "kebab"), [
    ("batch_size", "batch-size"), ("BatchSize", "batch-size"), ("MrMtl", "mr-mtl"), ("x2", "x2")])
def test_kebab(name, kebab):
    assert registry.kebab(name) == kebab


def test_the_summary_and_the_paper_are_the_first_two_paragraphs():
    assert registry.summary_of(Part) == ("A component.", "Somebody. Some paper. 2020.")
    assert "Ditto" in registry.summary_of(Ditto)[1]  # from the module, whose docstring cites it


def test_build_and_table_of_are_inverse():
    made = build(rate=1, widths=[3, 4], names=["a", "b"])
    assert made == Part(rate=1.0, widths=(3, 4), names=("a", "b"))
    table = registry.table_of(made)
    assert table == {"rate": 1.0, "count": 1, "share": 0.0, "widths": [3, 4], "mode": "fast", "names": ["a", "b"]}
    assert build(**{key.replace("-", "_"): v for key, v in table.items()}) == made


@pytest.mark.parametrize(("table", "key", "said"), [
    ({"rate": "1"}, "parts.rate", "valid number"), ({"rate": -1}, "parts.rate", "greater than or equal to 0"),
    ({"rate": float("nan")}, "parts.rate", "finite"), ({"rate": float("inf")}, "parts.rate", "finite"),
    ({"rate": True}, "parts.rate", "valid number"), ({"count": 1.0}, "parts.count", "valid integer"),
    ({"count": True}, "parts.count", "valid integer"), ({"share": 2}, "parts.share", "less than or equal to 1"),
    ({"widths": 3}, "parts.widths", "a list"), ({"widths": [1, "2"]}, "parts.widths.1", "valid integer"),
    ({"mode": "fats"}, "parts.mode", "did you mean 'fast'"), ({"mode": 1}, "parts.mode", "'fast' or 'slow'"),
    ({"names": 3}, "parts.names", "valid string or Input should be a list"), ({"rat": 1}, "parts.rat", "did you mean 'rate'"),
    ({"count": 13}, "parts", "13 is no count")])
def test_a_bad_field_is_told_by_its_key(table, key, said):
    with pytest.raises(ScenarioError) as caught:
        build(**table)
    assert caught.value.key == key
    assert said in str(caught.value)


def test_everything_in_a_folder_is_found_but_bases_and_private_classes():
    found = registry.discover("fedmtl.algorithms", Algorithm)
    assert found["ditto"] is Ditto
    assert "algorithm" not in found
    assert list(found) == sorted(found)
    assert not [name for name in registry.discover("fedmtl.tasks.sources", Source) if name.startswith("_") or name == "source"]


def test_a_users_own_module_beside_the_scenario_comes_before_the_working_directory(tmp_path, monkeypatch):
    for place in ("beside", "cwd"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "whose_module.py").write_text(f"place = {place!r}\n")
    monkeypatch.chdir(tmp_path / "cwd")
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert registry.load_object("whose_module:place", "key", tmp_path / "beside") == "beside"
    with pytest.raises(ScenarioError, match="is hidden by another module 'whose_module'"):
        registry.load_object("whose_module:place", "key")  # never silently the other file


def test_a_users_module_never_hides_behind_pythons_own(tmp_path, monkeypatch):
    (tmp_path / "json.py").write_text("x = 1\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(ScenarioError, match="give it another name"):
        registry.load_object("json:x", "key")


def test_a_component_must_be_a_dataclass(tmp_path, monkeypatch):
    text = "from fedmtl.tasks.task import Source\nclass Mine(Source):\n    def load(self, clients, seed): ...\n"
    (tmp_path / "undecorated.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(ScenarioError, match="'undecorated:Mine' is not a dataclass"):
        registry.find(Source, "fedmtl.tasks.sources", "undecorated:Mine", "tasks.source")


def test_importing_fedmtl_needs_neither_torch_nor_flwr_nor_ray():
    said = "import sys, fedmtl; print(sorted({'torch', 'flwr', 'ray'} & set(sys.modules)), fedmtl.__version__)"
    done = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("[] ")
