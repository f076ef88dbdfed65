"""The explorer over a mixture of images, in a real browser."""

import re

import pytest

from browser import explorer, page_of, pixels_of, wait_for_change, wait_until_still
from mogul.cli.main import app

BENT, MEAN, PAINT = "#main section.card canvas", '[aria-label^="In-painted"]', "canvas.paint"
OTHER = "([place, before]) => document.querySelector(place)?.innerText !== before"


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    path = tmp_path_factory.mktemp("explorer") / "digits.mogul"
    arguments = f"fit digits -o {path} --model mfa --components 12 --rank 3 --passes 4"
    app(arguments.split(), standalone_mode=False)
    return path


@pytest.fixture(scope="module")
def address(digits):
    with explorer(digits) as served:
        yield served


def test_a_component_is_chosen_and_bent_by_a_slider(browser, address):
    with page_of(browser, address) as page:
        assert page.title() == "digits.mogul · mogul explorer"
        assert "token" not in page.url  # kept in a cookie, not in what people may copy
        tiles = page.locator(".wall").first.locator("button")
        tiles.nth(11).wait_for()
        assert tiles.count() == 12
        heading = page.locator("section.card h2")
        first = heading.inner_text()
        tiles.nth(3).click()
        page.wait_for_function(
            "t => document.querySelector('section.card h2')?.innerText !== t", arg=first
        )
        assert page.locator("section.card .sliders input").count() == 3
        before = pixels_of(page, BENT)
        page.locator("section.card .sliders input").first.fill("2.5")
        wait_for_change(page, BENT, before)
        page.get_by_role("button", name="Back to the mean").click()
        assert pixels_of(page, BENT) == before
        page.get_by_text("Most responsible for").wait_for()
        assert page.locator("section.card .wall").count() == 2  # neighbours and samples


def test_painting_a_mask_changes_what_is_filled_in(browser, address):
    with page_of(browser, address + "#drawing") as page:
        page.get_by_text("log p(observed part)").wait_for()
        before, mask = pixels_of(page, MEAN), pixels_of(page, PAINT)
        box = page.locator(PAINT).bounding_box()
        page.mouse.move(box["x"] + 0.1 * box["width"], box["y"] + 0.2 * box["height"])
        page.mouse.down()
        page.mouse.move(box["x"] + 0.4 * box["width"], box["y"] + 0.8 * box["height"], steps=6)
        page.mouse.up()
        assert pixels_of(page, PAINT) != mask
        wait_for_change(page, MEAN, before)
        before = pixels_of(page, MEAN)
        page.get_by_role("button", name="none", exact=True).click()
        wait_for_change(page, MEAN, before)
        page.get_by_text("of the training images are less likely").wait_for()


def test_files_are_uploaded_and_bad_ones_refused_with_the_reason(browser, address, tmp_path):
    import numpy as np
    from PIL import Image

    good, bad = tmp_path / "good.png", tmp_path / "<img src=x onerror=alert(1)>.png"
    Image.fromarray(np.tile(np.arange(0, 255, 8, np.uint8), (32, 1))).save(good)
    bad.write_bytes(b"<script>alert(1)</script>")
    with page_of(browser, address + "#drawing") as page:
        page.get_by_text("log p(observed part)").wait_for()
        before = pixels_of(page, PAINT)
        page.locator("input[type=file]").set_input_files(bad)
        page.locator(".error").wait_for()
        assert "give a PNG or JPEG" in page.locator(".error").inner_text()
        assert pixels_of(page, PAINT) == before
        page.locator("input[type=file]").set_input_files(good)
        wait_for_change(page, PAINT, before)
        assert page.locator(".error").count() == 0
        page.get_by_text("was resized from 32 × 32 to 8 × 8 pixels").wait_for()


def test_the_keyboard_is_enough(browser, address):
    with page_of(browser, address) as page:
        page.locator(".wall button").first.wait_for()
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.innerText") == "Skip to the content"
        page.keyboard.press("Tab")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.innerText") == "Draw and in-paint"
        page.keyboard.press("Enter")
        page.get_by_text("log p(observed part)").wait_for()
        page.locator(PAINT).focus()
        before, mean = pixels_of(page, PAINT), pixels_of(page, MEAN)
        for key in ["ArrowLeft", "ArrowLeft", "ArrowUp", "Space"]:
            page.keyboard.press(key)
        assert pixels_of(page, PAINT) != before
        wait_for_change(page, MEAN, mean)
        page.goto(page.url.split("#")[0] + "#components")
        tiles = page.locator(".wall").first.locator("button")
        tiles.first.focus()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Enter")
        page.wait_for_function(
            "document.querySelectorAll('.wall button')[2].ariaPressed === 'true'"
        )


def test_outliers_follow_the_threshold(browser, address):
    with page_of(browser, address + "#outliers") as page:
        status = page.locator("main p[role=status]")
        status.wait_for()
        page.locator(".wall canvas").first.wait_for()
        few = status.inner_text()
        page.locator("input[type=range]").fill("-0.5")
        page.wait_for_function(
            "t => document.querySelector('main p[role=status]').innerText !== t", arg=few
        )
        counts = [int(text.split(" of ")[0]) for text in (few, status.inner_text())]
        assert counts[0] < counts[1] <= 360


@pytest.mark.parametrize("view", ["components", "drawing", "outliers", "samples", "training"])
def test_every_view_fits_a_narrow_screen_in_the_dark(browser, address, view):
    narrow = {"viewport": {"width": 390, "height": 800}, "color_scheme": "dark"}
    with page_of(browser, f"{address}#{view}", **narrow) as page:
        page.wait_for_selector("main h2")
        wait_until_still(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert page.locator(".error").count() == 0
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert max(map(int, re.findall(r"\d+", ground))) < 60


def test_a_server_that_has_ended_is_told_of(browser, digits):
    with explorer(digits) as served:
        context = browser.new_context()
        page = context.new_page()
        page.goto(served + "#samples")
        page.locator(".wall canvas").first.wait_for()
    page.get_by_role("button", name="Draw again").click()
    page.get_by_text("Start `mogul explore` again").wait_for()
    context.close()
