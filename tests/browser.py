"""Pages of the explorer in a real browser."""

from contextlib import contextmanager

from mogul.app.serve import beside
from mogul.app.session import Session
from mogul.opened import open_any

CHANGED = """([selector, before]) => {
  const c = document.querySelector(selector);
  const now = Array.from(c.getContext('2d').getImageData(0, 0, c.width, c.height).data);
  return now.length !== before.length || now.some((v, i) => v !== before[i]);
}"""


@contextmanager
def explorer(model, data=None):
    """Serve a model file; yields the address with its token."""
    with beside(Session(open_any(model, "cpu"), data)) as served:
        yield served.address


@contextmanager
def page_of(browser, address, **options):
    """Open an address; on leaving, fail if a request left this machine or the page had an error."""
    context = browser.new_context(**({"viewport": {"width": 1280, "height": 900}} | options))
    page, asked, errors = context.new_page(), [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if _is_fault(message) else None)
    page.goto(address)
    page.wait_for_selector("#tabs a")
    try:
        yield page
    finally:
        context.close()
    host = address.split("/?")[0]
    assert [url for url in asked if not url.startswith((host, "data:", "blob:"))] == []
    assert errors == []


def _is_fault(message):
    """Whether the console tells of a fault; refusals that the page shows are none."""
    return message.type == "error" and "status of 4" not in message.text


def pixels_of(page, selector):
    """Return the pixels of a canvas, as a list."""
    return page.eval_on_selector(
        selector,
        "c => Array.from(c.getContext('2d').getImageData(0, 0, c.width, c.height).data)",
    )


def wait_for_change(page, selector, before):
    """Wait until the pixels of a canvas are others than `before`."""
    page.wait_for_function(CHANGED, arg=[selector, before])


def wait_until_still(page):
    """Wait until nothing is being loaded."""
    page.wait_for_function("() => !document.querySelector('[aria-busy]')")
