"""Writes corrupted test sets: ``python -m apr_jax.corruptions --help``."""

from absl import app, flags

from apr_jax.data import corrupted_command

if __name__ == "__main__":
    run = corrupted_command.define()
    flags.adopt_module_key_flags(corrupted_command)
    app.run(run)
