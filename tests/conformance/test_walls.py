"""The walls of the design: who may import what, read off the source, and seen where libraries are absent."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import fedmtl

ROOT = Path(fedmtl.__file__).parent
PURE = ("algorithms", "mtl", "models", "tasks", "trees", "keys")

BLOCKER = """
import importlib, importlib.abc, pkgutil, sys
class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
def everything(package):
    root = importlib.import_module(package)
    for found in pkgutil.walk_packages(getattr(root, "__path__", []), package + "."):
        importlib.import_module(found.name)
"""


def files(part: str) -> list[Path]:
    """The source files of a module or package of fedmtl."""
    place = ROOT / part
    return sorted(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]


@cache
def imports(path: Path) -> list[tuple[str, int, bool]]:
    """(module, line, whether when the file is imported) of every import statement; `import_module("name")` counts."""
    return list(_imports(path))


def _imports(path: Path) -> Iterator[tuple[str, int, bool]]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inner = {id(n) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef | ast.AsyncFunctionDef) for n in ast.walk(f)}
    inner |= {id(n) for f in ast.walk(tree) if isinstance(f, ast.If) and "TYPE_CHECKING" in ast.dump(f.test) for n in ast.walk(f)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found = [node.module or ""]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            found = [str(arg.value) for arg in node.args if isinstance(arg, ast.Constant)]
        else:
            continue
        for name in found:
            yield name, node.lineno, id(node) not in inner


def offences(paths: list[Path], forbidden: set[str]) -> list[str]:
    return [f"{path.relative_to(ROOT)}:{line} imports {name}" for path in paths for name, line, _ in imports(path)
            if name.partition(".")[0] in forbidden or any(name == f or name.startswith(f + ".") for f in forbidden)]


def run_without(blocked: set[str], code: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    script = BLOCKER.format(blocked=blocked) + code
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=200, check=False, cwd=cwd,
                          env={"PYTHONPATH": str(ROOT.parent), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1",
                               "HOME": str(cwd), "MPLBACKEND": "agg"})


def test_the_reader_of_imports_sees_them(tmp_path: Path) -> None:
    path = tmp_path / "planted.py"
    path.write_text("import os\nif TYPE_CHECKING:\n    from flwr.app import Message\ndef f():\n    import ray.util\n"
                    "    importlib.import_module('torch')\n")
    assert imports(path) == [("os", 1, True), ("flwr.app", 3, False), ("ray.util", 5, False), ("torch", 6, False)]


@pytest.mark.parametrize("part", PURE)
def test_learning_code_knows_neither_flower_nor_ray(part: str) -> None:
    assert files(part)
    assert offences(files(part), {"flwr", "ray", "fedmtl.server", "fedmtl.client", "fedmtl.runtime", "fedmtl.run"}) == []


def test_only_the_ray_runtime_imports_ray() -> None:
    others = [path for path in ROOT.rglob("*.py") if not (path.parent.name == "runtime" and path.name.startswith("ray"))]
    assert len(others) > 40
    assert offences(others, {"ray"}) == []


def test_the_ray_runtime_is_imported_only_when_needed() -> None:
    early = [f"{path.relative_to(ROOT)}:{line} {name}" for path in ROOT.rglob("*.py") if not path.name.startswith("ray")
             for name, line, at_once in imports(path) if at_once and name.startswith("fedmtl.runtime.ray")]
    assert early == []


def test_report_knows_no_learning_code() -> None:
    parts = ("algorithms", "models", "mtl", "trees", "server", "client", "runtime", "optimizers")
    learning = {f"fedmtl.{part}" for part in parts}
    assert offences(files("report"), {"torch", "flwr", "ray", *learning}) == []


def test_flower_s_private_names_live_in_one_file() -> None:
    users = {str(path.relative_to(ROOT)) for path in ROOT.rglob("*.py") for name, _, _ in imports(path)
             if name.startswith("flwr.supercore") and not name.startswith("flwr.supercore.run")}
    assert users <= {"server/messages.py"}


def test_learning_code_imports_without_flower_and_ray(tmp_path: Path) -> None:
    names = [f"fedmtl.{part}" for part in (*PURE, "optimizers", "scenario", "registry", "errors")]
    code = f"for name in {names!r}:\n    everything(name)\nfrom fedmtl.algorithms.ditto import Ditto\nprint(Ditto())"
    done = run_without({"flwr", "ray"}, code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "Ditto(lam=1.0)"


def test_report_imports_without_learning_libraries(tmp_path: Path) -> None:
    learning = {"torch", "fedmtl.algorithms", "fedmtl.models", "fedmtl.tasks", "matplotlib.pyplot"}
    code = f"everything('fedmtl.report')\nprint(sorted({learning!r} & set(sys.modules)))"
    done = run_without({"torch", "flwr", "ray"}, code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_fedmtl_itself_is_light(tmp_path: Path) -> None:
    done = run_without({"torch", "flwr", "ray", "numpy", "pandas"}, "import fedmtl; print(fedmtl.__version__)", tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_core_runs_without_ray(tmp_path: Path) -> None:
    code = """
import fedmtl
result = fedmtl.run("quickstart", ["rounds=1", "runtime.kind=inline", "tasks.clients=4"], out="out")
print(result.summary["rounds"])
"""
    done = run_without({"ray"}, code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == "1"
