"""The page in a real browser, from a file and without a network: it can be clicked through, and nothing in it runs
that we did not write."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from harness import Report, Verdict, check_model
from harness.evidence import Absent, Cell, Estimated, Exact, Look, Raised, Record, Reproducer
from harness.html import CELLS_SHOWN, SIGNS, address, write_html
from harness.judge import explain, judge

HOSTILE = '<script>alert(1)</script>"><img src=x onerror=alert(2)>'
ALPHA = 1e-7


class Shifted:
    """Draws around 0.3, a density around 0."""

    def sample(self, n: int, *, generator: torch.Generator) -> torch.Tensor:
        return 0.3 + torch.randn(n, generator=generator)

    def log_prob(self, x: torch.Tensor) -> torch.Tensor:
        return -(x**2) / 2 - math.log(2 * math.pi) / 2


def made(model: str, check: str, seen, **changes) -> Record:
    verdict = judge(seen, ALPHA)
    return replace(Record(model, check, verdict, seen, ALPHA, 0.01, explain(seen, verdict, ALPHA)), **changes)


CROSSING = tuple(Look(2**k, 0.2, 0.2 - 4 / 2 ** (k / 2), 0.2 + 4 / 2 ** (k / 2), 2.0 * (k - 10)) for k in range(11, 21))
ODD = Estimated((Look(1, math.nan, -math.inf, math.inf, -math.inf), Look(9, 0.0, -1.0, 1.0, math.inf)), 0.0, 0.9, "")
CELLS = tuple(Cell(f"cell {i}", 0.01, 0.02 if i % 2 else 0.0) for i in range(100))
SYNTHETIC = (
    made("odd", "plot.crossing", Estimated(CROSSING, 0.05, 0.999, "probability", "a tail", 9)),
    made("odd", "plot.cells", Estimated(CROSSING[:3], 0.05, 0.999, "probability", cells=CELLS, asymptotic=True)),
    made("odd", "plot.not_finite", ODD),
    made("odd", "plot.error", Exact(3e-9, 1e-7, 40, "x = 1", "nat", 1e-9)),
    made("odd", "plot.infinite_error", Exact(math.inf, 1e-7, 40)),
    made("odd", "plot.raised", Raised("RuntimeError", "boom", 'File "model.py", line 3\n  <b>boom</b>')),
    made("odd", "plot.blocked", Absent("blocked: plot.raised did not pass", "plot.raised")),
    made(HOSTILE, "plot.error", Exact(2.0, 1.0, 3, where=HOSTILE), label=HOSTILE, message=HOSTILE),
    made(HOSTILE, "plot.raised", Raised(HOSTILE, HOSTILE, HOSTILE + "\u2028</script><script>alert(3)</script>")),
    made("a/b::c #%41 é\ud800\x00", "plot.error", Exact(0.0, 1.0, 3)),
)


@pytest.fixture(scope="module")
def report() -> Report:
    """What the examiner really says of a correct and of a broken model, and one record of each other kind."""
    shifted = check_model(Shifted(), effort="quick", name="shifted", expected_failures={"no.check": HOSTILE})
    normal = check_model(torch.distributions.Normal(0.0, 1.0), effort="quick", name="Normal")
    script = "import torch\nprint('<seen again>')\n"
    again = Reproducer("harness check m.py:shifted --only x --seed 0", script, 64)
    records = [replace(r, reproducer=again) if r.verdict is Verdict.FAIL else r for r in shifted.records]
    return replace(shifted, records=(*normal.records, *records, *SYNTHETIC))


BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def page(report: Report, tmp_path_factory) -> Iterator[object]:
    """Headless Chromium with the page open, its console and its network traffic recorded."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    from selenium.webdriver.chrome.service import Service

    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.skip("chromium or chromedriver is not installed: apt-get install chromium chromium-driver")
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_html(report, path)
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    # Chromium ignores changes of the address beyond 200 in ten seconds, and every cell has one.
    unthrottled = "--disable-ipc-flooding-protection"
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", unthrottled):
        options.add_argument(argument)
    options.add_argument("--window-size=1440,1000")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chromium = webdriver.Chrome(options=options, service=Service(driver))
    try:
        chromium.get(path.as_uri())
        yield Page(chromium, path)
    finally:
        chromium.quit()


class Page:
    """The page as a reader uses it."""

    def __init__(self, driver, path: Path):
        self.driver, self.path = driver, path

    def all(self, selector: str) -> list:
        return self.driver.find_elements("css selector", selector)

    def text(self, selector: str) -> str:
        return "\n".join(found.text for found in self.all(selector) if found.is_displayed())

    def cell(self, model: str, check: str):
        links = self.all("td > a")
        hrefs = self.driver.execute_script("return arguments[0].map((a) => a.getAttribute('href'))", links)
        return links[hrefs.index(address(model, check))]

    def open(self, model: str, check: str) -> None:
        self.driver.execute_script(
            "arguments[0].scrollIntoView({block: 'center', inline: 'center'})", self.cell(model, check)
        )
        self.cell(model, check).click()
        self.wait_until(f"document.querySelector('[aria-current]')?.getAttribute('href') === '{address(model, check)}'")

    def wait_for(self, heading: str) -> None:
        self.wait_until(f"document.querySelector('#panel h2')?.textContent === '{heading}'")

    def wait_until(self, condition: str) -> None:
        """Chromium tells the page of its new address a moment after the click."""
        from selenium.webdriver.support.ui import WebDriverWait

        WebDriverWait(self.driver, 20, poll_frequency=0.02).until(lambda d: d.execute_script(f"return {condition}"))

    def fresh(self, fragment: str = "") -> None:
        """Load the page anew."""
        self.driver.get("about:blank")
        self.driver.get(self.path.as_uri() + fragment)

    def press(self, *keys: str) -> None:
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()


def test_every_record_has_a_cell_with_its_sign(page: Page, report: Report):
    shown = page.driver.execute_script(
        "return [...document.querySelectorAll('td > a')].map((a) => [a.className, a.textContent])"
    )
    assert len(shown) == len(report.records)
    for kind, sign in shown:
        assert sign == SIGNS[Verdict(kind.split()[0])]


def test_the_summary_counts_verdicts_and_names_problems(page: Page, report: Report):
    for toggle in page.all(".count"):
        verdict = Verdict(toggle.get_attribute("data-verdict"))
        assert toggle.find_element("tag name", "b").text == str(report.counts[verdict])
    assert page.text(".answer") == "did not pass"
    assert "no.check" in page.text(".problem")
    assert "99.9 %" in page.text(".meaning")


def test_a_statistical_check_shows_its_law_its_numbers_and_its_plots(page: Page, report: Report):
    record = next(r for r in report.failures if r.model == "shifted" and isinstance(r.evidence, Estimated))
    page.fresh()
    page.open(record.model, record.check)
    assert page.text("#panel h2") == record.check
    assert " ".join(page.text("#panel .sentence").split()) == f"FAIL {record.message}"
    assert page.text("#panel .law")[:5] == report.laws[record.check].law[:5]
    assert len(page.all("#panel figure svg .path")) == 2
    assert len(page.all("#panel svg .crossing")) == 2
    assert len(page.all("#panel svg:first-child circle.dot")) == 2 * len(record.evidence.path)
    assert "statistic" in page.text("#panel dl")
    assert "harness check m.py:shifted" in page.text("#panel .copying")


EVERY_CELL = """
const headings = [], broken = [];
for (const link of document.querySelectorAll("td > a")) {
  history.replaceState(null, "", link.hash);
  window.dispatchEvent(new HashChangeEvent("hashchange"));
  headings.push(document.querySelector("#panel h2")?.textContent);
  for (const node of document.querySelectorAll("#panel svg *"))
    for (const { name, value } of node.attributes)
      if (name !== "class" && /NaN|Infinity|undefined/.test(value)) broken.push(`${link.hash} ${node.outerHTML}`);
}
return [headings, broken];
"""
"""Show each cell as its address does, and collect the headings and the numbers that no plot should have."""


def test_every_cell_opens_without_an_error_and_draws_finite_plots(page: Page, report: Report):
    """All of them: each record kind, with infinite, undefined and single looks."""
    page.fresh()
    headings, broken = page.driver.execute_script(EVERY_CELL)
    assert sorted(headings) == sorted(r.check for r in report.records)
    assert broken == []


@pytest.mark.parametrize(
    ("check", "selector", "number"),
    [
        ("plot.crossing", "svg .crossing", 2),
        ("plot.crossing", "svg .allowed", 1),
        ("plot.crossing", "svg .limit", 1),
        ("plot.crossing", "svg .band", 1),
        ("plot.cells", "svg .observed", CELLS_SHOWN),
        ("plot.cells", "svg .expected", CELLS_SHOWN),
        ("plot.error", "svg .ok", 2),
        ("plot.infinite_error", "svg .alarm", 2),
        ("plot.raised", "pre.trace", 1),
        ("plot.blocked", "p a", 1),
    ],
)
def test_each_kind_of_evidence_has_its_picture(page: Page, check, selector, number):
    page.open("odd", check)
    assert len(page.all(f"#panel {selector}")) == number


def test_a_trace_is_shown_as_it_is_and_a_blocked_check_leads_to_its_blocker(page: Page):
    page.open("odd", "plot.blocked")
    page.all("#panel p a")[0].click()
    page.wait_for("plot.raised")
    assert "<b>boom</b>" in page.text("#panel pre")


def test_a_name_made_to_break_out_is_inert(page: Page):
    for check in ("plot.error", "plot.raised"):
        page.open(HOSTILE, check)
        assert page.text("#panel .of") == HOSTILE
        assert page.all("img") == []
        assert len(page.all("script")) == 2
    assert "alert(3)" in page.text("#panel pre")


def test_no_script_but_ours_can_run(page: Page):
    page.driver.execute_script(
        "const s = document.createElement('script'); s.textContent = 'window.intruder = 1';"
        "document.body.append(s); s.remove()"
    )
    assert page.driver.execute_script("return window.intruder") is None
    page.driver.get_log("browser")  # Chromium reports what it refused; not an error of the page


def test_the_filter_hides_rows_and_columns_and_dims_the_rest(page: Page, report: Report):
    page.fresh()
    field = page.all("#filter")[0]
    field.send_keys("shifted")
    assert page.text("tbody th .name") == "shifted"
    field.clear()
    field.send_keys("odd crossing")
    assert page.text("#shown") == f"1 of {len(report.records)} cells"
    assert page.text("tbody td > a") == SIGNS[Verdict.FAIL]
    field.clear()
    field.send_keys("no such thing")
    assert page.text("#nothing") == "No cell matches the filter."


def test_verdicts_filter_and_add_up(page: Page, report: Report):
    page.fresh()
    for verdict in (Verdict.ERROR, Verdict.FAIL):
        page.all(f".count.{verdict}")[0].click()
    number = report.counts[Verdict.ERROR] + report.counts[Verdict.FAIL]
    assert page.text("#shown") == f"{number} of {len(report.records)} cells"
    assert len(page.all("td > a:not(.out)")) == number
    for verdict in (Verdict.ERROR, Verdict.FAIL):
        page.all(f".count.{verdict}")[0].click()
    assert page.text("#shown") == ""


@pytest.mark.parametrize("model", ["odd", HOSTILE, "a/b::c #%41 é?\x00"])
def test_an_address_leads_to_its_cell(page: Page, model):
    """Also when the model's name is not fit for an address. A lone surrogate has become a question mark."""
    page.fresh(address(model, "plot.error"))
    assert page.text("#panel h2") == "plot.error"
    assert len(page.all("td > a[aria-current]")) == 1


def test_the_cell_of_an_address_is_in_sight(page: Page, report: Report):
    """Also at the far end of a matrix wider than the window."""
    page.driver.set_window_size(1100, 700)
    for record in (report.records[0], next(r for r in report.records if r.check == "plot.blocked")):
        page.fresh(address(record.model, record.check))
        assert page.driver.execute_script(
            "const link = document.querySelector('[aria-current]'), box = link.getBoundingClientRect();"
            "const matrix = document.getElementById('matrix').getBoundingClientRect();"
            "return link.closest('td') && box.left > matrix.left && box.right < matrix.right"
        )
    page.driver.set_window_size(1440, 1000)


@pytest.mark.parametrize("fragment", ["#nothing/here", "#%E0%A4%A", "#", "#a/b/c"])
def test_an_address_that_names_no_cell_shows_what_needs_attention(page: Page, report: Report, fragment):
    page.fresh(fragment)
    assert page.text("#panel h2") == "What needs attention"
    listed = [r for r in report.records if r.verdict in (Verdict.FAIL, Verdict.ERROR, Verdict.INCONCLUSIVE)]
    assert len(page.all("#panel .list li")) == len(listed)


def test_the_keyboard_alone_is_enough(page: Page):
    from selenium.webdriver.common.keys import Keys

    page.fresh()
    page.press("/")
    assert page.driver.switch_to.active_element.get_attribute("id") == "filter"
    page.press("odd")
    for _ in range(3):  # Chromium may give the scrollable matrix the focus first
        page.press(Keys.TAB)
        if page.driver.switch_to.active_element.get_attribute("aria-label") in list(Verdict):
            break
    first = page.driver.switch_to.active_element.get_attribute("href")
    assert first.endswith(address("odd", "plot.crossing"))
    page.press(Keys.ARROW_RIGHT)
    page.press(Keys.ENTER)
    page.wait_for("plot.cells")
    page.press(Keys.ESCAPE)
    page.wait_for("What needs attention")
    assert page.driver.switch_to.active_element.get_attribute("href").endswith(address("odd", "plot.cells"))


def test_the_reproducer_can_be_copied(page: Page, report: Report):
    page.fresh()
    record = next(r for r in report.failures if r.reproducer)
    page.open(record.model, record.check)
    page.all("#panel details summary")[0].click()
    assert "print('<seen again>')" in page.text("#panel details pre")
    button = page.all("#panel .copying button")[0]
    button.click()
    told = page.driver.execute_async_script(
        "const [button, done] = arguments;"
        "const look = () => (button.textContent === 'copy' ? setTimeout(look, 20) : done(button.textContent));"
        "look()",
        button,
    )
    assert told == "copied"


def test_of_a_single_model_every_check_is_a_line_that_can_be_read(page: Page, report: Report):
    one = replace(report, records=tuple(r for r in report.records if r.model == "shifted"))
    write_html(one, page.path.with_name("one.html"))
    page.driver.get(page.path.with_name("one.html").as_uri())
    try:
        box = page.all("#matrix")[0]
        widths = page.driver.execute_script("return [arguments[0].scrollWidth, arguments[0].clientWidth]", box)
        assert widths[0] <= widths[1]  # nothing to scroll sideways
        assert len(page.all("tbody tr")) == len(one.records)
        said = page.text("#matrix")
        assert all(record.check in said and record.message in said for record in one.records)
        wrong = one.failures[0]
        page.open("shifted", wrong.check)
        assert page.text("#panel h2") == wrong.check
        assert page.text("#panel .sentence").endswith(wrong.message)
        page.all("#filter")[0].send_keys(wrong.check)
        visible = [row.text for row in page.all("tbody tr") if row.is_displayed()]
        assert len(visible) == 1
        assert wrong.check in visible[0]
    finally:
        page.fresh()


def test_the_theme_follows_the_system_and_the_button_turns_it(page: Page):
    def background() -> str:
        return page.driver.execute_script("return getComputedStyle(document.body).backgroundColor")

    seen = set()
    for preference in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": preference}]
        page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        page.fresh()
        before = background()
        page.all("#theme")[0].click()
        assert background() != before
        page.all("#theme")[0].click()
        assert background() == before
        seen.add(before)
    assert len(seen) == 2


def test_nothing_was_asked_of_a_network_and_nothing_went_wrong(page: Page):
    """Last, so that it speaks of everything that the tests above did."""
    page.open("odd", "plot.cells")
    messages = [json.loads(entry["message"])["message"] for entry in page.driver.get_log("performance")]
    asked = {m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"}
    assert asked
    assert {url for url in asked if not url.startswith((page.path.parent.as_uri(), "data:"))} == set()
    assert page.driver.get_log("browser") == []
