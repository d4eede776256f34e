"""Text made safe, and the frame of the page."""

from apr_jax import markup


def test_text_is_made_safe():
    assert markup.escape('<a href="x">\'&') == "&lt;a href=&quot;x&quot;&gt;&#x27;&amp;"
    assert markup.breakable("a_b/<c>") == "a_<wbr>b/<wbr>&lt;c&gt;"
    assert "<title>&lt;x&gt;</title>" in markup.document("<x>", "")
    assert "<h2>&lt;x&gt;</h2>" in markup.section("<x>", "body")


def test_what_is_empty_leaves_no_frame():
    assert markup.section("Title", "", "") == ""
    assert markup.grid("small", []) == ""


def test_colours_repeat_after_the_last():
    assert markup.dot(0) == markup.dot(6) != markup.dot(1)
    for run in range(6):
        assert markup.STYLE.count(f"--run-{run}:") == 2, "once light, once dark"
