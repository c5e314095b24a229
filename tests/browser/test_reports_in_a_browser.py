"""Reports in a real browser, at the widths of a desktop and of a phone: complete, readable, and without a network.

The browser is Debian's Chromium with its driver (packages chromium and chromium-driver). Where it is not installed the
tests are skipped, unless OTKIT_BROWSER is "required", as in .ci/run.
"""

import json
import os
import re
import shutil

import numpy as np
import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from otkit_vae import cli
from otkit_vae.evaluation import fit_classifier
from otkit_vae.report import COMPARED, SECTIONS, write_report

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
WIDTHS = {"desktop": 1440, "phone": 360}

pytestmark = [
    # The engine and its dependencies warn of their own deprecations in a first import.
    pytest.mark.filterwarnings("default"),
    pytest.mark.skipif(
        os.environ.get("OTKIT_BROWSER") != "required" and (CHROMIUM is None or DRIVER is None),
        reason="no chromium or no chromedriver (apt-get install chromium chromium-driver)",
    ),
]

LOOK = """
const problems = [], wide = innerWidth;
const said = node => node.textContent.trim().slice(0, 60);
if (document.documentElement.scrollWidth > wide)
  problems.push(`overflow: the page is ${document.documentElement.scrollWidth} wide, the window ${wide}`);
for (const image of document.images) {
  const box = image.getBoundingClientRect();
  if (!image.complete || image.naturalWidth === 0 || box.width < 8 || box.height < 4)
    problems.push(`image: ${image.src.slice(0, 60)} is missing, or too small to see`);
  if (!image.hasAttribute("alt")) problems.push("alt: an image has no alternative text");
}
for (const svg of document.querySelectorAll("svg")) {
  const box = svg.getBoundingClientRect();
  if (box.width < 8 || box.height < 4) problems.push("image: a figure is missing, or too small to see");
}
for (const figure of document.querySelectorAll("[role=img]"))
  if (!(figure.getAttribute("aria-label") || "").trim()) problems.push("alt: a figure has no alternative text");
for (const id of arguments[0]) {
  const section = document.getElementById(id);
  if (!section) problems.push(`section: ${id} is missing`);
  else if (section.querySelectorAll("p, figure, table, dl, pre").length === 0 || section.offsetHeight < 60)
    problems.push(`section: ${id} is empty`);
}
const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (texts.nextNode()) {
  const text = texts.currentNode, range = document.createRange();
  if (!text.textContent.trim() || text.parentElement.closest("style, script")) continue;
  range.selectNodeContents(text);
  const box = range.getBoundingClientRect();
  if (box.width === 0) problems.push(`cut off: "${said(text)}" is not shown`);
  // What is in a box that scrolls can be reached; the box itself has to be within the window.
  let left = 0, right = wide, top = -Infinity, bottom = Infinity;
  for (let part = text.parentElement; part; part = part.parentElement) {
    const style = getComputedStyle(part), around = part.getBoundingClientRect();
    if (part.clientWidth && /auto|scroll/.test(style.overflowX)) {
      if (around.left < -1 || around.right > wide + 1) problems.push(`cut off: a box of "${said(part)}"`);
      left = -Infinity; right = Infinity;
      break;
    }
    if (part.localName === "svg" || /hidden|clip/.test(style.overflowX)) {
      left = Math.max(left, around.left); right = Math.min(right, around.right);
      top = Math.max(top, around.top); bottom = Math.min(bottom, around.bottom);
    }
  }
  if (box.left < left - 1.5 || box.right > right + 1.5 || box.top < top - 1.5 || box.bottom > bottom + 1.5)
    problems.push(`cut off: "${said(text)}"`);
  if (parseFloat(getComputedStyle(text.parentElement).fontSize) < 6) problems.push(`small: "${said(text)}"`);
}
return problems;
"""


class Browser:
    """A headless Chromium that says what is wrong with a page."""

    def __init__(self, profile):
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        for option in (
            "headless", "no-sandbox", "disable-gpu", "disable-background-networking", "disable-component-update",
            "disable-sync", "no-first-run", "disable-dev-shm-usage", f"user-data-dir={profile}",
        ):  # fmt: skip
            options.add_argument(f"--{option}")
        options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
        # Both programs are named, so that nothing looks for others to download.
        self.driver = webdriver.Chrome(options=options, service=Service(DRIVER))
        self.driver.set_page_load_timeout(600)

    def problems(self, file, width, sections):
        """All that is wrong with a file at a width in pixels, in words."""
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600},
        )
        self.driver.get("about:blank")
        for log in ("performance", "browser"):
            self.driver.get_log(log)
        self.driver.get(file.as_uri())
        found = self.driver.execute_script(LOOK, list(sections))
        for entry in self.driver.get_log("performance"):
            event = json.loads(entry["message"])["message"]
            if event["method"] == "Network.requestWillBeSent":
                url = event["params"]["request"]["url"]
                if url != file.as_uri() and not url.startswith("data:"):
                    found.append(f"fetched: {url}")
        return found + [f"console: {entry['message']}" for entry in self.driver.get_log("browser")]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.driver.quit()


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    """A comparison as a user makes it, on small images with labels; its runs have been evaluated."""
    folder = tmp_path_factory.mktemp("comparison")
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 3
    images = rng.random((120, 8, 8)) * 0.3 + 0.7 * np.eye(8)[labels][:, None]
    np.savez(folder / "stripes.npz", x=images, y=labels)
    with pytest.MonkeyPatch.context() as patch:
        # What nothing here looks at: the three pictures, and a training's own report, which its evaluation replaces.
        for name in ("pictures.reconstructions", "pictures.samples", "pictures.latent_map", "training.write_report"):
            patch.setattr(f"otkit_vae.{name}", lambda *_, **__: None)
        patch.setattr("otkit_vae.evaluation._augmentation.STEPS", 10)
        patch.setattr(
            "otkit_vae.evaluation._classifier.fit_classifier",
            lambda x, labels, seed: fit_classifier(x, labels, steps=30, seed=seed),
        )
        arguments = (
            "compare", "--penalties", "kl,aggregated_gaussian_w2", "--seeds", "2", "--epochs", "3",
            "--data", str(folder / "stripes.npz"), "--batch_size", "32", "--widths", "[32]", "--progress", "false",
            "--out", str(folder / "out"),
        )  # fmt: skip
        assert cli.main(arguments) == 0
    return folder / "out"


@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
@pytest.mark.parametrize("page", ["run", "comparison"])
def test_a_report_is_complete_and_readable(browser, comparison, page, width):
    folder, sections = (comparison / "kl-0", SECTIONS) if page == "run" else (comparison, COMPARED)
    assert browser.problems(folder / "report.html", width, sections) == []


@pytest.mark.parametrize(
    "options",
    [
        {"shape": (40,), "labels": None, "posterior": "deterministic", "epochs": 1, "low": -3.0, "high": 2.0,
         "likelihood": "gaussian"},
        {"shape": (3, 12, 40), "labels": 15, "latent_dim": 30, "prior": "mixture", "posterior": "full"},
        {"shape": (31, 6), "latent_dim": 1, "labels": 30, "n": 8},
    ],
    ids=["curves", "colour", "one-dimension"],
)  # fmt: skip
def test_reports_of_other_data_and_models(browser, untrained, options):
    file = write_report(untrained(**options))
    for width in WIDTHS.values():
        assert browser.problems(file, width, SECTIONS) == []


LONG = "a long line that does not break " * 9


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        ('<img alt="" width="40" height="40" src="data:image/png;base64,AAAA">', "image: data:image/png"),
        ('<img alt="" width="40" height="40" src="away.png">', "image: file:"),
        ('<div role="img"></div>', "alt: a figure"),
        (f'<table><tr><td style="white-space: nowrap">{LONG}</td></tr></table>', "overflow: the page is"),
        (f'<p style="overflow: hidden; white-space: nowrap; width: 9rem">{LONG}</p>', 'cut off: "a long line'),
        ('<svg width="90" height="20"><text x="60" y="15">beyond the edge</text></svg>', 'cut off: "beyond the edge'),
        ('<p style="font-size: 4px">for ants</p>', 'small: "for ants'),
        ('<link rel="stylesheet" href="http://127.0.0.1:9/style.css">', "console: "),
        ("<script>alert(1)</script>", "console: "),
    ],
)  # fmt: skip
def test_a_fault_is_found(browser, comparison, tmp_path, fault, found):
    text = (comparison / "kl-0" / "report.html").read_text()
    (tmp_path / "faulty.html").write_text(text.replace("</main>", f"{fault}</main>"))
    problems = browser.problems(tmp_path / "faulty.html", WIDTHS["phone"], SECTIONS)
    assert any(problem.startswith(found) for problem in problems), problems


def test_what_is_fetched_is_found_where_the_page_allows_it(browser, comparison, tmp_path):
    text = (comparison / "kl-0" / "report.html").read_text()
    text = re.sub(r'<meta http-equiv="Content-Security-Policy".*?>', "", text)
    (tmp_path / "faulty.html").write_text(text.replace("</main>", '<img alt="" src="http://127.0.0.1:9/a.png"></main>'))
    assert "fetched: http://127.0.0.1:9/a.png" in browser.problems(tmp_path / "faulty.html", 1440, SECTIONS)


def test_a_section_that_is_missing_is_found(browser, comparison, tmp_path):
    text = (comparison / "report.html").read_text()
    (tmp_path / "faulty.html").write_text(text.replace('id="table"', 'id="chair"'))
    assert "section: table is missing" in browser.problems(tmp_path / "faulty.html", 1440, COMPARED)
