"""The sheet of examples: spectra against an explicit sum, pictures bit by bit."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from apr_jax.report import examples
from apr_jax.runs.examples import Examples, read_examples, write_examples
from apr_jax.train import examples as train_examples
from tests import toy


def images(rng, count=3, size=8, channels=3):
    return rng.integers(0, 256, (count, size, size, channels), dtype=np.uint8)


def recombined(amplitude_from, phase_from):
    axes = (-3, -2, -1)
    a, p = (np.fft.fftn(x / 255.0, axes=axes) for x in (amplitude_from, phase_from))
    return np.fft.ifftn(np.abs(a) * np.exp(1j * np.angle(p)), axes=axes).real


@pytest.mark.parametrize(("height", "width"), [(6, 6), (5, 7)])
def test_spectra_match_an_explicit_sum(rng, height, width):
    x = rng.uniform(size=(1, height, width, 3))
    amplitude, phase = examples.amplitude_phase(x)
    rows, columns = np.arange(height)[:, None], np.arange(width)[None]
    for i in range(height):
        for j in range(width):
            # The centre of the picture is frequency zero.
            u, v = i - height // 2, j - width // 2
            wave = np.exp(-2j * np.pi * (u * rows / height + v * columns / width))
            value = np.sum(x[0].mean(-1) * wave)
            assert amplitude[0, i, j] == pytest.approx(np.log1p(abs(value)))
            turn = np.exp(1j * phase[0, i, j]) - value / abs(value)
            assert abs(turn) < 1e-9


def test_what_was_recombined_shows_unchanged(rng):
    donor, own = images(rng, 1), images(rng, 1)
    result = recombined(donor, own)
    amplitude, phase = examples.amplitude_phase(result)
    np.testing.assert_allclose(amplitude, examples.amplitude_phase(donor / 255)[0])
    difference = phase - examples.amplitude_phase(own / 255)[1]
    np.testing.assert_allclose(np.cos(difference), 1, atol=1e-9)


def pictures(found):
    """(class, alt, decoded image, kind) of every picture."""
    pattern = r'<img class="(\w+)" alt="([^"]*)" src="data:image/(\w+);base64,([^"]*)">'
    return [
        (name, alt, np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))), kind)
        for name, alt, kind, data in re.findall(pattern, found)
    ]


def test_small_pictures_are_exact_and_in_order(rng):
    original, single = images(rng), images(rng)
    donor = np.array([2, 0, 1])
    mixed = recombined(single[donor], single)
    found = examples.sheet(
        Examples(
            original=original,
            single=single,
            mixed=mixed,
            donor=donor,
            labels=["<cat>", "dog", "ox"],
        ),
        count=2,
    )
    assert "&lt;cat&gt;" in found
    assert "dog" in found
    assert "ox" not in found
    shown = pictures(found)
    assert len(shown) == 2 * 4 * 3
    assert all(kind == "png" for *_, kind in shown)
    assert [name for name, *_ in shown[:3]] == ["picture", "amplitude", "phase"]
    faces = [(alt, image) for name, alt, image, _ in shown if name == "picture"]
    assert [alt for alt, _ in faces[:4]] == [
        "Original",
        "After APR-S",
        "Donor",
        "Result, APR-SP",
    ]
    np.testing.assert_array_equal(faces[4][1], original[1])
    np.testing.assert_array_equal(faces[5][1], single[1])
    np.testing.assert_array_equal(faces[6][1], single[0])
    clipped = np.clip(np.round(255 * mixed[1]), 0, 255)
    np.testing.assert_array_equal(faces[7][1], clipped)


def test_the_frames_say_who_gave_what(rng):
    original, donor = images(rng, 1), np.array([0])
    mixed = recombined(original, original)
    found = examples.sheet(Examples(original=original, mixed=mixed, donor=donor))
    roles = re.findall(r'<figure class="step ?([^"]*)">', found)
    assert roles == ["gives-phase", "gives-amplitude", "gives-amplitude gives-phase"]
    assert "Result, APR-P<" in found
    plain = examples.sheet(Examples(original=original))
    assert re.findall(r'<figure class="step ?([^"]*)">', plain) == [""]


def test_large_and_grey_pictures(rng):
    large = np.repeat(np.repeat(images(rng, 1, 16), 16, axis=1), 16, axis=2)
    *_, shown, kind = pictures(examples.sheet(Examples(original=large)))[0]
    assert (shown.shape, kind) == ((128, 128, 3), "jpeg")
    assert np.abs(shown[4::8, 4::8].astype(int) - large[0, 8::16, 8::16]).mean() < 20
    grey = images(rng, 1, channels=1)
    *_, shown, kind = pictures(examples.sheet(Examples(original=grey)))[0]
    np.testing.assert_array_equal(shown, np.repeat(grey[0], 3, axis=-1))


def test_examples_that_do_not_fit_are_refused(rng):
    with pytest.raises(ValueError, match=r"single \(2, 8, 8, 3\) and original \(3,"):
        Examples(original=images(rng), single=images(rng, 2))
    with pytest.raises(ValueError, match="go together"):
        Examples(original=images(rng), mixed=images(rng) / 255)


def test_views_of_other_methods_are_shown(rng, tmp_path):
    original = images(rng, 2)
    seen = rng.uniform(size=(2, *original.shape))
    found = examples.sheet(Examples(original=original, seen=seen), count=1)
    alts = [alt for name, alt, *_ in pictures(found) if name == "picture"]
    assert alts == ["Original", "View 1", "View 2"]
    with pytest.raises(ValueError, match=r"seen .* differ"):
        Examples(original=original, seen=seen[0])
    for method, views in (("cutout", 1), ("standard", 0), ("cutout+apr_p", 2)):
        config = toy.config(tmp_path, augment__method=method, augment__cutout_size=4)
        shown = train_examples.examples(config, original, np.array([0, 1]), "abcd")
        assert (0 if shown.seen is None else len(shown.seen)) == views
        write_examples(tmp_path / "examples.npz", shown)
        again = read_examples(tmp_path / "examples.npz")
        if views:
            np.testing.assert_array_equal(again.seen, shown.seen)
            # Cutout: a square of the mean, the rest as it was.
            moved = np.abs(shown.seen[0] - np.float32(original) / 255)
            changed = (moved > 1e-5).any(axis=-1)
            assert 0 < changed.mean() <= 0.25


@pytest.mark.parametrize(
    ("method", "views"), [("mollify", 1), ("apr_p+mollify", 2), ("apr_p", 0)]
)
def test_the_last_stage_is_shown(rng, tmp_path, method, views):
    config = toy.config(tmp_path, augment__method=method)
    shown = train_examples.examples(config, images(rng, 2), np.array([0, 1]), "abcd")
    assert (0 if shown.seen is None else len(shown.seen)) == views
