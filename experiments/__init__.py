"""The figures, tables, benchmarks and checks, each a program."""

import apr_jax.process  # noqa: F401  Ctrl-C ends it without a traceback
