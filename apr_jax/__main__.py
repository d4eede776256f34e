"""``python -m apr_jax`` is ``apr-jax``."""

from apr_jax import cli

if __name__ == "__main__":
    cli.main()
