"""Writes corrupted test sets: ``python -m apr_jax.corruptions --help``.

``--corruptions`` names some of the fifteen, or of those that are held out:
speckle_noise, gaussian_blur, spatter and saturate.
"""

from absl import app, flags

from apr_jax.data import corrupted_command

if __name__ == "__main__":
    run = corrupted_command.define()
    flags.adopt_module_key_flags(corrupted_command)
    app.run(run)
