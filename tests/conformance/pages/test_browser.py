"""The page in a browser: filters, links, colours, narrow screens, print, hostile texts."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select, WebDriverWait

from conformance.pages.conftest import VIOLATED, MakeRun
from graphdriver_conformance.catalogue.requirement import catalogue
from graphdriver_conformance.results.diff import compare
from graphdriver_conformance.results.model import Ended, Outcome, Reason, RunResult
from graphdriver_conformance.results.page import diff_page, page

PATIENCE = 60
LONG = "x" * 300
OWN = "document.title = 'owned'"
HOSTILE = f'</pre></script><img src=x onerror="{OWN}"><script>{OWN}</script>'
CHANGES: dict[str, dict[str, Any]] = {
    "DIF-002": VIOLATED,
    "DIF-014": {
        "outcome": Outcome.BLOCKED,
        "reason": Reason.RESTS_ON,
        "blocked_by": ("DIF-002",),
    },
    "LIF-003": {"outcome": Outcome.ERROR, "reason": Reason.SUITE, "detail": "out of inodes"},
    "MET-001": {"outcome": Outcome.NOT_PROVABLE, "reason": Reason.ENVIRONMENT, "detail": "no ext4"},
    "WHT-001": {"outcome": Outcome.WAIVED, "reason": Reason.WAIVER, "detail": "known"},
    "QUO-001": {"outcome": Outcome.NOT_CLAIMED, "reason": Reason.NO_CAPABILITY},
    "ARC-001": {"outcome": Outcome.NOT_SELECTED, "reason": Reason.SELECTION},
}
LOOK = ["DIF-002", "LIF-003", "DIF-014", "WHT-001", "MET-001"]
Show = Callable[..., None]


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    """Return one browser for all tests of this process."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        lacking = "no browser here: install the packages chromium and chromium-driver"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(lacking)
    options = Options()
    options.binary_location = chromium
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--no-first-run",
        f"--user-data-dir={tmp_path_factory.mktemp('chromium')}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chrome = Chrome(options=options, service=Service(driver))
    yield chrome
    chrome.quit()


@pytest.fixture
def show(browser: Chrome, tmp_path: Path) -> Iterator[Show]:
    """Return a function that opens the page of runs; `width` and `scheme` apply to the screen."""

    def show_(
        text: str | list[RunResult], *, width: int = 1280, scheme: str = "light", at: str = ""
    ) -> None:
        (tmp_path / "page.html").write_text(text if isinstance(text, str) else page(text), "utf-8")
        screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        browser.get((tmp_path / "page.html").as_uri() + at)

    yield show_
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    browser.get("about:blank")


@pytest.fixture
def run(make_run: MakeRun) -> RunResult:
    """Return a run with every outcome."""
    return make_run(changes=CHANGES)


@pytest.fixture
def fifteen(make_run: MakeRun) -> list[RunResult]:
    """Return unordered runs of five drivers on three kernels each; one run was killed."""
    runs = [
        make_run(spec, CHANGES if n % 2 else {}, kernel=kernel)
        for n, spec in enumerate(("mine10", "mine2", "vfs", "plugin+unix:///run/a.sock", "zfs"))
        for kernel in ("6.18.1", "5.10.0-33-amd64", "4.19")
    ]
    return [*runs[1:], make_run("mine10", ended=Ended.CRASHED, complete=False)]


def _said(browser: Chrome) -> list[dict[str, Any]]:
    """Return the messages on the console of the browser."""
    found: list[dict[str, Any]] = browser.get_log("browser")  # type: ignore[no-untyped-call]
    return found


def _rows(browser: Chrome) -> list[str]:
    """Return the ids of the visible rows."""
    found: list[str] = browser.execute_script(
        "return [...document.querySelectorAll('tr[data-id]')]"
        ".filter((one) => one.checkVisibility()).map((one) => one.dataset.id)"
    )
    return found


def _sections(browser: Chrome) -> list[str]:
    """Return the ids of the visible sections."""
    found: list[str] = browser.execute_script(
        "return [...document.querySelectorAll('section[data-id]')]"
        ".filter((one) => !one.hidden).map((one) => one.id)"
    )
    return found


def _choose(browser: Chrome, name: str, value: str) -> None:
    Select(browser.find_element(By.NAME, name)).select_by_value(value)


def _visible(browser: Chrome, id: str) -> WebElement:
    """Wait until the element is in the viewport, and return it."""
    inside = (
        "const box = document.getElementById(arguments[0]).getBoundingClientRect();"
        "return box.height > 0 && box.top >= 0 && box.top < innerHeight;"
    )
    WebDriverWait(browser, PATIENCE).until(lambda one: one.execute_script(inside, id))
    return browser.find_element(By.ID, id)


def test_page_opens_with_rows_that_need_attention(
    browser: Chrome, show: Show, run: RunResult
) -> None:
    show([run])

    assert _rows(browser) == LOOK
    assert _sections(browser) == LOOK
    count = browser.find_element(By.ID, "count").text
    assert count == f"5 of {len(catalogue())} requirements"


def test_page_opens_with_all_rows_when_none_needs_attention(
    browser: Chrome, show: Show, make_run: MakeRun
) -> None:
    show([make_run()])

    assert _rows(browser) == sorted(catalogue())


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        *(("outcome", one["outcome"].value, [id]) for id, one in CHANGES.items()),
        ("family", "DIF", ["DIF-002", "DIF-014"]),
        ("level", "SHOULD", [id for id in LOOK if catalogue()[id].level == "SHOULD"]),
    ],
)
def test_filter_keeps_the_chosen_rows_only(
    browser: Chrome, show: Show, run: RunResult, name: str, value: str, expected: list[str]
) -> None:
    show([run])

    _choose(browser, name, value)

    assert _rows(browser) == expected
    assert _sections(browser) == expected


def test_filter_shows_what_differs_between_runs(
    browser: Chrome, show: Show, run: RunResult, make_run: MakeRun
) -> None:
    show([run, make_run("vfs", {"DIF-002": VIOLATED})])

    _choose(browser, "outcome", "differs")

    # One is violated in both runs; one was selected in one run only.
    assert sorted(_rows(browser)) == sorted({*CHANGES} - {"DIF-002", "ARC-001"})


def test_search_finds_every_word_and_can_be_undone(
    browser: Chrome, show: Show, run: RunResult
) -> None:
    show([run])
    title = catalogue()["DIF-002"].title
    search = browser.find_element(By.NAME, "text")

    search.send_keys(f"dif {title.split()[-1].upper()} 002")
    assert _rows(browser) == ["DIF-002"]

    search.send_keys(" no such words")
    assert _rows(browser) == []
    assert not browser.find_element(By.CSS_SELECTOR, "tr.group").is_displayed()
    assert browser.find_element(By.ID, "count").text == f"0 of {len(catalogue())} requirements"

    browser.find_element(By.CSS_SELECTOR, "#filters button").click()
    assert len(_rows(browser)) == len(catalogue())


def test_links_of_the_table_show_the_sections(
    browser: Chrome, show: Show, run: RunResult, make_run: MakeRun
) -> None:
    show([run, make_run("vfs")])

    browser.find_element(By.CSS_SELECTOR, "tr[data-id='WHT-001'] td:last-child a").click()

    assert "waived" not in _visible(browser, "WHT-001.2").text
    assert "vfs" in _visible(browser, "WHT-001.2").text
    assert browser.current_url.endswith("#WHT-001.2")

    browser.find_element(By.CSS_SELECTOR, "table.runs tbody tr:last-child th a").click()

    assert "vfs" in _visible(browser, "run-2").text


def test_link_to_a_requirement_that_the_filter_hides_shows_it(
    browser: Chrome, show: Show, run: RunResult
) -> None:
    show([run], at="#CON-001")
    assert catalogue()["CON-001"].title in _visible(browser, "CON-001").text

    _choose(browser, "outcome", "look")
    assert "CON-001" not in _sections(browser)
    browser.execute_script("location.hash = '#MNT-001.1'")
    assert "met" in _visible(browser, "MNT-001.1").text


def test_page_is_legible_without_its_script(browser: Chrome, show: Show, run: RunResult) -> None:
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    show([run])

    rows = browser.find_elements(By.CSS_SELECTOR, "tr[data-id]")
    assert len(rows) == len(catalogue())
    assert rows[0].is_displayed()
    assert rows[0].get_attribute("data-id") == "DIF-002"
    assert not browser.find_element(By.ID, "filters").is_displayed(), "filters need the script"
    assert "a tree without /d/a" in browser.find_element(By.ID, "DIF-002").text


_CONTRAST = """
const parse = (text) => text.match(/[\\d.]+/g).map(Number);
const ground = (one) => {
  for (; one; one = one.parentElement) {
    const colour = parse(getComputedStyle(one).backgroundColor);
    if (colour.length < 4 || colour[3] > 0) return colour;
  }
  return [255, 255, 255];
};
const light = (colour) => {
  const [r, g, b] = colour.slice(0, 3).map((part) => {
    const one = part / 255;
    return one <= 0.03928 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const found = {};
for (const one of document.querySelectorAll("body *")) {
  const own = [...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
  if (!own || !one.checkVisibility()) continue;
  const [text, under] = [light(parse(getComputedStyle(one).color)), light(ground(one))];
  const ratio = (Math.max(text, under) + 0.05) / (Math.min(text, under) + 0.05);
  if (ratio < 4.5) found[`${one.tagName} ${one.className}`] = ratio;
}
return found;
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_is_legible_in_light_and_dark(
    browser: Chrome, show: Show, run: RunResult, make_run: MakeRun, scheme: str
) -> None:
    """The contrast is at least 4.5, the minimum of WCAG level AA."""
    show([run, make_run("vfs", ended=Ended.CRASHED)], scheme=scheme)
    _choose(browser, "outcome", "")

    background = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (scheme == "light") == (background == "rgb(255, 255, 255)")
    assert browser.execute_script(_CONTRAST) == {}


_OUTSIDE = """
const parts = "tr[data-id] .title, tr[data-id] td a, h1, h3, dd, li, .badge";
const outside = [...document.querySelectorAll(parts)]
  .filter((one) => one.checkVisibility())
  .map((one) => [one, one.getBoundingClientRect()])
  .filter(([one, box]) => box.height && (box.left < 0 || box.right > innerWidth));
return outside.map(([one]) => one.textContent);
"""


@pytest.mark.parametrize("kind", ["one", "two", "fifteen", "hostile", "diff"])
def test_page_never_scrolls_sideways(
    browser: Chrome,
    show: Show,
    run: RunResult,
    make_run: MakeRun,
    fifteen: list[RunResult],
    kind: str,
) -> None:
    texts = dict.fromkeys(("expected", "actual", "reproduce"), LONG)
    lines = dict.fromkeys(("program", "tree"), (LONG,))
    broken = {"DIF-002": {"outcome": Outcome.VIOLATED, **texts, **lines}}
    long = make_run(LONG, broken, options=(LONG,), kernel=LONG[:80], suite=LONG)
    pages = {
        "one": lambda: page([run]),
        "two": lambda: page([run, make_run("vfs")]),
        "fifteen": lambda: page(fifteen),
        "hostile": lambda: page([long, make_run("vfs")]),
        "diff": lambda: diff_page(compare([make_run()], [long])),
    }
    text = pages[kind]()

    for width in (320, 390, 768, 1280):
        show(text, width=width)
        scroll, inner = browser.execute_script(
            "return [document.documentElement.scrollWidth, innerWidth]"
        )
        assert inner == width
        assert scroll <= width
        if width < 500:
            assert browser.execute_script(_OUTSIDE) == [], f"cut off at a width of {width}"


@pytest.mark.parametrize("kind", ["one", "fifteen"])
def test_narrow_table_has_titles_and_is_still_a_table(
    browser: Chrome, show: Show, run: RunResult, fifteen: list[RunResult], kind: str
) -> None:
    runs = [run] if kind == "one" else fifteen
    show(runs, width=390)

    row = browser.find_element(By.CSS_SELECTOR, "tr[data-id='DIF-002']")
    assert catalogue()["DIF-002"].title in row.text
    assert len(row.find_elements(By.CSS_SELECTOR, "td a")) == len(runs)
    tree = browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    roles = [one["role"]["value"] for one in tree if not one["ignored"]]
    assert "table" in roles
    assert roles.count("row") >= len(LOOK)
    assert roles.count("cell") >= len(LOOK) * len(runs)


def test_every_control_has_a_name(browser: Chrome, show: Show, fifteen: list[RunResult]) -> None:
    show(fifteen)

    tree = browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    controls = ("link", "button", "searchbox", "combobox", "table", "region")
    nameless = [
        one
        for one in tree
        if not one["ignored"]
        and one["role"]["value"] in controls
        and not one.get("name", {}).get("value")
    ]
    assert nameless == []


def test_runs_are_one_row_each_in_natural_order(
    browser: Chrome, show: Show, fifteen: list[RunResult]
) -> None:
    show(fifteen)

    rows = browser.find_elements(By.CSS_SELECTOR, "table.runs tbody tr")
    assert [row.text.split()[0] for row in rows] == [str(number) for number in range(1, 16)]
    specs = [row.find_element(By.CSS_SELECTOR, "th").text for row in rows]
    assert specs[:9] == ["mine2"] * 3 + ["mine10"] * 3 + ["plugin+unix:///run/a.sock"] * 3
    kernels = [row.find_element(By.CSS_SELECTOR, "[data-name='Kernel']").text for row in rows]
    assert kernels[:3] == ["4.19", "5.10.0-33-amd64", "6.18.1"]
    assert [one.text for one in browser.find_elements(By.CSS_SELECTOR, ".short-notice")] == [
        "crashed"
    ]


def test_keyboard_reaches_the_requirements_first(
    browser: Chrome, show: Show, run: RunResult
) -> None:
    show([run])

    browser.find_element(By.TAG_NAME, "body").send_keys(Keys.TAB)
    focused = browser.switch_to.active_element
    assert focused.text == "Skip to the requirements"
    assert focused.value_of_css_property("outline-style") == "solid"

    focused.send_keys(Keys.ENTER)
    assert browser.current_url.endswith("#requirements")
    browser.switch_to.active_element.send_keys(Keys.TAB)
    assert browser.switch_to.active_element.get_attribute("name") == "text"


def test_print_has_no_filters_and_folds_nothing(
    browser: Chrome, show: Show, make_run: MakeRun
) -> None:
    lines = tuple(f"line {number}" for number in range(200))
    show([make_run(changes={"DIF-002": {**VIOLATED, "output": lines}})])
    output = browser.find_element(By.XPATH, "//*[@id='DIF-002.1']//details/pre")
    is_shown = "return arguments[0].checkVisibility()"
    assert not browser.execute_script(is_shown, output), "a long output is folded"

    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})

    assert not browser.find_element(By.ID, "filters").is_displayed()
    assert browser.execute_script(is_shown, output)
    assert _rows(browser) == LOOK[:1]


def test_fifteen_runs_fit_on_paper(browser: Chrome, show: Show, fifteen: list[RunResult]) -> None:
    show(fifteen, width=718)  # A4 with its margins

    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})

    scroll = browser.execute_script("return document.documentElement.scrollWidth")
    assert scroll <= 718


def test_texts_of_drivers_run_nothing_and_load_nothing(
    browser: Chrome, show: Show, make_run: MakeRun
) -> None:
    texts = dict.fromkeys(("detail", "expected", "actual", "kept", "reproduce"), HOSTILE)
    lines = dict.fromkeys(("program", "tree", "mounts", "output"), (HOSTILE,))
    changes = {"DIF-002": {"outcome": Outcome.VIOLATED, **texts, **lines}}

    show([make_run(HOSTILE, changes, options=(HOSTILE,)), make_run("vfs")])

    assert _rows(browser) == ["DIF-002"], "our own script runs"
    assert browser.title != "owned"
    assert browser.find_elements(By.TAG_NAME, "img") == []
    assert HOSTILE in browser.find_element(By.CSS_SELECTOR, "[id='DIF-002.1'] pre").text
    assert browser.execute_script("return performance.getEntriesByType('resource')") == []
    assert _said(browser) == []


def test_policy_of_the_page_runs_no_script_but_its_own(
    browser: Chrome, show: Show, run: RunResult
) -> None:
    """A second defence in case a text is not escaped."""
    made = page([run]).replace("<main>", f"<main>{HOSTILE}")
    assert HOSTILE in made

    show(made)

    assert _rows(browser) == LOOK, "our own script runs"
    assert browser.title == "mine:Driver: not conformant"
    assert _said(browser), "the browser says what it refused"
