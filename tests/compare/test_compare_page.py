"""The page of a leaderboard: whole, offline, escaped; in a real browser it sorts, draws and unfolds."""

import json
import shutil

import numpy as np
import pytest

from harness.compare.board import board_of
from harness.compare.page import HEADS, render, write_page

HOSTILE = '<script>alert(1)</script>"><img src=x onerror=alert(2)>'
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
DATA = {
    **{"name": HOSTILE, "d": 4, "kind": "discrete", "levels": [2, 2], "image": [2, 2], "split": "as published"},
    **{"rows": {"train": 9, "valid": 9, "test": 50}, "fingerprint": "f", "entropy_ceiling_nats": 1.0},
    **{"frontier_nats": 2.0, "frontier_source": HOSTILE},
}
RUN = {
    "seed": 0,
    "budget": 1.0,
    "effort": "quick",
    "device": "cpu",
    "threads": 1,
    "started": "2026-01-02T03:04:05+00:00",
}


def row(name: str, level: float, seconds: float, **changes) -> dict:
    figure = {"value": seconds, "batch": 10, "cached": False}
    grown = [{"of": of, "n": n, "seconds": seconds * n} for of in ("log_prob", "sample") for n in (1, 10, 100)]
    wide = [{"of": of, "d": d, "n": 100, "seconds": seconds * d} for of in ("log_prob", "sample") for d in (2, 4)]
    counts = {"PASS": 3, "FAIL": 0, "INCONCLUSIVE": 1, "SKIP": 1, "ERROR": 0}
    undecided = {"check": "density.bridge_mass", "verdict": "INCONCLUSIVE", "message": HOSTILE}
    return {
        **{"name": name, "spec": f"m.py:{name}", "key": "k", "trouble": "", "meaning": "exact"},
        "points": (level + 0.01 * np.random.default_rng(0).normal(size=50)).tolist(),
        "preprocessing": "states as they are",
        "training": {"how": HOSTILE, "seconds": 1.0, "steps": None},
        "machine": {"processor": "x", "threads": 1, "versions": {"python": "3", "cuda": None}},
        "certificate": {
            **{"passed": True, "counts": counts, "records": [undecided], "alpha": 1e-7, "effort": "quick", "seed": 0},
            "normalised_exactly_by": "",
            "not_examined": ["fit"],
        },
        "cost": {
            **{"parameters": 3, "seconds_per_log_prob": figure, "seconds_per_sample": figure},
            "peak_memory_bytes": {"value": 2**20, "batch": 10},
        },
        "growth": {"n": grown, "d": wide},
        "pictures": {"shape": [2, 2], "draws": [[0, 128, 255, 9]] * 12, "rows": [[255, 0, 255, 0]] * 12},
        **changes,
    }


@pytest.fixture(scope="module")
def board() -> dict:
    rows = [
        *(row("good", 3.0, 1e-3), row("slow and worse", 4.0, 1e-2), row("fast", 5.0, 1e-5)),
        *(row(HOSTILE, 6.0, 1e-4), row("dead", 1.5, 1.0, trouble=HOSTILE)),
    ]
    return board_of(rows, DATA, RUN)


def test_the_page_refers_to_nothing_outside_and_has_no_markup_of_a_model(board):
    page = render(board)
    assert page.count("<script") == page.count("</script>") == 2  # the data and the program
    assert "<img" not in page
    for reference in ('src="', "@import", "url(", "<iframe"):
        assert reference not in page
    assert "default-src 'none'" in page


def test_the_embedded_data_is_strict_json(board):
    def refuse(name: str) -> float:
        raise AssertionError(name)

    text = render(board).partition('id="data">')[2].partition("</script>")[0]
    assert len(json.loads(text, parse_constant=refuse)["rows"]) == 5


def test_a_board_of_failures_only_is_a_page_too():
    assert "No model is ranked" in render(board_of([row("dead", 1.5, 1.0, trouble="it died")], DATA, RUN))


@pytest.fixture(scope="module")
def chromium():
    """Headless Chromium with its console recorded."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    from selenium.webdriver.chrome.service import Service

    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which("chromedriver")
    if found is None or driver is None:
        pytest.skip("chromium or chromedriver is not installed: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = found
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driven = webdriver.Chrome(options=options, service=Service(driver))
    try:
        yield driven
    finally:
        driven.quit()


@pytest.fixture
def browser(chromium, board, tmp_path):
    """The browser with the page open."""
    write_page(board, tmp_path / "board.html")
    chromium.get((tmp_path / "board.html").as_uri())
    return chromium


def names(browser) -> list[str]:
    return browser.execute_script(
        "return [...document.querySelectorAll('#board tbody th')].map((cell) => cell.dataset.value)"
    )


def click(browser, column: str) -> None:
    place = [key for key, *_ in HEADS].index(column)
    browser.execute_script("document.querySelectorAll('#board thead button')[arguments[0]].click()", place)


def test_the_table_sorts_by_numbers_in_both_directions(browser):
    assert names(browser)[:3] == ["good", "slow and worse", "fast"]
    click(browser, "log_prob")
    assert names(browser) == ["fast", HOSTILE, "good", "slow and worse"]
    click(browser, "log_prob")
    assert names(browser)[0] == "slow and worse"
    click(browser, "rank")
    assert names(browser)[0] == "good"


def test_no_dot_hides_a_name_and_no_axis_is_without_numbers(browser):
    order = browser.execute_script("return [...document.querySelector('#pareto svg').children].map((c) => c.tagName)")
    assert "circle" not in order[order.index("circle") + 4 :]  # the four dots, and then names alone
    assert order[-4:] == ["text"] * 4
    for low in range(0, 100, 7):  # a range of less than a decade, wherever it begins
        script = "return decades(arguments[0], arguments[0] + 0.2).length"
        assert browser.execute_script(script, low / 100 - 5) >= 2


def test_the_plots_are_drawn_and_follow_their_choice(browser):
    def count(selector: str) -> int:
        return len(browser.find_elements("css selector", selector))

    assert count("#pareto circle") == 4
    # All have one memory; "slow and worse" has more seconds and nats than "good", and the last than "fast".
    assert count("#pareto circle.dominated") == 2
    assert count("#gaps circle") == 4
    for figure in ("#growth-n", "#growth-d"):
        assert count(f"{figure} polyline") == 4
    browser.execute_script(
        "const s = document.querySelector('#growth-n select'); s.value = 'sample'; s.dispatchEvent(new Event('change'))"
    )
    assert count("#growth-n svg") == 1
    assert "sample" in browser.find_element("css selector", "#growth-n svg").get_attribute("aria-label")


NAMES = """
const boxes = [...document.querySelectorAll(arguments[0])].map((text) => [text.textContent, text.getBBox()]);
return boxes.map(([name, b]) => [name, b.x, b.x + b.width, b.y, b.y + b.height]);
"""


@pytest.mark.parametrize("figure", ["#pareto text.name", "#growth-n .series text", "#growth-d .series text"])
def test_names_of_models_that_are_alike_stand_apart_within_the_plot(chromium, tmp_path, figure):
    alike = [row(f"model number {i}", 3 + i / 1000, 1e-3 * 1.01**i) for i in range(14)]
    write_page(board_of(alike, DATA, RUN), tmp_path / "board.html")
    chromium.get((tmp_path / "board.html").as_uri())
    found = chromium.execute_script(NAMES, figure)
    assert len(found) == 14
    width, height = map(float, chromium.execute_script("return [WIDE, HIGH]"))
    for name, left, right, top, bottom in found:
        assert 0 <= left < right <= width, name
        assert 0 <= top < bottom <= height, name
        for other, start, end, over, under in found:  # the middles: letters above and below the line may touch
            if other != name:
                assert right <= start or end <= left or abs(top + bottom - over - under) / 2 >= 11, (name, other)


def test_names_stand_in_the_order_of_the_ends_of_their_curves(chromium, tmp_path):
    slow_first = [row(f"model {i}", 9 - i, 1e-3 / 1.1**i) for i in range(8)]  # and the best last
    write_page(board_of(slow_first, DATA, RUN), tmp_path / "board.html")
    chromium.get((tmp_path / "board.html").as_uri())
    found = chromium.execute_script(NAMES, "#growth-n .series text")
    assert [name for name, *_ in sorted(found, key=lambda each: each[3])] == [f"model {i}" for i in range(8)]


def test_draws_are_pictures(browser):
    canvases = browser.find_elements("css selector", "#pictures canvas")
    assert len(canvases) == 6  # rows of the data, and five models
    pixel = "const c = arguments[0]; return [...c.getContext('2d').getImageData(1, 0, 1, 1).data]"
    assert browser.execute_script(pixel, canvases[1]) == [128, 128, 128, 255]


def test_what_is_below_the_line_has_its_reason_and_a_link_opens_details(browser):
    assert HOSTILE in browser.find_element("css selector", "#below li").text
    browser.execute_script("document.querySelector('#board tbody a').click()")
    browser.execute_script("window.dispatchEvent(new HashChangeEvent('hashchange'))")
    assert browser.execute_script("return document.querySelectorAll('details[open]').length") == 1


def test_nothing_ran_that_we_did_not_write(browser):
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
