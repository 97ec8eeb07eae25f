"""The page in a browser: drawn without an error or a request, controls work, nothing is wider than a phone."""

import html
import json
import re
import shutil
import subprocess

import pytest

from scarce_jax.report.page import page
from tests.report.names import CLASSES, EVIL

pytestmark = pytest.mark.browser

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)

WATCH = """<script>
window.problems = [];
addEventListener("error", (event) => problems.push(String(event.message || event.target.outerHTML)), true);
addEventListener("securitypolicyviolation", (event) => problems.push(`blocked ${event.blockedURI}`));
console.error = (...told) => problems.push(told.join(" "));
</script>"""

CHECK = """<script>
const soon = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));
const overflow = () => document.documentElement.scrollWidth - innerWidth;
addEventListener("load", async () => {
  await soon(300);
  const found = { width: innerWidth, overflow: overflow(), evil: window.evil };
  found.strange = document.querySelectorAll("[data-evil]").length;
  const stage = document.querySelector(".stage"), controls = document.querySelector(".controls");
  const [swipe, opacity] = controls.querySelectorAll("input"), [left, right] = controls.querySelectorAll("select");
  const layers = stage.querySelectorAll(".layer");
  const set = (control, value) => {
    control.value = value;
    control.dispatchEvent(new Event(control.localName === "select" ? "change" : "input"));
  };
  set(swipe, 20); set(opacity, 30);
  found.swiped = [layers[0].style.clipPath, layers[1].style.clipPath, stage.querySelector(".edge").style.left];
  found.opacity = [...layers].map((layer) => layer.style.opacity);
  found.chosen = [left.value, right.value];
  set(left, "image alone");
  found.hidden = [...layers].map((layer) => getComputedStyle(layer).display === "none");
  const place = stage.getBoundingClientRect();
  stage.dispatchEvent(new PointerEvent("pointerdown", { clientX: place.left + 0.75 * place.width, bubbles: true }));
  found.dragged = swipe.value;
  const chart = document.querySelector(".chart");
  const press = (node, key) => node.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
  press(chart.querySelector("svg"), "ArrowRight"); press(chart.querySelector("svg"), "ArrowRight");
  found.chart = chart.querySelector(".legend").textContent;
  found.lines = chart.querySelectorAll("path").length;
  const matrix = document.querySelector(".confusion");
  press(matrix, "ArrowDown"); press(matrix, "ArrowDown");
  found.matrix = document.querySelector(".told").textContent;
  const before = getComputedStyle(document.body).backgroundColor;
  document.getElementById("theme").click();
  found.themes = new Set([before, getComputedStyle(document.body).backgroundColor]).size;
  document.querySelectorAll("details").forEach((node) => { node.open = true; });
  await soon(300);
  found.opened = overflow();
  found.headings = [...document.querySelectorAll("h1, h2, h3, h4")].map((node) => node.localName).join("");
  found.unlabelled = [...document.querySelectorAll("input, select")].filter((node) => !node.labels.length).length;
  found.silent = [...document.images].filter((image) => !image.alt && !image.classList.contains("layer")).length;
  found.broken = [...document.images].filter((image) => image.src && !image.naturalWidth).length;
  const resources = performance.getEntriesByType("resource").map((entry) => entry.name);
  found.fetched = resources.filter((name) => !name.startsWith("data:"));
  found.text = document.body.textContent;
  found.problems = problems;
  parent.postMessage(found, "*");
});
</script>"""

OUTER = """<!DOCTYPE html><pre id="told">[]</pre><script>
const told = [];
addEventListener("message", (event) => {
  told.push(event.data);
  document.getElementById("told").textContent = JSON.stringify(told);
});
for (const width of [360, 1200]) {
  const frame = document.createElement("iframe");
  frame.style = `width: ${width}px; height: 800px; border: 0`;
  frame.srcdoc = SOURCE;
  document.body.append(frame);
}
</script>"""


@pytest.fixture
def seen(content, tmp_path):
    """What the page in frames of 360 and of 1200 pixels says of itself; a window cannot be as narrow as a phone."""
    if CHROMIUM is None:
        pytest.skip("no chromium here")
    source = page(content).replace("<head>", f"<head>{WATCH}", 1).replace("</body>", f"{CHECK}</body>")
    assert WATCH in source and CHECK in source
    file = tmp_path / "outer.html"
    file.write_text(OUTER.replace("SOURCE", json.dumps(source).replace("<", "\\u003c")))
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1300,1700"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=5000", "--dump-dom", file.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    told = re.search(r'<pre id="told">(.*?)</pre>', done.stdout, re.DOTALL)
    assert told, done.stderr
    frames = {frame["width"]: frame for frame in json.loads(html.unescape(told[1]))}
    assert set(frames) == {360, 1200}
    return frames


@pytest.mark.browser
def test_the_page_works_and_shows_the_figures_at_every_width(seen):
    for width, found in seen.items():
        assert found["problems"] == [] and found["fetched"] == [] and found["broken"] == 0, width
        assert found["overflow"] <= 0 and found["opened"] <= 0, width
        # Names with markup are shown as they are.
        assert "evil" not in found and found["strange"] == 0
        assert f"true {EVIL}, predicted background: 40 pixels, 40.0 % of the true ones" == found["matrix"]
        assert found["text"].count(EVIL) > 10
        assert found["swiped"] == ["inset(0px 80% 0px 0px)", "inset(0px 0px 0px 20%)", "20%"]
        assert found["opacity"] == ["0.3", "0.3"]
        assert found["chosen"] == ["coarse mask", f"{EVIL} 0: main"] and found["hidden"] == [True, False]
        assert found["dragged"] == "75"
        assert found["lines"] == 2 and "2.5" in found["chart"] and "at step 40" in found["chart"]
        assert found["themes"] == 2
        assert found["unlabelled"] == found["silent"] == 0
        assert found["headings"].startswith("h1h2") and found["headings"].count("h1") == 1
    text = seen[1200]["text"]
    assert "0.5500 ± 0.0500" in text and "0.6100" in text and "1 fine, 2 tags, 1 unlabelled" in text
    assert f"{EVIL} 1: background (main)" in text and f"{EVIL} 1: confidence (trusted)" in text
    assert f"{EVIL} 1: trusted: 82% of the pixels" in text
    assert "miou strong" in text and "table 1, the paper's figures" in text
    assert all(name in text for name in CLASSES) and "never seen--" in text
    assert "1 min 15 s" in text and "3 min 20 s" in text
