"""Objectives: one file a family."""

from fedmtl.tasks.objectives.base import Direction, Numbers, Objective

__all__ = ["Direction", "Numbers", "Objective"]
