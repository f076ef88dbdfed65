"""The explorer over tables and density networks, in a real browser."""

import csv

import numpy as np
import pytest
from sklearn.datasets import load_iris

from browser import explorer, page_of, wait_until_still
from explored import fitted

PAYLOAD = "<img src=x onerror=alert(1)>"
NAMES = ["sepal length", PAYLOAD, "petal length", "petal width"]
CURVE = "path.density"
OTHER = "([place, before]) => document.querySelector(place)?.getAttribute('d') !== before"


def write(path, rows, names):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([names, *rows.tolist()])
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("explorer")


@pytest.fixture(scope="module")
def address(folder):
    data = write(folder / "iris.csv", load_iris().data, NAMES)
    command = f"{data} --model gmm --components 3 --passes 10 --json"
    with explorer(fitted(folder / "iris.mogul", command)) as served:
        yield served


@pytest.fixture(scope="module")
def wide(folder):
    random = np.random.default_rng(0)
    rows = random.normal(size=(150, 3)) @ random.normal(size=(3, 60))
    names = [f"a column with quite a long name, number {i}" for i in range(60)]
    data = write(folder / "wide.csv", rows + 0.1 * random.normal(size=rows.shape), names)
    command = f"{data} --model mfa --rank 3 --components 2 --passes 5 --json"
    with explorer(fitted(folder / "wide.mogul", command)) as served:
        yield served


@pytest.fixture(scope="module")
def network(folder):
    random = np.random.default_rng(0)
    x = random.uniform(-1, 1, (200, 2))
    rows = np.column_stack([x, x[:, 0] + 0.1 * random.normal(size=200), x.sum(1)])
    data = write(folder / "rows.csv", rows, ["a", PAYLOAD.replace(" ", ""), "y", "z"])
    command = f"{data} --model mdn --target y,z --hidden 8 --components 2 --passes 5 --json"
    with explorer(fitted(folder / "network.mogul", command)) as served:
        yield served


def path_of(page, selector=CURVE):
    page.wait_for_selector(selector)
    return page.locator(selector).first.get_attribute("d")


def wait_for_other_path(page, before, selector=CURVE):
    page.wait_for_function(OTHER, arg=[selector, before])


def fits(page):
    return page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_names_from_files_stay_text(browser, address):
    with page_of(browser, address) as page:
        page.on("dialog", lambda dialog: pytest.fail(f"a name ran as a script: {dialog.message}"))
        for view in ("pairs", "conditional", "rows"):
            page.evaluate("view => { location.hash = view; }", view)
            page.get_by_text(PAYLOAD).first.wait_for(state="attached")
            assert page.locator("#main img").count() == 0


def test_a_slider_moves_the_conditional_density(browser, address):
    with page_of(browser, address + "#conditional") as page:
        before = path_of(page)
        page.get_by_label("petal length", exact=True).fill("6")
        wait_for_other_path(page, before)
        assert page.get_by_label("fix petal length").is_checked()
        before = path_of(page)
        page.get_by_label("petal length", exact=True).press("ArrowLeft")
        wait_for_other_path(page, before)
        assert page.locator("path.beside").count() == 1
        page.get_by_label("and at", exact=True).select_option("1")
        page.wait_for_selector("path.contour")
        before = path_of(page, "path.contour")
        page.get_by_label("zoom in").check()
        wait_for_other_path(page, before, "path.contour")


def test_values_far_from_the_data_are_told_in_words(browser, address):
    with page_of(browser, address + "#conditional") as page:
        page.get_by_text("Usual: ").wait_for()
        field = page.get_by_label("sepal length, exact value")
        for value, said in (("25", "Far from the data: none of 150"), ("7.8", "Rare: ")):
            field.fill(value)
            field.press("Enter")
            page.get_by_text(said).wait_for()
        page.get_by_label("fix sepal length").uncheck()
        page.locator(".far").wait_for(state="hidden")


def test_what_a_box_says_is_what_is_used(browser, address):
    with page_of(browser, address + "#conditional") as page:
        path_of(page)
        with page.expect_request(
            lambda asked: '"columns":[0,3]' in (asked.post_data or "")
        ) as asked:
            page.get_by_label("fix petal width").check()
        said = page.get_by_label("petal width, exact value").input_value()
        assert repr(asked.value.post_data_json["values"][-1]) == said
        field = page.get_by_label("petal length, exact value")
        field.fill("1.23456789012345")
        with page.expect_request(lambda asked: "1.23456789012345" in (asked.post_data or "")):
            field.press("Enter")
        page.get_by_label("sepal length", exact=True).press("ArrowRight")  # which asks again
        assert field.input_value() == "1.23456789012345"
        assert field.evaluate("f => f.scrollWidth <= f.clientWidth")


def test_an_answer_leaves_what_is_being_typed(browser, address):
    with page_of(browser, address + "#conditional") as page:
        before, held = path_of(page), []
        page.route("**/api/conditional", lambda route: held.append(route))
        with page.expect_request("**/api/conditional"):
            page.get_by_label("fix petal width").check()
        field = page.get_by_label("petal length, exact value")
        field.fill("1.25")
        held.pop().continue_()
        wait_for_other_path(page, before)
        assert field.input_value() == "1.25"
        field.press("Enter")
        assert page.get_by_label("fix petal length").is_checked()


FORMATS = """async () => {
  const { exact, percent, readable, rounded, spread, tick } = await import("/static/numbers.js");
  return {
    exact: [5.1, 0.10000000149011612, 1234567.875, 30125730.221093394, 9.65e-5, 1e21, 0, -2].map(exact),
    back: [5.1, 1234567.875, 30125730.221093394, 9.65e-5, 1e21].every((v) => +exact(v) === v),
    percent: [0, 1e-7, 0.000346, 0.0345, 1].map(percent),
    readable: [[4.1684, 0.88], [1234.49963, 0.00923], [9.872e-5, 1e-5], [2.5e12, 1e9]].map((v) => readable(...v)),
    none: [readable(null), readable(NaN), percent(null)],
    spread: spread(4.1684, 0.88),
    rounded: [rounded(2.85173, 2.4), rounded(0.00123456, 1e9), rounded(29949396.4, 5e6), rounded(0, 1)],
    tick: [[0.5, 0.5], [1.2e-4, 2e-5], [1e-4, 2e-5], [3e7, 5e6], [30000, 1e4]].map((v) => tick(...v)),
  };
}"""  # fmt: skip  # ruff: ignore[line-too-long]


def test_numbers_have_one_format(browser, address):
    with page_of(browser, address + "#rows") as page:
        said = page.evaluate(FORMATS)
    assert said == {
        "exact": ["5.1", "0.1", "1234567.875", "30125730.221093394", "9.65e-5", "1e21", "0", "-2"],
        "back": True,
        "percent": ["0.0 %", "< 0.001 %", "0.035 %", "3.5 %", "100.0 %"],
        "readable": ["4.168", "1,234.49963", "9.872e-5", "2.500e12"],
        "none": ["–", "–", "–"],
        "spread": "4.168 ± 0.880",
        "rounded": [2.852, 0.001235, 29949396, 0],
        "tick": ["0.5", "1.2e-4", "1.0e-4", "3.0e7", "30,000"],
    }


def test_labels_of_pairs_do_not_overlap(browser, address, wide):
    overlapping = """() => {
      const all = [...document.querySelectorAll('.plot svg text')].map((t) => t.getBoundingClientRect());
      const meet = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
      return all.flatMap((a, i) => all.slice(i + 1).filter((b) => meet(a, b))).length;
    }"""  # ruff: ignore[line-too-long]
    for at in (address, wide):
        for width in (390, 1280):
            viewport = {"width": width, "height": 844}
            with page_of(browser, at + "#pairs", viewport=viewport) as page:
                page.wait_for_selector(CURVE)
                assert page.locator(".plot svg text").count() > 10
                assert page.evaluate(overlapping) == 0, width


def test_what_cannot_be_conditioned_on_is_told(browser, address):
    with page_of(browser, address + "#conditional") as page:
        path_of(page)
        error = page.locator(".error")
        page.get_by_label("fix sepal length").uncheck()
        page.get_by_text("0.00 nats").wait_for()  # nothing is fixed
        assert error.count() == 0
        for name in NAMES:
            page.get_by_label(f"fix {name}").check()
        error.get_by_text("leave at least one free").wait_for()
        page.get_by_label("fix petal width").uncheck()
        error.wait_for(state="detached")
        field = page.get_by_label("petal length, exact value")
        field.fill("wide")
        field.press("Enter")
        error.get_by_text("“wide” is no number").wait_for()
        assert field.get_attribute("aria-invalid") == "true"
        before = path_of(page)
        field.fill("2.5")
        field.press("Enter")
        wait_for_other_path(page, before)
        assert error.count() == 0


def test_a_point_is_picked_by_keyboard_and_by_click(browser, address):
    with page_of(browser, address + "#pairs") as page:
        field = page.get_by_label("Row number")
        field.fill("100")
        field.press("Enter")
        page.get_by_text("likelier than").wait_for()
        assert page.locator("circle.picked").count() == 6  # pairs of four columns
        assert "3.3" in page.locator(".aside dl").last.inner_text()  # of row 100
        page.get_by_role("button", name="Next row").press("Enter")
        page.wait_for_function(
            "() => document.querySelector('.aside dl:last-of-type').innerText.includes('2.7')"
        )
        field.fill("150")
        field.press("Enter")
        page.locator(".error").get_by_text("rows 0 to 149").wait_for()
        ring = page.locator("circle.picked").first.bounding_box()
        field.fill("3")
        field.press("Enter")
        page.locator(".error").wait_for(state="detached")
        page.mouse.click(ring["x"] + ring["width"] / 2, ring["y"] + ring["height"] / 2)
        page.wait_for_function(
            "() => document.querySelector('.aside dl:last-of-type').innerText.includes('2.7')"
        )


def test_a_component_is_shown_everywhere(browser, address):
    with page_of(browser, address + "#pairs") as page:
        button = page.get_by_role("button", name="component 1")
        button.press("Enter")
        page.wait_for_selector("path.ellipse.on")
        assert page.locator("path.ellipse.on").count() == 12  # at two levels in six panels
        assert button.get_attribute("aria-pressed") == "true"
        button.press("Enter")
        page.wait_for_selector("path.ellipse.on", state="detached")


def test_columns_are_chosen(browser, wide):
    with page_of(browser, wide + "#pairs") as page:
        page.get_by_text("Columns: 4 of 60").click()
        page.get_by_role("searchbox").fill("number 5")
        boxes = page.locator(".boxes label:visible input")
        assert boxes.count() == 11  # 5 and 50 to 59
        for i in (0, 9):
            if not boxes.nth(i).is_checked():
                boxes.nth(i).check()
        page.get_by_text("Columns: 6 of 60").wait_for()
        assert page.locator(".boxes input:not(:checked):not(:disabled)").count() == 0


def test_a_row_is_completed(browser, address):
    with page_of(browser, address + "#rows") as page:
        page.get_by_text("likelier than").wait_for()
        page.get_by_role("button", name="Clear petal width").press("Enter")
        said = page.locator(".entry.missing .says")
        said.get_by_text("90 %").wait_for()
        assert said.count() == 1
        draws = said.locator(".soft").inner_text()
        page.get_by_role("button", name="Draw again").click()
        page.wait_for_function(
            "t => document.querySelector('.missing .says .soft').innerText !== t", arg=draws
        )
        page.get_by_label("petal length", exact=True).fill("long")
        page.locator(".error").get_by_text("“long” is no number").wait_for()
        page.get_by_label("petal length", exact=True).fill("")
        page.wait_for_function("() => document.querySelectorAll('.entry.missing').length === 2")
        assert page.locator(".error").count() == 0
        page.get_by_role("button", name="Next row").click()
        page.get_by_text("likelier than").wait_for()
        assert page.get_by_label("petal width", exact=True).input_value() == "0.2"


def test_a_prediction_moves_with_its_inputs(browser, network):
    with page_of(browser, network + "#predicted") as page:
        before, fan = path_of(page), path_of(page, "path.quantile")
        page.get_by_label("a", exact=True).fill("0.9")
        wait_for_other_path(page, before)
        page.get_by_label("Along", exact=True).select_option("1")
        wait_for_other_path(page, fan, "path.quantile")
        field = page.get_by_label("Inputs of row")
        field.fill("7")
        field.press("Enter")
        page.wait_for_selector("line.truth", state="attached")  # a vertical line has no width
        page.get_by_label("and at", exact=True).select_option("1")
        page.wait_for_selector("circle.truth")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["address", "wide", "network"])
def test_nothing_overflows_a_narrow_screen(browser, request, name, scheme):
    at = request.getfixturevalue(name)
    phone = {"viewport": {"width": 390, "height": 844}, "color_scheme": scheme}
    views = ["predicted"] if name == "network" else ["pairs", "conditional", "rows"]
    for view in views:
        with page_of(browser, f"{at}#{view}", **phone) as page:
            page.wait_for_selector("#main h2")
            page.wait_for_selector(CURVE if view != "rows" else ".bars li")
            wait_until_still(page)
            assert fits(page), view
