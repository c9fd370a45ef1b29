"""docs/your-own.md: every snippet, in its order, as somebody would who follows the page in an empty folder."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "your-own.md"


def snippets() -> list[tuple[str, str]]:
    """(language, text) of every block of the page."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def words_of(line: str) -> list[str]:
    """The words of a command, as the interpreter that runs the tests runs it."""
    program, *words = shlex.split(line, comments=True)
    return [sys.executable, *({"python": [], "fedmtl": ["-m", "fedmtl.cli"]}[program]), *words]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_every_snippet_runs(tmp_path):
    done = []
    for language, text in snippets():
        if language == "bash":
            for line in text.splitlines():
                ran = subprocess.run(words_of(line), cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False)
                assert ran.returncode == 0, f"{line}\n{ran.stdout}\n{ran.stderr}"
                done.append((line, ran.stdout))
        else:
            name = re.match(r"# (\S+\.(?:py|toml))\n", text)
            assert name, text
            (tmp_path / name[1]).write_text(text)
    said = dict(done)
    assert "12 clients" in said["fedmtl show clinics.toml"]
    assert "Delta-m" in said["fedmtl run clinics.toml --baseline local --out runs/clinics"]
    assert (tmp_path / "runs" / "clinics" / "report.html").exists()
    assert (tmp_path / "bench" / "index.html").exists()
    assert sum(line.startswith("fedmtl ") for line in said) >= 8


def test_links_lead_somewhere():
    links = re.findall(r"\]\(([^)#]+)\)", PAGE.read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if not (PAGE.parent / link).exists()] == []
