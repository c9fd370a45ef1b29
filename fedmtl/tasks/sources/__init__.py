"""Where samples come from: one file a source."""

from fedmtl.tasks.sources.check import check_samples
from fedmtl.tasks.sources.function import function_source

__all__ = ["check_samples", "function_source"]
