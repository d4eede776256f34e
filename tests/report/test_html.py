"""Text made safe, and the frame of the page."""

from apr_jax.report import html


def test_text_is_made_safe():
    assert html.escape('<a href="x">\'&') == "&lt;a href=&quot;x&quot;&gt;&#x27;&amp;"
    assert html.breakable("a_b/<c>") == "a_<wbr>b/<wbr>&lt;c&gt;"
    assert "<title>&lt;x&gt;</title>" in html.document("<x>", "")
    assert "<h2>&lt;x&gt;</h2>" in html.section("<x>", "body")


def test_what_is_empty_leaves_no_frame():
    assert html.section("Title", "", "") == ""
    assert html.grid("small", []) == ""


def test_colours_repeat_after_the_last():
    assert html.dot(0) == html.dot(6) != html.dot(1)
    for run in range(6):
        assert html.STYLE.count(f"--run-{run}:") == 2, "once light, once dark"
