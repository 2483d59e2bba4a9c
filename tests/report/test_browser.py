"""The page in a browser: pointing, clicking, copying, and nothing asked of the network."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pliant.accelerator.chip import load_chip
from pliant.accelerator.network_mapping import map_workload
from pliant.report.mapping_page import write_mapping_report
from pliant.report.ranking_page import write_ranking_page
from pliant.report.run_page import write_report
from pliant.report.summary import Summary
from pliant.workload import Layer, Workload

pytestmark = pytest.mark.browser

_ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)
# The page's coordinates of a mark: the middle of one network's mark in one series of the front.
_MARK = """
const place = document.getElementById("chart-front");
const trace = place.data.findIndex((one) => one.name === arguments[0]);
const drawn = place.calcdata.findIndex((one) => one[0].trace.index === trace);
const mark = place.querySelectorAll(".scatterlayer .trace")[drawn]
  .querySelectorAll(".points path")[arguments[1]];
mark.scrollIntoView({block: "center", behavior: "instant"});
const box = mark.getBoundingClientRect();
return [box.x + box.width / 2, box.y + box.height / 2];
"""
_SHOWN = """
const articles = document.querySelectorAll(".panel > article:not([hidden])");
return [...articles].map((one) => one.innerText);
"""

_OUTSIDE = """
return [...document.querySelectorAll("section *, .tile *")]
  .filter((one) => !one.closest(".chart, thead, svg, pre"))
  .filter((one) => one.getBoundingClientRect().right > window.innerWidth)
  .map((one) => one.outerHTML.slice(0, 200));
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    webdriver = pytest.importorskip(
        "selenium.webdriver", reason="the browser tests need selenium (pip install -e .[dev])"
    )
    from selenium.webdriver.chrome.service import Service

    browser = (
        shutil.which("chromium")
        or shutil.which("chromium-browser")
        or shutil.which("google-chrome")
    )
    drives = shutil.which("chromedriver")
    if browser is None or drives is None:
        pytest.skip("the browser tests need Chromium and chromedriver on the PATH")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for argument in (*_ARGUMENTS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = webdriver.Chrome(options=options, service=Service(drives))
    yield started
    started.quit()


def _open(driver: Any, page: Path, width: int = 1280, *, scheme: str = "light") -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    driver.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {"features": [{"name": "prefers-color-scheme", "value": scheme}]},
    )
    driver.get(page.as_uri())
    _eventually(driver, "return document.documentElement.dataset.drawn === ''")
    # One frame later the marks of the charts are laid out.
    driver.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")


@pytest.fixture
def page(tmp_path: Path, summary: Summary) -> Path:
    write_report(summary, tmp_path / "report.html")
    return tmp_path / "report.html"


def _point_at(driver: Any, series: str, number: int) -> Any:
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.actions.action_builder import ActionBuilder

    x, y = driver.execute_script(_MARK, series, number)
    builder = ActionBuilder(driver)
    builder.pointer_action.move_to_location(round(x) + 2, round(y))
    builder.pointer_action.move_to_location(round(x), round(y))
    builder.perform()
    return ActionChains(driver)


def _eventually(driver: Any, script: str) -> Any:
    from selenium.webdriver.support.wait import WebDriverWait

    return WebDriverWait(driver, 10).until(lambda one: one.execute_script(script))


def test_pointing_and_clicking_at_the_front(driver: Any, page: Path, summary: Summary) -> None:
    _open(driver, page)
    for number in (0, len(summary.front) - 1):
        network = summary.front[number]
        click = _point_at(driver, "front of the search, measured", number)
        says = _eventually(
            driver,
            """return document.querySelector("#chart-front .hoverlayer .hovertext")?.textContent""",
        )
        assert network.architecture in says
        assert f"{network.validated.top1:.2%}".replace("%", "\N{NO-BREAK SPACE}%") in says
        click.click().perform()
        (shown,) = driver.execute_script(_SHOWN)
        assert network.command in re.sub(r"\s+", " ", shown)
        picked = driver.execute_script("return document.querySelector('tr.picked').innerText")
        assert network.architecture in re.sub(r"\s", "", picked)


def test_the_table_works_by_keyboard(driver: Any, page: Path, summary: Summary) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    _open(driver, page)
    network = summary.front[1]
    button = driver.find_element(
        By.CSS_SELECTOR, f'button[aria-label="Show {network.architecture}"]'
    )
    button.send_keys(Keys.ENTER)
    assert button.get_attribute("aria-pressed") == "true"
    (shown,) = driver.execute_script(_SHOWN)
    assert network.architecture in shown.replace("\n", "")
    driver.execute_script(
        "navigator.clipboard.writeText = async (text) => { window.copied = text; }"
    )
    driver.find_element(
        By.CSS_SELECTOR,
        f'#front table [aria-label="Copy the command for {network.architecture}"]',
    ).send_keys(Keys.ENTER)
    assert _eventually(driver, "return window.copied") == network.command


def _require_whole(driver: Any) -> None:
    """Nothing sticks out to the right, was asked of the network, or went wrong in a script."""
    assert driver.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    assert driver.execute_script(_OUTSIDE) == []
    entries = "return performance.getEntriesByType('resource').map((one) => one.name)"
    assert driver.execute_script(entries) == []
    assert driver.get_log("browser") == []


_CHARTS = "return document.querySelectorAll('.chart .main-svg').length"


@pytest.mark.parametrize("width", [390, 760, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_cut_off_or_asked_for(driver: Any, page: Path, width: int, scheme: str) -> None:
    driver.get_log("browser")
    _open(driver, page, width, scheme=scheme)
    _require_whole(driver)
    assert driver.execute_script(_CHARTS) >= 3
    # Colours of the scheme have reached the charts.
    line = driver.execute_script(
        "return document.getElementById('chart-front').layout.shapes[0].line.color"
    )
    assert line == {"light": "#a3005c", "dark": "#ff8ac4"}[scheme]


@pytest.mark.parametrize("width", [390, 1280])
def test_the_other_pages_are_of_the_same_system(
    driver: Any, tmp_path: Path, summary: Summary, on_paper: Summary, width: int
) -> None:
    layer = Layer("<b>stem</b>", "conv", ("image",), K=16, C=3, P=14, Q=14, R=3, S=3)
    mapped = map_workload(Workload((layer,), 3 * 16 * 16), load_chip("eyeriss"))
    write_report(on_paper, tmp_path / "paper.html")
    write_ranking_page(summary.ranking, tmp_path / "ranking.html", truth="test_pct")
    write_mapping_report(mapped, tmp_path / "mapping.html")
    driver.get_log("browser")
    for name, charts in (("paper", 3), ("ranking", 1), ("mapping", 4)):
        _open(driver, tmp_path / f"{name}.html", width)
        driver.execute_script("document.querySelectorAll('details').forEach((one) => one.open = 1)")
        _require_whole(driver)
        assert driver.execute_script(_CHARTS) >= charts
    assert "<b>stem</b>" in driver.execute_script("return document.body.innerText")


def test_hostile_names_do_nothing(driver: Any, tmp_path: Path, summary: Summary) -> None:
    hostile = "</script><script>window.taken = 1</script><img src=x onerror='window.taken = 1'>"
    front = [
        replace(one, architecture=f"{number}{hostile}") for number, one in enumerate(summary.front)
    ]
    taken = replace(
        summary,
        name=hostile,
        machine={"cpu": hostile},
        space=replace(summary.space, classes=(hostile,)),
        front=tuple(front),
    )
    write_report(taken, tmp_path / "report.html")
    _open(driver, tmp_path / "report.html")
    _point_at(driver, "front of the search, measured", 0)
    says = _eventually(
        driver,
        """return document.querySelector("#chart-front .hoverlayer .hovertext")?.textContent""",
    )
    assert "<img src=x" in says
    assert driver.execute_script("return window.taken") is None
