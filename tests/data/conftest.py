"""Sets of TensorFlow Datasets for all tests of data."""

import numpy as np
import pytest
from PIL import Image

from apr_jax.data import tfds

CLASSES = ("cat", "dog", "owl")


def picture(rng, height=40, width=50):
    """A smooth random picture: JPEG keeps it to a few grey levels."""
    coarse = rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height)))


# Made once for the whole session: it takes TensorFlow seconds to write.
@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    """A TFDS folder with a set of small PNGs and one of JPEGs of several sizes.

    Returns:
        The folder, and {set: {split: [(pixels, label)]}}.
    """
    module = tfds.engine().tfds
    root = tmp_path_factory.mktemp("tfds")
    rng = np.random.default_rng(1)
    features = module.features
    kinds = {
        "tiny_png": features.Image(shape=(8, 8, 3)),
        "tiny_jpeg": features.Image(shape=(None, None, 3), encoding_format="jpeg"),
    }
    written = {}
    for name, image in kinds.items():
        sizes = [(8, 8)] if name == "tiny_png" else [(40, 50), (56, 40), (45, 45)]
        written[name] = {
            split: [
                (picture(rng, *sizes[i % len(sizes)]), i % len(CLASSES))
                for i in range(count)
            ]
            for split, count in (("train", 30), ("extra", 9), ("test", 10))
        }
        module.dataset_builders.store_as_tfds_dataset(
            name=name,
            version="1.0.0",
            features=features.FeaturesDict(
                {"image": image, "label": features.ClassLabel(names=CLASSES)}
            ),
            split_datasets={
                split: [
                    (f"{split}_{i}", {"image": pixels, "label": label})
                    for i, (pixels, label) in enumerate(examples)
                ]
                for split, examples in written[name].items()
            },
            data_dir=root,
            disable_shuffling=False,
        )
    return root, written
