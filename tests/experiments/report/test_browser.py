"""The page in a real browser, on a desk, on a phone and on paper."""

import json
import re
import shutil
import subprocess

import pytest

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="there is no Chromium here")

# Writes into the page what only a browser knows, for --dump-dom to print.
PROBE = """
<script>
addEventListener("load", () => {
  const pictures = [...document.images];
  const found = {
    pictures: pictures.map(p => [p.complete, p.naturalWidth, p.getBoundingClientRect().width]),
    width: innerWidth,
    needed: document.documentElement.scrollWidth,
    loaded: performance.getEntriesByType("resource").map(e => e.name).filter(
      name => !name.startsWith("data:")),
    bold: getComputedStyle(document.querySelector("td b")).fontWeight,
    underlined: getComputedStyle(document.querySelector("td u")).textDecorationLine,
    text: document.body.innerText.length,
  };
  const note = document.createElement("pre");
  note.id = "found";
  note.textContent = JSON.stringify(found);
  document.body.append(note);
});
</script>
</body>
"""


def browse(tmp_path, *options):
    """Run the browser once, with a profile of its own and no network."""
    command = [
        *(BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
        *(f"--user-data-dir={tmp_path / 'profile'}", "--host-resolver-rules=MAP * ~NOTFOUND"),
        *("--virtual-time-budget=10000", "--hide-scrollbars", *options),
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


@pytest.fixture
def address(page, tmp_path):
    """Write the page, with the probe in it, to a file."""
    path = tmp_path / "report.html"
    path.write_text(page.replace("</body>", PROBE))
    return path.as_uri()


@needs_browser
@pytest.mark.parametrize("width", [500, 1280])
def test_page_shows_everything_and_fits_the_screen(address, tmp_path, width):
    shown = browse(tmp_path, f"--window-size={width},900", "--dump-dom", address)
    found = json.loads(re.search(r'<pre id="found">(.*?)</pre>', shown)[1])
    assert found["width"] == width
    assert found["needed"] <= width
    assert found["loaded"] == []
    assert len(found["pictures"]) == 2
    for complete, natural, drawn in found["pictures"]:
        assert complete
        assert natural > 0
        assert 0 < drawn <= width
    assert int(found["bold"]) >= 600
    assert found["underlined"] == "underline"
    assert found["text"] > 500


@needs_browser
def test_page_can_be_printed(address, tmp_path):
    paper = tmp_path / "report.pdf"
    browse(tmp_path, f"--print-to-pdf={paper}", address)
    content = paper.read_bytes()
    assert content.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", content)) >= 1
