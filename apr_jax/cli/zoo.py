"""Lists the trained networks that come with the package: ``apr-jax zoo``."""

import rich.console
import rich.table

from apr_jax import zoo

# Heading, and the number below it: job, split, metric.
NUMBERS = {
    "Clean": ("evaluate.clean", "test", "error"),
    "Corrupted": ("evaluate.corruption", "mean", "error"),
    "ECE": ("evaluate.clean", "test", "ece"),
}


def main() -> None:
    """Prints a table of names, methods and errors in percent."""
    table = rich.table.Table()
    table.add_column("Name", no_wrap=True)
    table.add_column("Method", overflow="fold", min_width=8)
    for heading in ("Epochs", *NUMBERS):
        table.add_column(heading, justify="right")
    for name in zoo.names():
        one = zoo.about(name)
        found = [one.number(*number) for number in NUMBERS.values()]
        config = one.config
        table.add_row(
            name,
            config.augment.method,
            f"{config.optim.epochs:g}",
            *("" if number is None else f"{100 * number:.1f}" for number in found),
        )
    console = rich.console.Console()
    console.print(table)
    console.print(
        "Errors and calibration error in percent. apr-jax card zoo:NAME shows the rest."
    )


if __name__ == "__main__":
    main()
