"""Text made safe, and the frame of the page."""

import re

from apr_jax.report import html


def test_text_is_made_safe():
    assert html.escape('<a href="x">\'&') == "&lt;a href=&quot;x&quot;&gt;&#x27;&amp;"
    assert html.breakable("a_b/<c>") == "a_<wbr>b/<wbr>&lt;c&gt;"
    assert "<title>&lt;x&gt;</title>" in html.document("<x>", "")
    assert "<h2>&lt;x&gt;</h2>" in html.section("<x>", "body")


def test_what_is_empty_leaves_no_frame():
    assert html.section("Title", "", "") == ""
    assert html.grid("small", []) == ""


def test_seven_runs_have_colours_of_their_own():
    assert len({html.dot(run) for run in range(7)}) == 7
    assert html.dot(0) == html.dot(7)


def test_contents_lead_to_the_sections():
    body = html.section("Clean images", "x") + html.section("Phase & amplitude?", "y")
    links = re.findall(r'<a href="#([^"]*)">(.*?)</a>', html.contents(body))
    assert links == [
        ("clean-images", "Clean images"),
        ("phase-amplitude", "Phase &amp; amplitude?"),
    ]
    assert re.findall(r'<section id="([^"]*)"', body) == [i for i, _ in links]
    assert html.contents("") == ""


def test_tables_have_scopes_and_a_caption_and_scroll_by_keys():
    rows = [[html.row_head("a"), html.td("1")]]
    table = html.tabulate(
        [html.th("one")], [("Group", rows)], caption="What & why", corner="Name"
    )
    heads = re.findall(r'<th scope="(\w+)"[^>]*>(?:<span>)?(\w+)', table)
    assert heads == [
        ("col", "Name"),
        ("col", "one"),
        ("rowgroup", "Group"),
        ("row", "a"),
    ]
    assert table.count("<th ") == 4
    box = 'role="region" tabindex="0" aria-label="What &amp; why"'
    assert table.startswith(f'<div class="scroll" {box}>')
    assert "<caption><span>What &amp; why</span></caption>" in table
