"""Writes corrupted test sets, or compares some: see ``--help``.

``--corruptions`` names some of the fifteen, of those that are held out (speckle_noise,
gaussian_blur, spatter and saturate) or of C-bar; ``--sets`` whole sets.
"""

import jax
import numpy as np
from absl import app, flags

from apr_jax.data import corrupted_command, corrupted_verify
from apr_jax.evaluate import classifier as classifier_lib
from apr_jax.gates import answers, places


def open_network(run: str) -> corrupted_verify.Answer:
    """The classes that the network of a run answers; NaN is none of them."""
    network = classifier_lib.from_run(places.local(run, "--network"))
    checked = jax.jit(network.checked)

    def answer(images: np.ndarray) -> np.ndarray:
        logits, _ = checked(network.variables, images)
        found: np.ndarray = answers.answer(np.asarray(logits))
        return found

    return answer


if __name__ == "__main__":
    command = corrupted_command.define(open_network)
    flags.adopt_module_key_flags(corrupted_command)
    app.run(command)
