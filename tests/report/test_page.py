"""The page in a real browser: offline, whole, playable by keyboard, readable."""

import json
import shutil
from itertools import pairwise

import pytest

pytest.importorskip("playwright")
from playwright.sync_api import sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")

CONTRAST = """
() => {
  const channel = v => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4 };
  const light = c => 0.2126 * channel(c[0]) + 0.7152 * channel(c[1]) + 0.0722 * channel(c[2]);
  const parse = text => text.match(/[\\d.]+/g).map(Number);
  const behind = e => {
    for (; e; e = e.parentElement) {
      const c = parse(getComputedStyle(e).backgroundColor);
      if (c.length < 4 || c[3] > 0) return c;
    }
    return [255, 255, 255];
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node; node = walker.nextNode();) {
    const e = node.parentElement;
    if (!node.textContent.trim() || ["SCRIPT", "STYLE"].includes(e.tagName)) continue;
    const [a, b] = [light(parse(getComputedStyle(e).color)), light(behind(e))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) found.push(node.textContent.trim().slice(0, 40) + " " + ratio.toFixed(2));
  }
  return found;
}
"""


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as player:
        opened = player.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(params=[(1280, 900), (390, 844)], ids=["desktop", "phone"])
def page(request, browser, report):
    width, height = request.param
    context = browser.new_context(viewport={"width": width, "height": height}, offline=True)
    opened = context.new_page()
    opened.set_default_timeout(180_000)  # ms; of machines that do other work as well
    opened.complaints = []
    opened.on("console", lambda message: opened.complaints.append(message.text))
    opened.on("pageerror", lambda error: opened.complaints.append(str(error)))
    opened.asked = []
    opened.on("request", lambda request: opened.asked.append(request.url))
    opened.goto((report / "index.html").as_uri())
    opened.wait_for_function("document.querySelectorAll('[data-frame]').length > 0")
    yield opened
    context.close()


def test_it_loads_offline_without_a_complaint(page):
    assert page.complaints == []
    assert [url for url in page.asked if not url.startswith(("file:", "data:"))] == []


def test_every_figure_is_there_and_has_words_for_who_cannot_see_it(page, report):
    pictures = page.evaluate("[...document.images].map(i => [i.naturalWidth, i.alt.length])")
    assert len(pictures) == len(list((report / "figures").glob("*.svg")))
    assert all(width > 0 and words > 20 for width, words in pictures)
    anchors = page.evaluate(
        "[...document.querySelectorAll('nav a')].map(a => !!document.querySelector(a.hash))"
    )
    assert len(anchors) >= 8
    assert all(anchors)


def test_it_fits_its_width(page):
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_text_has_contrast(page):
    assert page.evaluate(CONTRAST) == []


def test_the_contrast_check_can_fail(page):
    page.evaluate("document.querySelector('h1').style.color = '#aaa'")
    assert len(page.evaluate(CONTRAST)) == 1


def test_headings_skip_no_level(page):
    levels = page.evaluate("[...document.querySelectorAll('h1,h2,h3,h4')].map(h => +h.tagName[1])")
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_on_paper_the_gallery_keeps_its_legend_and_loses_its_buttons(page):
    card = page.locator(".case").first
    assert card.locator(".play").is_visible()
    page.emulate_media(media="print")
    assert card.get_by_text("predicted").is_visible()
    assert card.get_by_text("reference").is_visible()
    assert card.locator(".swatch").first.is_visible()
    for control in ("button", "input"):
        assert not any(found.is_visible() for found in card.locator(control).all())


def test_cines_play_and_stop(page):
    card = page.locator(".case").first
    before = card.get_attribute("data-frame")
    card.locator(".play").press("Enter")
    page.wait_for_function(
        "before => document.querySelector('.case').dataset.frame !== before", arg=before
    )
    assert card.locator(".play").inner_text() == "Pause"
    card.locator(".play").press("Enter")
    assert card.locator(".play").get_attribute("aria-pressed") == "false"


def test_contours_toggle_and_slices_move_by_keyboard(page):
    card = page.locator(".case").first
    pixels = "() => document.querySelector('.case canvas').toDataURL()"
    shown = page.evaluate(pixels)
    card.locator(".reference").press("Space")
    without = page.evaluate(pixels)
    assert without != shown
    card.locator(".reference").press("Space")
    assert page.evaluate(pixels) == shown
    before = card.get_attribute("data-frame")
    card.locator(".slice").press("ArrowRight")
    assert card.get_attribute("data-frame") != before
    assert "slice Dice" in card.locator(".state").inner_text()


def test_all_that_acts_is_reached_by_tab(page):
    wanted = page.evaluate(
        "[...document.querySelectorAll('a[href], button, input:not(:disabled), [tabindex=\"0\"]')].length"
    )
    page.evaluate("document.body.focus()")
    reached = set()
    for _ in range(wanted):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate("[...document.querySelectorAll('*')].indexOf(document.activeElement)")
        )
    assert len(reached) == wanted


def test_the_script_data_cannot_end_the_script(report):
    text = (report / "index.html").read_text()
    start = text.index("const loops = ") + len("const loops = ")
    data, _ = json.JSONDecoder().raw_decode(text[start:])
    assert {"phases", "sheet", "slices"} <= set(data[0])
    assert "<" not in text[start : text.index(";\n", start)]
