"""The page in a real browser, offline: it draws, answers, fits and asks for nothing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from spectraledge.plots import KINDS

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
N_FIGURES = 2 * len(KINDS)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine")
    with api.sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


class Visit:
    """A page that is open, and everything it said or asked for."""

    def __init__(self, browser: Any, page: Path, width: int, *, phone: bool = False) -> None:
        self.context = browser.new_context(
            viewport={"width": width, "height": 844}, offline=True, has_touch=phone, is_mobile=phone
        )
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(page.as_uri())
        self.page.wait_for_selector("html[data-drawn=yes]", timeout=30_000)

    def __call__(self, script: str, argument: Any = None) -> Any:
        return self.page.evaluate(script, argument)


@pytest.fixture(scope="module")
def wide(browser: Any, page: Path) -> Iterator[Visit]:
    visit = Visit(browser, page, 1280)
    yield visit
    visit.context.close()


@pytest.fixture(scope="module")
def phone(browser: Any, page: Path) -> Iterator[Visit]:
    visit = Visit(browser, page, 390, phone=True)
    yield visit
    visit.context.close()


def test_everything_is_drawn_in_silence_and_without_a_request(wide: Visit, page: Path) -> None:
    assert wide("document.querySelectorAll('.js-plotly-plot').length") == N_FIGURES
    assert wide("[...document.querySelectorAll('.js-plotly-plot')].every(p => p.querySelector('svg.main-svg'))")
    # Every trace with something to show has left marks in its figure.
    assert wide("[...document.querySelectorAll('.js-plotly-plot')].every(p => p.querySelector('path, image'))")
    assert wide.said == []
    assert [url for url in wide.asked if not url.startswith(("data:", "blob:"))] == [page.as_uri()]


@pytest.mark.parametrize("name", ["wide", "phone"])
def test_nothing_is_wider_than_the_screen(name: str, request: pytest.FixtureRequest) -> None:
    visit = request.getfixturevalue(name)
    assert visit("document.documentElement.scrollWidth <= window.innerWidth")
    outside = visit(
        """() => [...document.querySelectorAll('.card, .plot, p, h1, h2, nav, button, figcaption, pre')]
            .filter(e => e.getBoundingClientRect().right > window.innerWidth + 0.5)
            .map(e => e.outerHTML.slice(0, 80))"""
    )
    assert outside == []


@pytest.mark.parametrize("name", ["wide", "phone"])
def test_no_text_of_a_figure_is_cut_off_or_covered(name: str, request: pytest.FixtureRequest) -> None:
    visit = request.getfixturevalue(name)
    troubles = visit(
        """() => [...document.querySelectorAll('.js-plotly-plot')].flatMap(plot => {
            const frame = plot.getBoundingClientRect(), found = [];
            const boxes = [...plot.querySelectorAll('svg text')].filter(t => t.textContent.trim())
                .map(t => [t.textContent, t.getBoundingClientRect()]).filter(([, b]) => b.width > 0);
            for (const [text, b] of boxes)
                if (b.left < frame.left - 1 || b.right > frame.right + 1
                    || b.top < frame.top - 1 || b.bottom > frame.bottom + 1)
                    found.push(`${plot.id}: ${text} is cut off`);
            for (let i = 0; i < boxes.length; i++) for (let j = i + 1; j < boxes.length; j++) {
                const [a, b] = [boxes[i][1], boxes[j][1]];
                // Boxes of text are taller than its letters: a few pixels in common are none of them.
                const w = Math.min(a.right, b.right) - Math.max(a.left, b.left);
                const h = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
                if (w > 2 && h > 4) found.push(`${plot.id}: ${boxes[i][0]} and ${boxes[j][0]} overlap`);
            }
            return found;
        })"""
    )
    assert troubles == []


def test_runs_stand_side_by_side_on_wide_screens_and_below_each_other_on_phones(wide: Visit, phone: Visit) -> None:
    places = "['singular_values-0', 'singular_values-1'].map(i => document.getElementById(i).getBoundingClientRect())"
    left, right = wide(places)
    assert left["y"] == right["y"]
    assert left["right"] <= right["x"]
    upper, lower = phone(places)
    assert upper["bottom"] <= lower["y"]
    assert upper["width"] > 300


def middle(visit: Visit, figure: str) -> tuple[float, float, dict]:
    area = visit.page.locator(f"#{figure} .nsewdrag").first
    area.scroll_into_view_if_needed()
    box = area.bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, box


def x_range(visit: Visit, figure: str) -> list[float]:
    return visit("id => document.getElementById(id)._fullLayout.xaxis.range", figure)


def test_hovering_tells_the_value(wide: Visit) -> None:
    middle(wide, "metrics-0")
    point = wide(
        """() => { const p = document.getElementById('metrics-0'), b = p.getBoundingClientRect();
            const { xaxis, yaxis } = p._fullLayout, t = p.data.find(t => t.name === 'train_accuracy'), i = 20;
            return [b.left + xaxis._offset + xaxis.l2p(t.x[i]), b.top + yaxis._offset + yaxis.l2p(t.y[i])]; }"""
    )
    wide.page.mouse.move(point[0] - 8, point[1] - 8)
    wide.page.mouse.move(*point, steps=4)
    label = wide.page.wait_for_selector("#metrics-0 .hoverlayer .hovertext", timeout=30_000)
    assert "train_accuracy" in label.text_content()
    assert "step 210" in label.text_content()


def test_dragging_zooms_and_the_other_panels_follow(wide: Visit) -> None:
    x, y, box = middle(wide, "singular_values-0")
    before, elsewhere = x_range(wide, "singular_values-0"), x_range(wide, "norms-1")
    positions = x_range(wide, "ratio_profile-0")
    wide.page.mouse.move(x - 60, y)
    wide.page.mouse.down()
    wide.page.mouse.move(x + 60, y, steps=5)
    wide.page.mouse.up()
    wide.page.wait_for_function(
        "low => document.getElementById('norms-1')._fullLayout.xaxis.range[0] > low + 1",
        arg=elsewhere[0],
        timeout=30_000,
    )
    after = x_range(wide, "singular_values-0")
    assert before[0] < after[0] < after[1] < before[1]
    assert after[1] - after[0] == pytest.approx(120 / box["width"] * (before[1] - before[0]), rel=0.05)
    assert x_range(wide, "norms-1") == pytest.approx(after)
    assert x_range(wide, "ratio_profile-0") == positions
    wide.page.mouse.dblclick(x, y)
    wide.page.wait_for_function(
        "low => document.getElementById('norms-1')._fullLayout.xaxis.range[0] < low + 1",
        arg=before[0],
        timeout=30_000,
    )
    assert x_range(wide, "singular_values-0") == pytest.approx(before)
    assert wide.said == []


def test_a_legend_switches_its_lines_in_all_runs(wide: Visit) -> None:
    button = wide.page.locator('#metrics button[data-name="test_accuracy"]')
    shown = """() => ['metrics-0', 'metrics-1'].map(id =>
        document.getElementById(id)._fullData.find(t => t.name === 'test_accuracy').visible)"""
    assert wide(shown) == [True, True]
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    assert wide(shown) == [False, False]
    button.click()
    assert wide(shown) == [True, True]


def test_a_finger_scrolls_the_page_and_buttons_zoom(phone: Visit) -> None:
    assert phone("document.getElementById('metrics-0')._fullLayout.dragmode") is False
    before = x_range(phone, "metrics-0")
    phone.page.locator('#metrics-0 [data-title="Zoom in"]').tap()
    phone.page.wait_for_function(
        "low => document.getElementById('metrics-1')._fullLayout.xaxis.range[0] > low", arg=before[0], timeout=30_000
    )
    assert phone.said == []


def test_turning_the_phone_keeps_the_page_whole(browser: Any, page: Path) -> None:
    visit = Visit(browser, page, 844)
    visit.page.set_viewport_size({"width": 390, "height": 844})
    visit.page.wait_for_function(
        "() => document.getElementById('health-1').querySelector('svg').clientWidth < 390", timeout=30_000
    )
    visit.page.wait_for_function("() => document.documentElement.scrollWidth <= window.innerWidth", timeout=30_000)
    visit.context.close()


def test_zooming_keeps_ticks_on_logarithmic_axes(wide: Visit) -> None:
    ticks = "() => document.getElementById('widths-0')._fullLayout.yaxis._vals.filter(v => v.text).map(v => v.x)"
    for low, high in ((-9, 3), (-0.1, 0.05), (0, 0.3), (0, 0.9)):
        wide("range => Plotly.relayout('widths-0', {'yaxis.range': range})", [low, high])
        wide.page.wait_for_timeout(100)
        assert 2 <= sum(low <= at <= high for at in wide(ticks)) <= 8
