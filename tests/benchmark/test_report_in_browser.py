"""The report's page in a real browser: it loads nothing, logs nothing, and shows its plots on a desktop and a phone."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from made_reports import made_entry, made_report, timed

from tfopt.benchmark.report import OperatorTime

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium is installed: apt-get install chromium")

POLICY = """<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'">"""
# What is refused by the policy would have been a request.
PROBE = """<script>
const found = { refused: [], errors: [] };
addEventListener("securitypolicyviolation", event => found.refused.push(event.blockedURI));
addEventListener("error", event => found.errors.push(String(event.message)));
addEventListener("load", () => {
  found.loaded = performance.getEntriesByType("resource").map(entry => entry.name);
  found.width = innerWidth;
  found.wide = document.documentElement.scrollWidth;
  found.background = getComputedStyle(document.body).backgroundColor;
  found.plots = [...document.querySelectorAll("figure svg")].map(svg => {
    const box = svg.getBoundingClientRect(), text = svg.querySelector("text");
    return { left: box.left, right: box.right, height: box.height, ink: getComputedStyle(text).fill };
  });
  document.documentElement.dataset.found = JSON.stringify(found);
});
</script>"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with every section and plot, and the probe in its head."""
    operators = tuple(OperatorTime(name=f"layer {i}", kind=f"KIND_{i}", time_ms=0.1 * i + 0.1) for i in range(9))
    report = made_report(
        made_entry("float32", 360_000, timed(1.0), timed(0.7, threads=2), score=0.98, operators=operators),
        made_entry("int8 post-training", 100_000, timed(0.5), timed(0.4, threads=2), score=0.97, operators=operators),
        made_entry("truncated", 10, error="Cannot run truncated.tflite: " + "it is broken " * 20),
        price_per_hour=0.5,
        samples=1000,
    )
    path = report.save(tmp_path_factory.mktemp("page"), earlier=report)
    path.write_text(path.read_text().replace("<head>", f"<head>{POLICY}{PROBE}", 1))
    return path


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_is_whole_at_every_width_in_light_and_dark(
    page: Path, tmp_path: Path, width: int, scheme: str
) -> None:
    assert BROWSER is not None
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
    options += [f"--user-data-dir={tmp_path}", f"--window-size={width},900", "--enable-logging=stderr"]
    options += [f"--blink-settings=preferredColorScheme={int(scheme == 'light')}", "--dump-dom", page.as_uri()]
    done = subprocess.run([BROWSER, *options], capture_output=True, text=True, timeout=120, check=True)
    assert ":CONSOLE" not in done.stderr
    attribute = re.search(r'data-found="([^"]*)"', done.stdout)
    assert attribute is not None
    found = json.loads(html.unescape(attribute[1]))
    assert (found["loaded"], found["refused"], found["errors"]) == ([], [], [])
    assert len(found["plots"]) == 6
    assert found["wide"] <= found["width"], "the page scrolls to the side"
    assert found["background"] == {"light": "rgb(246, 248, 250)", "dark": "rgb(13, 17, 23)"}[scheme]
    for plot in found["plots"]:
        assert 0 <= plot["left"] < plot["right"] <= found["width"]
        assert plot["right"] - plot["left"] >= 250
        assert plot["height"] >= 60
        assert plot["ink"] == {"light": "rgb(31, 35, 40)", "dark": "rgb(230, 237, 243)"}[scheme]
