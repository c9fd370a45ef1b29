"""The page in a real browser: nothing wider than the window, nothing on the console."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from fedmtl.report.html import write_report

MakeRun = Callable[..., Path]

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
    *("--allow-file-access-from-files", "--enable-logging=stderr"),
]
# The page allows no scripts, so another page frames it at each width, opens every fold and measures.
RULER = """<!doctype html><title>ruler</title><link rel="icon" href="data:,">
{frames}<pre id="out"></pre><script>
onload = () => {{
  out.textContent = JSON.stringify([...document.querySelectorAll("iframe")].map(frame => {{
    const page = frame.contentDocument;
    page.querySelectorAll("details").forEach(fold => fold.open = true);
    const root = page.documentElement;
    return {{width: root.clientWidth, scroll: root.scrollWidth, figures: page.querySelectorAll("svg").length}};
  }}));
}};
</script>"""


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here")
@pytest.mark.parametrize("choices", [{}, {"regression": True, "tasks": 3}, {"name": "n" * 300, "clients": 60}])
def test_it_fits_phones_and_desks(make_run: MakeRun, tmp_path: Path, choices: dict[str, object]) -> None:
    assert CHROMIUM is not None
    page = write_report(make_run(**choices))
    frames = "".join(f'<iframe src="{page.as_uri()}" width="{w}" height="800"></iframe>' for w in (390, 1280))
    (tmp_path / "ruler.html").write_text(RULER.format(frames=frames))
    done = subprocess.run(
        [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1700,900",
         "--virtual-time-budget=5000", "--dump-dom", (tmp_path / "ruler.html").as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    measured = re.search(r'<pre id="out">(.*?)</pre>', done.stdout)
    assert measured is not None, done.stderr
    found = json.loads(html.unescape(measured.group(1)))
    assert len(found) == 2
    for frame in found:
        assert frame["scroll"] <= frame["width"]
        assert frame["figures"] >= 7
    assert "CONSOLE" not in done.stderr
