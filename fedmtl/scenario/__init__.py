"""A scenario: everything a run depends on, as typed models; read from TOML, changed by key=value words, written resolved."""

from fedmtl.scenario.data import Group
from fedmtl.scenario.load import Overrides, from_table, from_toml, load_scenario, override, parse_override, shipped
from fedmtl.scenario.model import Scenario
from fedmtl.scenario.sections import AlgorithmSection

__all__ = ["AlgorithmSection", "Group", "Overrides", "Scenario", "from_table", "from_toml", "load_scenario", "override",
           "parse_override", "shipped"]
