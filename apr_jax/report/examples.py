"""Pictures of augmented examples, each with its amplitude and its phase."""

import base64
import html
import io

import matplotlib
import numpy as np
from PIL import Image

from apr_jax.runs.examples import Array, Examples

# Pixels of the longer side of a picture in the page; larger ones are made smaller.
_TILE = 128
# Up to here pictures are stored exactly, as PNG; above, as JPEG for the page's size.
_EXACT = 64


def amplitude_phase(images: Array) -> tuple[Array, Array]:
    """Log-amplitude and phase of the mean over channels, low frequencies central.

    The mean over channels is where the three-dimensional DFT has frequency 0 along
    the channels, so what APR recombines shows up unchanged.

    Args:
        images: [N, H, W, C], any real type.

    Returns:
        log(1 + |F|) and the angle of F in (-pi, pi], each [N, H, W].
    """
    spectrum = np.fft.fft2(np.asarray(images, np.float64).mean(axis=-1))
    spectrum = np.fft.fftshift(spectrum, axes=(-2, -1))
    return np.log1p(np.abs(spectrum)), np.angle(spectrum)


def sheet(examples: Examples, *, count: int = 6) -> str:
    """HTML of the first ``count`` examples, a row for each, a card for each step."""
    rows: list[str] = []
    steps: list[tuple[str, str, Array]] = []
    for i in range(min(count, len(examples.original))):
        steps = _steps(examples, i)
        images = np.stack([image for _, _, image in steps])
        amplitude, phase = amplitude_phase(images)
        # One scale for the row: amplitudes are there to be compared.
        low, high = amplitude.min(), amplitude.max()
        amplitude = (amplitude - low) / max(high - low, 1e-9)
        cards = [
            _card(title, role, images[k], amplitude[k], phase[k])
            for k, (title, role, _) in enumerate(steps)
        ]
        label = html.escape(examples.labels[i]) if len(examples.labels) > i else ""
        name = f"<p>{label}</p>" if label else ""
        rows.append(f'<div class="example">{name}<div>{"".join(cards)}</div></div>')
    alone = "sheet" if len(steps) > 1 else "sheet plain"
    return f'<div class="{alone}">{"".join(rows)}</div>'


def _steps(examples: Examples, i: int) -> list[tuple[str, str, Array]]:
    """(title, role, float image in [0, 1] or beyond) from the original onwards."""
    unit = lambda image: np.asarray(image, np.float64) / 255.0
    steps = [("Original", "", unit(examples.original[i]))]
    before = examples.original
    if examples.single is not None:
        before = examples.single
        steps.append(("After APR-S", "", unit(before[i])))
    if examples.mixed is not None and examples.donor is not None:
        steps[-1] = (steps[-1][0], "gives-phase", steps[-1][2])
        donor = unit(before[examples.donor[i]])
        steps.append(("Donor", "gives-amplitude", donor))
        title = "Result, APR-P" if examples.single is None else "Result, APR-SP"
        steps.append((title, "gives-amplitude gives-phase", examples.mixed[i]))
    if examples.seen is not None:
        several = len(examples.seen) > 1
        for number, view in enumerate(examples.seen, start=1):
            steps.append((f"View {number}" if several else "Seen", "", view[i]))
    return steps


def _card(title: str, role: str, image: Array, amplitude: Array, phase: Array) -> str:
    picture = np.clip(255 * image, 0, 255).round().astype(np.uint8)
    if picture.shape[-1] == 1:
        picture = np.repeat(picture, 3, axis=-1)
    magma, twilight = matplotlib.colormaps["magma"], matplotlib.colormaps["twilight"]
    tiles = (
        ("picture", title, picture),
        ("amplitude", f"Log-amplitude, {title}", magma(amplitude, bytes=True)),
        (
            "phase",
            f"Phase, {title}",
            twilight(phase / (2 * np.pi) + 0.5, bytes=True),
        ),
    )
    drawn = "".join(
        f'<img class="{kind}" alt="{html.escape(alt, quote=True)}" src="{_data(x)}">'
        for kind, alt, x in tiles
    )
    caption = f"<figcaption>{html.escape(title)}</figcaption>"
    return f'<figure class="step {role}">{drawn}{caption}</figure>'


def _data(pixels: Array) -> str:
    """A uint8 image, [H, W, 3] or with alpha, as a data URI."""
    picture = Image.fromarray(np.ascontiguousarray(pixels[..., :3]))
    picture.thumbnail((_TILE, _TILE), Image.Resampling.LANCZOS)
    exact = max(picture.size) <= _EXACT
    buffer = io.BytesIO()
    if exact:
        picture.save(buffer, "PNG", optimize=True)
    else:
        picture.save(buffer, "JPEG", quality=85)
    kind = "png" if exact else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
