"""Lists the networks: ``python -m apr_jax.models``."""

import rich.console
import rich.table

from apr_jax.models import MODELS, build
from apr_jax.models.flops import multiply_adds, parameters


def main() -> None:
    """Prints a table of names, parameters and multiply-adds."""
    table = rich.table.Table()
    table.add_column("Name", no_wrap=True)
    for heading in ("Image", "Classes", "Parameters", "Multiply-adds"):
        table.add_column(heading, justify="right")
    for name in MODELS:
        size, classes = build(name, num_classes=1).made_for
        count = parameters(name, num_classes=classes, size=size)
        adds = multiply_adds(name, num_classes=classes, size=size)
        table.add_row(
            name,
            f"{size} px",
            f"{classes:,}",
            f"{count:,}",
            f"{adds / 1e6:,.1f} M",
        )
    console = rich.console.Console()
    console.print(table)
    console.print(
        "wrn_D_K, with depth D = 6n + 4 and width K, is there for other D and K. "
        "Multiply-adds are those of\nconvolutions and matrix products, for one image; "
        "each is two floating-point operations."
    )


if __name__ == "__main__":
    main()
