"""The report in a real browser, without a network: figures are drawn, nothing spills over, light and dark and paper."""

import re

import pytest
from PIL import Image

from chaffinch.jobs.pages.theme import DARK, LIGHT

DARK_SCREEN = "--blink-settings=preferredColorScheme=0"


def test_every_figure_is_drawn(decided, browse, parse):
    page = browse(decided.output / "report.html", "--dump-dom")
    assert 'data-drawn="yes"' in page
    charts = parse(decided.page).find("div", "chart")
    assert len(charts) == 4 + len(decided.summary["filters"])
    for chart in charts:
        _, _, rest = page.partition(f'id="{chart.attributes["id"]}"')
        assert "main-svg" in rest[:3000], chart.attributes["id"]


@pytest.mark.parametrize("policy", [True, False], ids=["as it is", "without its policy"])
def test_what_a_pool_holds_does_not_run(hostile, browse, probe, policy):
    file = hostile.output / "report.html" if policy else probe(hostile.page, "0")
    page = browse(file, "--dump-dom")
    assert 'data-drawn="yes"' in page
    assert "data-owned" not in page


@pytest.mark.parametrize("width", [360, 768, 1440])
def test_nothing_is_wider_than_the_screen(decided, browse, probe, tmp_path, width):
    measure = """
        const page = document.documentElement;
        const waiting = setInterval(() => {
            if (page.dataset.drawn !== "yes") return;
            clearInterval(waiting);
            const all = [...document.querySelectorAll("section > *, .panel, .chart, .tiles, h3, pre")];
            const loose = all.filter((one) => !one.closest(".gallery, .scroll"));
            const right = Math.max(...loose.map((one) => one.getBoundingClientRect().right));
            parent.postMessage([innerWidth, page.scrollWidth, Math.ceil(right)].join(" "), "*");
        }, 50);
    """
    # A window has a least width; a frame can be as narrow as a phone.
    listen = "addEventListener('message', (event) => { document.documentElement.dataset.widths = event.data; });"
    frame = f'<iframe src="{probe(decided.page, measure)}" style="width:{width}px;height:900px;border:0"></iframe>'
    outer = tmp_path / "frame.html"
    outer.write_text(f"<!DOCTYPE html><script>{listen}</script>{frame}")
    page = browse(outer, "--window-size=1600,1000", "--dump-dom")
    inner, scroll, right = map(int, re.search(r'data-widths="(\d+) (\d+) (\d+)"', page).groups())
    assert inner == width
    assert scroll <= inner
    assert right <= inner


@pytest.mark.parametrize(("flags", "colours"), [((), LIGHT), ((DARK_SCREEN,), DARK)], ids=["light", "dark"])
def test_it_follows_the_screen_in_light_and_dark(decided, browse, tmp_path, flags, colours):
    shot = tmp_path / "shot.png"
    browse(decided.output / "report.html", "--window-size=1280,1800", f"--screenshot={shot}", *flags)
    with Image.open(shot) as picture:
        assert picture.convert("RGB").getpixel((2, 2)) == rgb(colours["page"])
        seen = {colour for _, colour in picture.convert("RGB").getcolors(1 << 24)}
    # The page's own colours, and bars of figures in those of the same theme.
    for role in ("surface", "ink", "keep", "drop", "accent"):
        assert rgb(colours[role]) in seen, role
    other = LIGHT if colours is DARK else DARK
    assert rgb(other["page"]) not in seen


def rgb(colour):
    return tuple(bytes.fromhex(colour.removeprefix("#")))


def test_it_prints_in_light_even_from_a_dark_screen(decided, browse, probe, tmp_path):
    paper = tmp_path / "report.pdf"
    browse(decided.output / "report.html", "--no-pdf-header-footer", f"--print-to-pdf={paper}", DARK_SCREEN)
    data = paper.read_bytes()
    assert data.startswith(b"%PDF")
    pages = max(map(int, re.findall(rb"/Count (\d+)", data)))
    assert 5 <= pages <= 40
    # What the figures look like when paper is asked for: the script listens to the same event.
    script = """
        dispatchEvent(new Event("beforeprint"));
        const widths = [...document.querySelectorAll(".chart .main-svg")].map((one) => one.getAttribute("width"));
        document.documentElement.dataset.paper = [...new Set(widths)].join(" ");
    """
    page = browse(probe(decided.page, script), "--dump-dom")
    assert 'data-paper="680"' in page
