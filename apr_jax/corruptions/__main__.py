"""``python -m apr_jax.corruptions`` is ``apr-jax corrupt``."""

from apr_jax.cli import corrupt

if __name__ == "__main__":
    corrupt.main()
