"""Flower's own simulation engine: the same server and clients as everywhere, on its Ray actors, one node a client."""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from fedmtl.errors import FedmtlError
from fedmtl.runtime.node import handler_of
from fedmtl.runtime.wrapped import PromptGrid
from fedmtl.scenario import Scenario

if TYPE_CHECKING:
    from fedmtl.runs.runner import RunResult


def simulate(scenario: Scenario, main: Callable[[Grid], RunResult], *, verbose: bool) -> RunResult:
    """Runs `main` as a ServerApp in Flower's engine; what it raises is raised here.

    Private state lies in files of a temporary directory: never in Flower's Context, which passes through the driver.
    """
    from fedmtl.runs.runner import one_thread

    ended: list[RunResult] = []
    server = ServerApp()

    @server.main()
    def serve(grid: Grid, context: Context) -> None:
        with one_thread():
            ended.append(main(PromptGrid(grid, 0.02)))

    runtime = scenario.runtime
    level = logging.INFO if verbose else logging.ERROR
    backend: Any = {"client_resources": {"num_cpus": 1, "num_gpus": runtime.gpus_per_worker},
                    "init_args": {"address": "local", "num_cpus": max(runtime.workers, 1), "include_dashboard": False,
                                  "log_to_driver": verbose, "logging_level": level}}
    with tempfile.TemporaryDirectory(prefix="fedmtl-flower-") as private, _quiet(not verbose):
        from flwr.simulation import run_simulation

        nodes = _client_app(scenario.to_toml(), scenario.folder, Path(private))
        run_simulation(server, nodes, _clients_of(scenario), backend_config=backend)
    if not ended:
        raise FedmtlError("Flower's simulation engine ended before the run did; run again with --verbose to see why")
    return ended[0]


def _clients_of(scenario: Scenario) -> int:
    if scenario.tasks.clients:
        return scenario.tasks.clients
    from fedmtl.runtime.data import federation_of

    return federation_of(scenario).clients


def _client_app(text: str, folder: Path | None, private: Path) -> ClientApp:
    """The ClientApp of every node: Flower sends it to its actors with each message, so all it holds is the scenario's text."""
    app = ClientApp()

    def handle(message: Message, context: Context) -> Message:
        return handler_of(text, folder, private, int(context.node_config["partition-id"]), alone=False)(message)

    for register in (app.query(), app.train(), app.evaluate()):
        register(handle)
    return app


@contextmanager
def _quiet(wanted: bool) -> Iterator[None]:
    """Only errors from Flower's and Ray's loggers, no telemetry, and the environment as it was found."""
    before = dict(os.environ)
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    loggers = [logging.getLogger(name) for name in ("flwr", "ray")] if wanted else []
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            if wanted:
                warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        for name in set(os.environ) - set(before):
            del os.environ[name]
        os.environ.update(before)
