"""The page in a real Chromium: it asks for nothing, complains of nothing, draws, sorts, prints, and fits a phone."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from rml_report.comparison import importance_shares
from rml_report.plots import draw_plots, plotly_script
from rml_search.image_scores import ImageScores
from rml_search.report.page import Page, render_page
from rml_search.report.pictures import Gallery, Picture
from rml_search.segmentation_scores import Overlap

pytestmark = pytest.mark.browser

#: A red picture of one pixel.
RED = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR42mP4z8AAAAMBAQD3A0FDAAAAAElFTkSuQmCC"
)
PHONE = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
#: The mixed study on US Letter; with plots as high as on a screen it takes one more.
MOST_PAGES = 8
DESK = {"width": 1200, "height": 900, "deviceScaleFactor": 1, "mobile": False}


@pytest.fixture(scope="module")
def page_file(mixed_study, report_folder) -> Path:
    missed = ImageScores("scan <b>2</b>", "a <class>", Overlap(0, 0, 40), None)
    found = ImageScores("scan 1", None, Overlap(30, 40, 40), 4.0)
    gallery = Gallery((missed, found), (Picture(missed, RED, "scan 2 & its contours"),))
    page = Page(mixed_study, importance_shares(mixed_study), draw_plots(mixed_study), gallery, plotly_script())
    path = report_folder / "a report.html"
    path.write_text(render_page(page), encoding="utf-8")
    return path


@pytest.fixture
def browser(chromium, page_file):
    """The page, opened anew on a desk by daylight."""
    chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", DESK)
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})
    open_page(chromium, page_file)
    return chromium


def open_page(browser, page_file):
    for kind in ("browser", "performance"):
        browser.get_log(kind)  # what earlier pages have said
    browser.get(page_file.as_uri())
    WebDriverWait(browser, 30).until(lambda driver: driver.execute_script("return document.readyState") == "complete")


def requests(browser):
    """The addresses that the page has asked for, but those that hold their answer."""
    events = (json.loads(entry["message"])["message"] for entry in browser.get_log("performance"))
    sent = (event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent")
    return [address for address in sent if not address.startswith("data:")]


def test_nothing_is_asked_for_but_the_page(browser, page_file):
    assert requests(browser) == [page_file.as_uri()]


def test_the_console_is_silent(browser):
    assert browser.get_log("browser") == []


def test_the_network_is_closed_to_the_page(browser):
    """Its policy stands against whatever a script might do."""
    answer = browser.execute_async_script(
        "const done = arguments[0]; fetch('http://127.0.0.1:9/').then(() => done('went'), (error) => done('' + error))"
    )
    assert "Failed to fetch" in answer
    assert any("Content Security Policy" in entry["message"] for entry in browser.get_log("browser"))


def test_every_plot_is_drawn_and_described(browser, mixed_study):
    places = browser.find_elements(By.CSS_SELECTOR, ".drawing")
    assert len(places) == 5 + len(mixed_study.dimensions)
    for place in places:
        marks = place.find_elements(By.CSS_SELECTOR, ".scatterlayer path, .barlayer path")
        assert marks, place.get_attribute("id")
        assert place.size["width"] > 200
        assert place.get_attribute("role") == "img"
        assert place.get_attribute("aria-label")
        description = browser.find_element(By.ID, place.get_attribute("aria-describedby"))
        assert len(description.text) > 30


def test_text_from_outside_is_shown_as_it_is(browser, nasty):
    assert nasty in browser.find_element(By.ID, "trials").text
    assert nasty in browser.find_element(By.ID, "repeat").text
    assert browser.find_elements(By.CSS_SELECTOR, "[onload]") == []
    assert browser.find_element(By.CSS_SELECTOR, ".gallery .name").text == "scan <b>2</b>"
    assert "a <class>" in browser.find_element(By.ID, "images").text
    assert browser.find_element(By.CSS_SELECTOR, ".gallery img").get_attribute("alt") == "scan 2 & its contours"


def column(browser, heading):
    headings = browser.find_elements(By.CSS_SELECTOR, "#trials th")
    place = [item.text.split()[0] for item in headings].index(heading)
    rows = browser.find_elements(By.CSS_SELECTOR, "#trials tbody tr")
    return headings[place], [row.find_elements(By.TAG_NAME, "td")[place].text for row in rows]


def test_the_table_sorts_by_numbers_and_back(browser):
    head, before = column(browser, "Accuracy")
    assert before[:3] == ["0.400", "0.860", "0.870"]
    expected = sorted(float(text) for text in before if text)
    head.find_element(By.TAG_NAME, "button").click()
    _, rising = column(browser, "Accuracy")
    assert [float(text) for text in rising if text] == expected
    assert rising[-3:] == ["", "", ""]  # what has no accuracy stays at the end
    assert head.get_attribute("aria-sort") == "ascending"
    head.find_element(By.TAG_NAME, "button").send_keys("\n")  # by the keyboard
    _, falling = column(browser, "Accuracy")
    assert [float(text) for text in falling if text] == expected[::-1]
    assert falling[-3:] == ["", "", ""]
    assert head.get_attribute("aria-sort") == "descending"


def test_numbers_are_not_sorted_as_text(browser):
    head, _ = column(browser, "Trial")
    head.find_element(By.TAG_NAME, "button").click()
    assert column(browser, "Trial")[1] == [str(number) for number in range(11, -1, -1)]


def test_the_page_prints(browser, report_folder):
    document = base64.b64decode(browser.print_page())
    assert document.startswith(b"%PDF-")
    num_pages = document.count(b"/Type /Page\n") + document.count(b"/Type /Page ")
    assert 4 <= num_pages <= MOST_PAGES
    assert len(document) > 50_000


def test_plots_are_lower_on_paper(browser):
    """A figure is not torn apart: what is as high as on a screen leaves half of a sheet empty."""
    browser.execute_script(
        "const plot = document.getElementById('plot-curves'); window.onScreen = plot.layout.height;"
        "window.addEventListener('beforeprint', () => { window.onPaper = plot.layout.height; });"
    )
    browser.print_page()
    on_screen, on_paper = browser.execute_script("return [window.onScreen, window.onPaper]")
    assert 0.5 * on_screen < on_paper < 0.8 * on_screen
    height = browser.execute_script("return document.getElementById('plot-curves').layout.height")
    assert height == on_screen


@pytest.mark.parametrize("has_reasons", [False, True])
def test_a_narrow_table_of_trials_needs_no_sheet_of_its_own(mixed_study, has_reasons):
    """Five hyperparameters have room on a sheet that stands upright, with the reasons for failures they do not."""
    study = mixed_study
    if not has_reasons:
        study = replace(study, trials=tuple(replace(trial, reason=None) for trial in study.trials))
    page = Page(study, {}, draw_plots(study), Gallery(reason="no predictions"), "")
    assert ('<section id="trials" class="wide">' in render_page(page)) is has_reasons


def test_printing_leaves_the_page_as_it_was(browser):
    browser.print_page()
    assert browser.find_element(By.TAG_NAME, "details").get_attribute("open") is None
    assert browser.find_element(By.ID, "plot-curves").size["width"] > 700


@pytest.mark.parametrize("width", [320, 390, 768])
def test_a_narrow_window_has_no_horizontal_scroll(browser, page_file, width):
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {**PHONE, "width": width})
    open_page(browser, page_file)
    assert browser.execute_script("return document.documentElement.scrollWidth") == width


def test_the_first_screen_of_a_phone_says_what_won_and_what_it_took(chromium, study, trial, report_folder):
    """As wide and as high as a phone: the accuracy, the hyperparameters, the lead, and the figures of the cost."""
    values = {"optimizer__type": "adam", "data__batch_size": 8, "optimizer__learning_rate": 0.003516}
    small = study(trial(0, [0.8, 0.95], **values), trial(1, [0.7, 0.9], **{**values, "optimizer__type": "sgd"}))
    page = Page(small, importance_shares(small), draw_plots(small), Gallery(reason="none yet"), plotly_script())
    path = report_folder / "a small report.html"
    path.write_text(render_page(page), encoding="utf-8")
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})
    chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", PHONE)
    open_page(chromium, path)
    hyperparameters = chromium.find_elements(By.CSS_SELECTOR, "#won .values dd")
    assert [place.text for place in hyperparameters] == ["adam", "8", "0.003516"]
    assert len({place.size["height"] for place in hyperparameters}) == 1  # none is broken
    tiles = {place.text.split("\n")[0]: place for place in chromium.find_elements(By.CSS_SELECTOR, "#won .tiles div")}
    lowest = tiles["Total trial time"]
    assert lowest.location["y"] + lowest.size["height"] <= PHONE["height"]


def test_plots_follow_the_width_of_the_window(browser, page_file):
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", PHONE)
    open_page(browser, page_file)
    for place in browser.find_elements(By.CSS_SELECTOR, ".drawing"):
        drawn = place.find_element(By.CSS_SELECTOR, "svg.main-svg")
        assert int(drawn.get_attribute("width")) == pytest.approx(place.size["width"], abs=2)


def brightness(browser, path):
    """The mean of the page's upper left part, 0 to 255."""
    browser.save_screenshot(str(path))
    with Image.open(path) as picture:
        return float(np.asarray(picture.convert("L"))[:300, :200].mean())


def test_dark_mode(browser, report_folder):
    """Emulated as the system's setting, and changed under an open page: text, page and plots."""

    def ink():
        return browser.execute_script(
            "return getComputedStyle(document.querySelector('#plot-history .xtick text')).fill"
        )

    light = brightness(browser, report_folder / "light.png")
    assert light > 220
    assert ink() == "rgb(28, 32, 36)"
    dark = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", dark)
    WebDriverWait(browser, 10).until(lambda _: ink() == "rgb(230, 232, 234)")
    assert brightness(browser, report_folder / "dark.png") < 60


def test_paper_is_white_also_by_night(browser, report_folder):
    """Printed from a dark screen, the plots are drawn in dark ink."""
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    )
    browser.execute_script(
        "window.addEventListener('beforeprint', () => {"
        " window.inkOnPaper = getComputedStyle(document.querySelector('#plot-history .xtick text')).fill; })"
    )
    browser.print_page()
    assert browser.execute_script("return window.inkOnPaper") == "rgb(28, 32, 36)"
