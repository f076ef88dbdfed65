"""The explorer over decoders and autoencoders, in a real browser."""

import base64
import re

import numpy as np
import pytest

from browser import explorer, page_of, pixels_of, wait_for_change, wait_until_still
from explored import array, fitted

MAP, DECODED = "canvas.map", '[aria-label="The decoded latents"]'
TOLD = "t => document.querySelectorAll('.facts dd')[1].innerText === t"
PHONE = {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("browser")


@pytest.fixture(scope="module")
def decoder(folder):
    options = "--model decoder --decoder mlp --latents 2 --particles 2 --passes 4 --json"
    path = fitted(folder / "decoder.mogul", f"digits --limit 80 {options}")
    with explorer(path) as address:
        yield address


@pytest.fixture(scope="module")
def vae(folder):
    options = "--model vae --batch-size 40 --passes 40 --latents 4 --prior mixture --components 6"
    path = fitted(folder / "vae.mogul", f"digits --limit 160 {options} --json")
    with explorer(path) as address:
        yield address


@pytest.fixture(scope="module")
def table(folder):
    random = np.random.default_rng(0)
    rows = random.normal(size=(90, 2)) @ random.normal(size=(2, 3))
    path = folder / "table.csv"
    np.savetxt(path, rows, delimiter=",", header="width,height,depth", comments="")
    options = "--model vae --batch-size 40 --passes 2 --latents 2 --json"
    with explorer(fitted(folder / "table.mogul", f"{path} {options}")) as address:
        yield address


def ready(page):
    """Wait until the first place and the first line are decoded."""
    page.locator(".facts").wait_for()
    page.locator(".strip").wait_for()
    wait_until_still(page)


def at(page, x, y):
    """Return a place of the window, by shares of the map's width and height."""
    page.locator(MAP).scroll_into_view_if_needed()
    box = page.locator(MAP).bounding_box()
    return box["x"] + x * box["width"], box["y"] + y * box["height"]


def line_of(page):
    return page.locator("section", has_text="Between two rows").locator("p").nth(1)


def test_pointing_at_the_map_decodes_what_is_there(browser, decoder):
    with page_of(browser, decoder) as page:
        ready(page)
        assert page.locator("#tabs a").first.inner_text() == "Latents"
        before = pixels_of(page, DECODED)
        page.mouse.move(*at(page, 0.3, 0.4))
        wait_for_change(page, DECODED, before)
        assert re.search(r"log p\(z\)\s+-?[\d.]+ nats", page.locator(".facts").inner_text())
        assert "class" in page.locator(".facts").inner_text()
        assert "class:" in page.locator(".legend").inner_text()


def test_a_place_that_was_clicked_comes_back_when_the_mouse_leaves(browser, decoder):
    with page_of(browser, decoder) as page:
        ready(page)
        with page.expect_response("**/decode") as answered:
            page.mouse.move(*at(page, 0.3, 0.4))
        page.mouse.down()
        page.mouse.up()
        x, y = answered.value.json()["latents"]
        kept = f"{x:.2f}, {y:.2f}"
        page.wait_for_function(TOLD, arg=kept)
        page.mouse.move(*at(page, 0.6, 0.7))
        page.wait_for_function(f"t => !({TOLD})(t)", arg=kept)
        page.mouse.move(2, 2)
        page.wait_for_function(TOLD, arg=kept)


def test_dragging_from_one_row_to_another_shows_what_lies_between(browser, vae):
    with page_of(browser, vae) as page:
        ready(page)
        before = line_of(page).inner_text()
        assert page.locator(".strip .tile").count() == 10
        page.mouse.move(*at(page, 0.45, 0.8))
        page.mouse.down()
        page.mouse.move(*at(page, 0.5, 0.5), steps=4)
        page.mouse.move(*at(page, 0.55, 0.15), steps=4)
        page.mouse.up()
        page.wait_for_function(
            "t => ![...document.querySelectorAll('p')].some((p) => p.innerText === t)", arg=before
        )
        line_of(page).wait_for()
        assert re.fullmatch(r"From row \d+ to row \d+\.", line_of(page).inner_text())
        assert page.locator(".strip .tile").count() == 10
        assert page.locator("svg path.line").count() == 1


def test_the_keyboard_is_enough(browser, vae):
    with page_of(browser, vae) as page:
        ready(page)
        before, line = pixels_of(page, DECODED), line_of(page).inner_text()
        page.locator("#tabs a").last.focus()
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "map"
        for _ in range(5):
            page.keyboard.press("Shift+ArrowLeft")
        page.keyboard.press("ArrowUp")
        wait_for_change(page, DECODED, before)
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Line from here"
        page.keyboard.press("Enter")
        page.wait_for_function(
            "t => ![...document.querySelectorAll('p')].some((p) => p.innerText === t)", arg=line
        )
        page.keyboard.press("Tab")
        page.keyboard.press("Tab")
        page.get_by_text("through row").wait_for()
        page.keyboard.press("ArrowDown")  # the plane through the mean
        assert page.locator("select").input_value() == "mean"
        page.get_by_text("through row").wait_for(state="detached")


def test_ellipses_are_on_the_map_or_told_to_be_beyond_it(browser, vae):
    def stretched(by):
        def answer(route):
            found = route.fetch().json()
            outlines = array(found["outlines"]).copy()
            outlines[0] *= by
            data = base64.b64encode(outlines.tobytes()).decode()
            route.fulfill(json=found | {"outlines": found["outlines"] | {"data": data}})

        return answer

    with page_of(browser, vae) as page:
        ready(page)
        assert "ellipses" not in page.locator(".legend ~ .hint").first.inner_text()
        page.route("**/api/latents", stretched(300))
        page.reload()
        page.get_by_text("Beyond the edge of the map: parts of 1 of 6 ellipses").wait_for()


def test_strokes_are_answered_shortly_and_then_as_a_whole(browser, vae):
    with page_of(browser, vae + "#drawing") as page:
        asked = []
        page.on("request", lambda r: asked.append(r.post_data_json) if "inpaint" in r.url else None)
        page.get_by_text("by a whole search").wait_for()
        box = page.locator("canvas.paint").bounding_box()
        page.mouse.move(box["x"] + 0.1 * box["width"], box["y"] + 0.2 * box["height"])
        page.mouse.down()
        page.get_by_text("by a short search").wait_for()
        page.mouse.up()
        page.get_by_text("by a whole search").wait_for()
    assert [a["settled"] for a in asked][-2:] == [False, True]
    assert asked[-2]["start"]["shape"] == [1, 4]  # from the latents of the answer before


def test_a_component_is_drawn_from(browser, vae):
    with page_of(browser, vae) as page:
        ready(page)
        tiles = page.locator(".wall button")
        tiles.nth(5).wait_for()
        assert tiles.count() == 6
        tiles.nth(2).click()
        page.get_by_role("heading", name="Samples from component").wait_for()
        sample = '[aria-label^="Sample 1 from"]'
        before = pixels_of(page, sample)
        page.get_by_role("button", name="Draw again").click()
        wait_for_change(page, sample, before)


def test_samples_of_the_prior_stand_beside_those_of_a_mixture(browser, decoder):
    with page_of(browser, decoder + "#samples") as page:
        first = '[aria-label="Sample 1 from the prior"]'
        page.locator(first).wait_for()
        page.locator('[aria-label="Sample 1 from the mixture"]').wait_for()
        page.get_by_text("as many as BIC asks for").wait_for()
        before = pixels_of(page, first)
        page.get_by_role("button", name="Draw again").click()
        wait_for_change(page, first, before)


def test_a_finger_moves_the_crosshair(browser, decoder):
    with page_of(browser, decoder, viewport=PHONE, has_touch=True) as page:
        ready(page)
        before = pixels_of(page, DECODED)
        page.touchscreen.tap(*at(page, 0.3, 0.6))
        wait_for_change(page, DECODED, before)


@pytest.mark.parametrize("view", ["latents", "samples", "drawing"])
def test_every_view_fits_a_phone_in_the_dark(browser, vae, view):
    with page_of(browser, f"{vae}#{view}", viewport=PHONE, color_scheme="dark") as page:
        page.locator("#main canvas").first.wait_for()
        wait_until_still(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_a_table_is_told_in_numbers(browser, table):
    with page_of(browser, table, viewport=PHONE) as page:
        page.locator(".facts").wait_for()
        wait_until_still(page)
        head = page.locator("table").first.inner_text()
        assert all(name in head for name in ("width", "height", "depth", "decoded", "nearest row"))
        assert page.locator("table").nth(1).locator("thead th").count() == 11
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_what_cannot_be_decoded_is_told(browser, decoder):
    with page_of(browser, decoder) as page:
        ready(page)
        refusal = {"status": 400, "json": {"error": "Not now."}}
        page.route("**/api/latents/decode", lambda route: route.fulfill(**refusal))
        page.mouse.move(*at(page, 0.7, 0.4))
        page.get_by_role("alert").wait_for()
        assert page.get_by_role("alert").inner_text() == "Not now."
