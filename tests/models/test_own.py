"""A torch module as it is, as trunk or head: its arguments are keys, its defaults hold, and its run can be repeated anywhere."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from dataclasses import fields

import pytest
import torch
from torch import nn

from fedmtl import run
from fedmtl.errors import ScenarioError
from fedmtl.models.base import Head, Trunk
from fedmtl.scenario import load_scenario

MODULES = '''
from math import prod
import torch
from torch import nn

class Deep(nn.Module):
    """Two layers with a skip: nothing that has a stacked form."""

    def __init__(self, in_shape, width: int = 6, slope: float = 0.1, act=nn.Tanh, sizes: list[int] = [2], *,
                 name: str | None = None):
        super().__init__()
        self.first, self.second = nn.Linear(prod(in_shape), width), nn.Linear(width, width)
        self.slope, self.act = slope, act()

    def forward(self, x):
        h = self.act(self.first(x.flatten(1)))
        return h + self.slope * self.second(h)

class Scaled(nn.Module):
    def __init__(self, features: int, outputs: int, scale: float = 1.0):
        super().__init__()
        self.linear, self.scale = nn.Linear(features, outputs), scale

    def forward(self, x):
        return self.scale * self.linear(x)

class NeedsWidth(Deep):
    def __init__(self, in_shape, width: int):
        super().__init__(in_shape, width)

class Shapeless(nn.Module):
    def __init__(self):
        super().__init__()

class Refuses(nn.Module):
    def __init__(self, in_shape, depth: int = 3):
        raise ValueError("depth must be even")

class Lone(nn.Module):
    def __init__(self, features):
        super().__init__()

def not_a_class():
    pass
'''
TOML = '''
name = "own"
rounds = 3
[tasks]
source = "digits"
clients = 5
[model]
trunk = "{module}:Deep"
head = "{module}:Scaled"
scale = 2.0
[algorithm]
name = "fedper"
[runtime]
kind = "inline"
'''


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A user's folder; the module's name is of this file alone."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "own_nets.py").write_text(MODULES)
    (folder / "own.toml").write_text(TOML.format(module="own_nets"))
    return folder / "own.toml"


def test_its_arguments_are_keys_with_their_defaults(own):
    scenario = load_scenario(own)
    assert isinstance(scenario.trunk, Trunk)
    assert isinstance(scenario.head, Head)
    assert {f.name for f in fields(scenario.trunk)} == {"width", "slope", "sizes", "name"}  # a class is nothing a file can say
    assert (scenario.trunk.width, scenario.trunk.slope, scenario.trunk.sizes, scenario.trunk.name) == (6, 0.1, [2], None)
    assert scenario.head.scale == 2.0
    changed = load_scenario(own, {"model.width": 9, "model.slope": 0, "model.sizes": [3, 4]})
    assert (changed.trunk.width, changed.trunk.slope, changed.trunk.sizes) == (9, 0, [3, 4])
    assert isinstance(changed.trunk.build((64,)).act, nn.Tanh)
    assert changed.trunk.build((64,))(torch.zeros(2, 64)).shape == (2, 9)
    assert changed.head.build(9, 4)(torch.zeros(2, 9)).shape == (2, 4)


def test_a_list_that_is_a_default_is_not_shared(own):
    one, other = load_scenario(own).trunk, load_scenario(own).trunk
    one.sizes.append(5)
    assert other.sizes == [2]
    assert load_scenario(own).trunk.sizes == [2]


def test_the_resolved_scenario_holds_every_default(own):
    table = tomllib.loads(load_scenario(own).to_toml())
    wanted = {"trunk": "own_nets:Deep", "head": "own_nets:Scaled", "width": 6, "slope": 0.1, "sizes": [2], "scale": 2.0}
    assert {name: value for name, value in table["model"].items() if name in wanted} == wanted
    assert "act" not in table["model"]


@pytest.mark.parametrize(("words", "said"), [
    ({"model.widht": 3}, r"model.widht: neither trunk 'own_nets:Deep' nor head 'own_nets:Scaled' has such a key\n"
                         r"  did you mean 'width'\?"),
    ({"model.scal": 3}, r"model.scal: [\s\S]*did you mean 'scale'\?"),
    ({"model.width": "wide"}, r"model.width: .*integer.*\(got \"wide\"\)"),
    ({"model.width": 2.5}, r"model.width: .*integer"),
    ({"model.trunk": "own_nets:Dep"}, r"model.trunk: module 'own_nets' has no 'Dep'\n  did you mean 'Deep'\?"),
    ({"model.trunk": "own_nest:Deep"}, r"model.trunk: no module 'own_nest'[\s\S]*did you mean 'own_nets'\?"),
    ({"model.trunk": "own_nets:NeedsWidth"}, r"model.width: .*required"),
    ({"model.trunk": "own_nets:Shapeless"}, r"model.trunk: 'Shapeless' must take the input shape as its first argument"),
    ({"model.head": "own_nets:Lone"}, r"model.head: 'Lone' must take the numbers of features and of outputs as its first arg"),
    ({"model.trunk": "own_nets:not_a_class"}, r"model.trunk: 'own_nets:not_a_class' is not a subclass of fedmtl.models.base.T")])
def test_what_it_cannot_be(words, said, own):
    with pytest.raises(ScenarioError, match=said):
        load_scenario(own, words)


def test_what_its_constructor_raises_is_one_message(own, tmp_path):
    with pytest.raises(ScenarioError, match=r"model.trunk: 'Refuses' cannot be made: ValueError: depth must be even"):
        run(own, {"model.trunk": "own_nets:Refuses"}, out=tmp_path / "run")
    assert not (tmp_path / "run" / "scenario.toml").exists()


def test_a_run_can_be_repeated_from_its_directory_alone(own, tmp_path):
    """In another process, from another directory, with the user's folder gone."""
    (tmp_path / "user").mkdir()
    (tmp_path / "user" / "vanishing_nets.py").write_text(MODULES)
    (tmp_path / "user" / "own.toml").write_text(TOML.format(module="vanishing_nets"))
    first = run(tmp_path / "user" / "own.toml", out=tmp_path / "first", report=False)
    (tmp_path / "user").rename(tmp_path / "gone")
    (tmp_path / "elsewhere").mkdir()
    assert (tmp_path / "first" / "vanishing_nets.py").read_text() == MODULES
    code = "import fedmtl, sys; print(fedmtl.run(sys.argv[1], out=sys.argv[2], report=False).summary['checksum'])"
    told = subprocess.run([sys.executable, "-c", code, tmp_path / "first" / "scenario.toml", tmp_path / "second"],
                          cwd=tmp_path / "elsewhere", capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    assert told.stdout.strip() == first.summary["checksum"]
    assert (tmp_path / "second" / "metrics.jsonl").read_bytes() == (first.path / "metrics.jsonl").read_bytes()
    assert (tmp_path / "second" / "scenario.toml").read_text() == (first.path / "scenario.toml").read_text()
    assert (tmp_path / "second" / "vanishing_nets.py").read_text() == MODULES
