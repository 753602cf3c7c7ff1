"""Makes the pictures of README and tutorial from the demo's results: ``python docs/make_pictures.py demo``.

The images are synthetic: no picture of a person stands in the documentation. Needs Chromium with its driver.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

DOCS = Path(__file__).resolve().parent
PICTURES = DOCS / "pictures"
_SCANS = ("scan_0000", "scan_0001", "scan_0003", "scan_0004")
_MARGIN = 8  #: pixels between two images
_SCALE = 2


def draw_images_and_masks(demo: Path) -> None:
    """Four test images above their masks."""
    rows = []
    for kind in ("inputs", "targets"):
        images = [Image.open(demo / "data" / "test" / kind / f"{name}.png").convert("L") for name in _SCANS]
        large = [
            image.resize((image.width * _SCALE, image.height * _SCALE), Image.Resampling.NEAREST) for image in images
        ]
        padded = [np.pad(np.asarray(image), _MARGIN // 2, constant_values=255) for image in large]
        rows.append(np.hstack(padded))
    Image.fromarray(np.vstack(rows)).save(PICTURES / "images_and_masks.png", optimize=True)


def photograph_report(demo: Path) -> None:
    """The top of the demo's report, and the plot of all trials' curves in it."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or "chromium"
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1000,985", "--hide-scrollbars"):
        options.add_argument(flag)
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        browser.get((demo / "report" / "report.html").resolve().as_uri())
        WebDriverWait(browser, 30).until(lambda page: page.find_elements(By.CSS_SELECTOR, "#plot-curves svg.main-svg"))
        browser.save_screenshot(str(DOCS / "demo_report.png"))
        browser.find_element(By.ID, "plot-curves").screenshot(str(PICTURES / "learning_curves.png"))
    finally:
        browser.quit()


if __name__ == "__main__":
    PICTURES.mkdir(exist_ok=True)
    draw_images_and_masks(Path(sys.argv[1]))
    photograph_report(Path(sys.argv[1]))
    shutil.copyfile(Path(sys.argv[1], "gallery.png"), DOCS / "demo_gallery.png")
