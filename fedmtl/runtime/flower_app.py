"""A Flower app on disk: what its pyproject.toml says."""

from __future__ import annotations

import re
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

from fedmtl.errors import ScenarioError
from fedmtl.registry import load_object

KINDS: dict[str, type[Any]] = {"serverapp": ServerApp, "clientapp": ClientApp}


@dataclass(frozen=True)
class FlowerApp:
    """A loaded app. run_config: [tool.flwr.app.config], flattened with dots as Flower does."""

    server_app: ServerApp
    client_app: ClientApp
    run_config: dict[str, Any]
    nodes: int | None
    """What the file's default federation says, where it says anything."""


def _flat(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, value in table.items():
        out |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return out


def load_app(folder: Path, overrides: str = "") -> FlowerApp:
    """The app in `folder`. overrides: TOML pairs as for `flwr run --run-config`, for example "num-server-rounds=3 lr=0.1".

    Raises ScenarioError where the file, an entry, or an overridden key is missing.
    """
    file = folder / "pyproject.toml"
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ScenarioError(str(file), f"cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ScenarioError(str(file), f"not a TOML document: {error}") from error
    flwr = table.get("tool", {}).get("flwr", {})
    app = flwr.get("app", {})
    components = app.get("components", {})
    for name in KINDS:
        if ":" not in str(components.get(name, "")):
            raise ScenarioError(f"tool.flwr.app.components.{name}", f"{file} must name it as module:object")
    sys.path.insert(0, str(folder.resolve()))
    loaded = {name: load_object(components[name], f"tool.flwr.app.components.{name}", folder) for name in KINDS}
    for name, kind in KINDS.items():
        if not isinstance(loaded[name], kind):
            raise ScenarioError(f"tool.flwr.app.components.{name}", f"'{components[name]}' is not a {kind.__name__}")
    config = _flat(app.get("config", {}))
    changed = _parse(overrides)
    for key in changed:
        if key not in config:
            raise ScenarioError(key, "the app's [tool.flwr.app.config] has no such key", allowed=config, got=key)
    federations = flwr.get("federations", {})
    options = federations.get(federations.get("default", ""), {}).get("options", {})
    return FlowerApp(loaded["serverapp"], loaded["clientapp"], {**config, **changed}, options.get("num-supernodes"))


def _parse(words: str) -> dict[str, Any]:
    text = "\n".join(re.findall(r"""(?:[^\s"']|"[^"]*"|'[^']*'|["'])+""", words))  # split at spaces outside quotes
    try:
        return _flat(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ScenarioError("--run-config", f"'{words}' is not key=value pairs in TOML: {error}") from error
