"""Colours of the page: enough contrast, and far enough apart, light and dark."""

import itertools
import re

import numpy as np
import pytest

from apr_jax.report import style

SHEETS = {"light": style.LIGHT, "dark": style.DARK}
RUNS = [f"run-{i}" for i in range(style.RUNS)]
DATA = [*RUNS, "amplitude", "phase"]
# What people without red, and without green cones see, in linear sRGB: Machado et al.,
# "A physiologically-based model for simulation of color vision deficiency", 2009.
EYES = {
    "usual": np.eye(3),
    "no red": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "no green": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
}


def linear(colour):
    value = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def contrast(one, other):
    """WCAG 2.2's ratio of relative luminances."""
    low, high = sorted(linear(c) @ [0.2126, 0.7152, 0.0722] for c in (one, other))
    return (high + 0.05) / (low + 0.05)


def mixed(colour, paper, share):
    """CSS's color-mix in srgb."""
    parts = lambda c: np.array([int(c[i : i + 2], 16) for i in (1, 3, 5)])
    value = share * parts(colour) + (1 - share) * parts(paper)
    return "#" + "".join(f"{round(v):02x}" for v in value)


def oklab(colour, eyes):
    """Ottosson's perceptual space, scaled so that black and white are 100 apart."""
    value = np.maximum(np.array(EYES[eyes]) @ linear(colour), 0)
    lms = np.cbrt(
        np.array(
            [
                [0.4122214708, 0.5363325363, 0.0514459929],
                [0.2119034982, 0.6806995451, 0.1073969566],
                [0.0883024619, 0.2817188376, 0.6299787005],
            ]
        )
        @ value
    )
    return 100 * (
        np.array(
            [
                [0.2104542553, 0.7936177850, -0.0040720468],
                [1.9779984951, -2.4285922050, 0.4505937099],
                [0.0259040371, 0.7827717662, -0.8086757660],
            ]
        )
        @ lms
    )


@pytest.mark.parametrize("scheme", SHEETS)
def test_text_has_a_contrast_of_four_and_a_half(scheme):
    sheet = SHEETS[scheme]
    for text, paper in itertools.product(("ink", "soft", "link"), ("paper", "card")):
        assert contrast(sheet[text], sheet[paper]) >= 4.5, (text, paper)
    for tint in ("good", "bad", *RUNS):
        cell = mixed(sheet[tint], sheet["card"], style.TINT[scheme])
        assert contrast(sheet["ink"], cell) >= 4.5, tint


@pytest.mark.parametrize("scheme", SHEETS)
def test_data_have_a_contrast_of_three(scheme):
    sheet = SHEETS[scheme]
    for data, paper in itertools.product((*DATA, "grey", "bad"), ("paper", "card")):
        assert contrast(sheet[data], sheet[paper]) >= 3.0, (data, paper)


@pytest.mark.parametrize(
    ("eyes", "least"), [("usual", 12), ("no red", 6), ("no green", 6)]
)
@pytest.mark.parametrize("scheme", SHEETS)
def test_runs_amplitude_and_phase_can_be_told_apart(scheme, eyes, least):
    places = {name: oklab(SHEETS[scheme][name], eyes) for name in DATA}
    for one, other in itertools.combinations(DATA, 2):
        assert np.linalg.norm(places[one] - places[other]) >= least, (one, other)


def test_every_colour_that_is_used_is_defined():
    used = set(re.findall(r"var\(--([\w-]+)\)", style.STYLE))
    assert used - {"tint", "v", "of", "share"} <= set(style.LIGHT)
    assert set(style.LIGHT) == set(style.DARK)
    for name in style.LIGHT:
        assert style.STYLE.count(f"--{name}:") == 2, "once light, once dark"
