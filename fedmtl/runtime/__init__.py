"""Where clients run. `fedmtl.runtime.run_flower_app` runs any Flower app on fedmtl's Ray workers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedmtl.runtime.ray_apps import run_flower_app

__all__ = ["run_flower_app"]


def __getattr__(name: str) -> Any:
    """run_flower_app, imported when first used: the rest of this package does without Ray."""
    if name == "run_flower_app":
        from fedmtl.runtime.ray_apps import run_flower_app

        return run_flower_app
    raise AttributeError(f"module 'fedmtl.runtime' has no attribute '{name}'")
