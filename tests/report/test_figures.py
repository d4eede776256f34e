"""Figures: what they draw, in colours of the page, as text where it is text."""

import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from apr_jax.metrics import calibration
from apr_jax.report import figures
from apr_jax.runs import curves
from apr_jax.runs.records import Record

SVG = "{http://www.w3.org/2000/svg}"


def parse(svg):
    """A figure with its title, or an SVG alone, as a tree."""
    return ElementTree.fromstring(svg.replace("<svg", f'<svg xmlns="{SVG[1:-1]}"', 1))


def texts(svg):
    return [
        "".join(element.itertext()).strip() for element in parse(svg).iter(f"{SVG}text")
    ]


def row(step, **changes):
    fields = {
        "step": step,
        "epoch": step / 10,
        "loss": 2.0 / step,
        "accuracy": 1 - 1 / step,
        "learning_rate": 0.1 if step < 50 else 0.01,
        "images_per_second": 1e4,
        "time": 1.7e9 + step,
    }
    return curves.CurveRow(**(fields | changes))


def record(value, low, high):
    return Record(
        job="evaluate.clean", data="digits", split="test", metric="accuracy",
        value=value, unit="fraction", n=1000, step=1, config_hash="c", code_version="v",
        seed=0, device="cpu", time="2026-01-01T00:00:00+00:00", low=low, high=high,
    )  # fmt: skip


@pytest.fixture(scope="module")
def diagram():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.3, 1, 500)
    return calibration.reliability(confidence, rng.uniform(size=500) < 0.8, bins=10)


def every_figure(diagram):
    rows = [row(step) for step in range(1, 100)]
    return [
        figures.curves({"a & b": rows, "c": rows[::2], "none": []}, "loss"),
        figures.curves({"a & b": rows}, "accuracy"),
        figures.reliability(diagram, run=1, title="<run>, test"),
        figures.confusion(np.array([[8, 2], [0, 5]]), ["cat", "dog"], run=7, title="t"),
    ]


def test_svg_takes_its_colours_from_the_page(diagram):
    for svg in every_figure(diagram):
        element = next(parse(svg).iter(f"{SVG}svg"))
        assert element.get("role") == "img"
        assert element.get("aria-label")
        assert element.get("viewBox")
        assert element.get("width") is None
        assert "#0102" not in svg
        assert "#0103" not in svg
        assert "var(--run-" in svg
        assert svg.startswith("<figure>")
        # White or black would vanish on one of the two pages.
        assert not re.search(r"(fill|stroke): #(ffffff|000000)", svg)


def test_svg_ids_are_unique_on_a_page(diagram):
    ids = [
        element.get("id")
        for svg in every_figure(diagram)
        for element in parse(svg).iter()
        if element.get("id")
    ]
    assert len(ids) == len(set(ids))
    for svg in every_figure(diagram):
        own = {element.get("id") for element in parse(svg).iter()}
        assert set(re.findall(r"url\(#([^)]*)\)", svg)) <= own


def test_svg_is_the_same_every_time(diagram):
    assert every_figure(diagram) == every_figure(diagram)


def line_points(svg, run):
    """Numbers of points of the lines in a run's colour."""
    paths = [
        element.get("d")
        for element in parse(svg).iter(f"{SVG}path")
        if f"stroke: var(--run-{run})" in (element.get("style") or "")
    ]
    return [len(re.findall("[ML]", path)) for path in paths]


def test_each_run_has_its_line_and_keeps_its_colour():
    # Random values, as lines that are straight are simplified.
    rng = np.random.default_rng(0)
    rows = [row(step, loss=float(rng.uniform(0, 3))) for step in range(1, 51)]
    svg = figures.curves({"a": rows, "none": [], "c": rows[:20]}, "loss")
    assert line_points(svg, 0) == [50]
    assert line_points(svg, 1) == []
    assert line_points(svg, 2) == [20]
    assert parse(svg).findtext("figcaption") == "Training loss"


def test_extra_scalars_are_dashed_beside_their_kind():
    rows = [row(step, extra={"test_accuracy": step / 200}) for step in range(1, 9)]
    assert len(line_points(figures.curves({"a": rows}, "accuracy"), 0)) == 2
    assert len(line_points(figures.curves({"a": rows}, "loss"), 0)) == 1


def test_gaps_and_single_points_are_drawn():
    rows = [row(1), row(2, loss=float("nan")), row(3)]
    assert parse(figures.curves({"a": rows}, "loss")) is not None
    assert parse(figures.curves({"a": rows[:1]}, "learning_rate")) is not None
    with pytest.raises(
        ValueError, match=r"unknown quantity 'los'; choose from.*'accuracy'"
    ):
        figures.curves({"a": rows}, "los")


def test_long_curves_become_means_of_neighbours(rng):
    x, y = np.arange(3000.0), rng.normal(size=3000)
    fewer_x, fewer_y = figures._averaged(x, y)
    assert len(fewer_x) == 300
    np.testing.assert_allclose(fewer_y, y.reshape(300, 10).mean(axis=1))
    np.testing.assert_allclose(fewer_x, x.reshape(300, 10).mean(axis=1))


def test_a_schedule_of_steps_keeps_its_corners():
    y = np.repeat([0.1, 0.02, 0.004], 1000)
    x, kept = figures._thin(np.arange(3000.0), y)
    assert len(x) < 20
    np.testing.assert_allclose(np.interp(np.arange(0, 3000, 7), x, kept)[20:100], 0.1)
    assert {0.1, 0.02, 0.004} == set(kept)


def test_forest_places_values_on_one_scale():
    rows = [(0, "a <b>", record(0.90, 0.88, 0.92)), (1, "c", record(0.50, 0.46, 0.54))]
    found = figures.forest([("Accuracy, digits", rows)])
    assert "a &lt;b&gt;" in found
    assert "90.0 %" in found
    ticks = {
        float(value): float(at)
        for at, value in re.findall(r'left:([\d.]+)%">([\d.]+)&nbsp;%', found)
    }
    assert len(ticks) >= 3
    slope, offset = np.polyfit(list(ticks), list(ticks.values()), 1)
    dots = [float(at) for at in re.findall(r'<u style="left:([\d.]+)%', found)]
    np.testing.assert_allclose(dots, slope * np.array([90, 50]) + offset, atol=0.05)
    bars = re.findall(r'<b style="left:([\d.]+)%;width:([\d.]+)%', found)
    ends = [(float(left), float(left) + float(width)) for left, width in bars]
    expected = slope * np.array([[88, 92], [46, 54]]) + offset
    np.testing.assert_allclose(ends, expected, atol=0.05)


def test_forest_without_intervals_has_dots_alone():
    found = figures.forest([("t", [(0, "a", record(1.0, None, None))])])
    assert "width:0.00%" in found


def test_reliability_says_its_error(diagram, rng):
    filled = diagram.count > 0
    gap = np.abs(diagram.accuracy - diagram.confidence)[filled]
    error = 100 * np.sum(diagram.count[filled] * gap) / 500
    drawn = parse(figures.reliability(diagram, run=0, title="t"))
    assert drawn.findtext("figcaption") == f"t: ECE {error:.1f} %"


def test_confusion_shows_percent_of_rows():
    counts = np.array([[8, 2, 0], [0, 5, 0], [1, 0, 199]])
    shown = texts(figures.confusion(counts, ["cat", "dog", "ox"], run=0, title="t"))
    assert sorted(t for t in shown if t.isdigit()) == ["100", "100", "20", "80"]
    assert {"cat", "dog", "ox", "Prediction", "Label"} <= set(shown)
    long = figures.confusion(counts, ["<cat>", "d" * 14, "ox"], run=0, title="&")
    assert {"<cat>", "d" * 12 + "…"} <= set(texts(long))
    assert parse(long).findtext("figcaption") == "&"


def test_confusion_tints_hits_and_mistakes():
    counts = np.array([[80, 20], [10, 90]])
    svg = figures.confusion(counts, ["a", "b"], run=2, title="t")
    tints = [
        (e.get("fill"), float(e.get("style").removeprefix("--v:")))
        for e in parse(svg).iter(f"{SVG}rect")
        if e.get("fill")
    ]
    hit, miss = "var(--run-2)", "var(--bad)"
    assert [tint for tint, _ in tints] == [hit, miss, miss, hit]
    expected = [0.8, 1.0, 0.5, 0.9]
    np.testing.assert_allclose([x for _, x in tints], expected, atol=0.006)
