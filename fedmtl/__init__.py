"""Federated multi-task learning, simulated: `import fedmtl; fedmtl.run("quickstart").summary`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedmtl.runs.runner import RunResult, run
    from fedmtl.scenario import load_scenario

__all__ = ["RunResult", "load_scenario", "run"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """The public names, imported when first used: `import fedmtl` itself needs neither torch nor flwr nor ray."""
    if name == "load_scenario":
        from fedmtl.scenario import load_scenario

        return load_scenario
    if name in __all__:
        from fedmtl.runs import runner

        return getattr(runner, name)
    raise AttributeError(f"module 'fedmtl' has no attribute '{name}'")
