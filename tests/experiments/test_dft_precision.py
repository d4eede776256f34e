"""What a TPU's products lose, emulated."""

import ml_dtypes
import numpy as np

from experiments.checks import dft_precision


def test_products_are_those_of_parts_in_bfloat16(rng):
    values, matrix = rng.normal(size=(2, 16, 16)).astype(np.float32)
    lost = {}
    for name, pairs in dft_precision.PASSES.items():
        got = np.asarray(dft_precision.in_passes(pairs)(values, matrix))
        lost[name] = np.abs(got - values.astype(np.float64) @ matrix).max()
    one, high, highest = lost.values()
    assert one > 1e-3
    assert 1e-6 < high < 1e-4
    assert highest < 3e-6
    half = [x.astype(ml_dtypes.bfloat16).astype(np.float64) for x in (values, matrix)]
    got = dft_precision.in_passes(dft_precision.PASSES["DEFAULT, 1 pass"])
    np.testing.assert_allclose(got(values, matrix), half[0] @ half[1], atol=1e-5)


def test_a_record_for_each_precision_and_axes(rng):
    images = rng.integers(0, 256, (3, 8, 8, 3), np.uint8)
    records = [*dft_precision.compare(images)]
    assert len(records) == 6
    errors = [record["median_of_images"] for record in records]
    for one, high, highest in (errors[:3], errors[3:]):
        assert one > 30 * high > 30 * highest
    assert records[0]["above_bound"] == 1
    assert records[2]["above_bound"] == 0
