"""Lists the configurations: ``apr-jax configs``."""

from apr_jax.presets import PRESETS


def main() -> None:
    """Prints each name, what may follow it, and what it is."""
    names = [f"{n}:{p.choices}" if p.choices else n for n, p in PRESETS.items()]
    width = max(map(len, names))
    for name, preset in zip(names, PRESETS.values(), strict=True):
        print(f"{name:{width}}  {preset.about}")
    print(
        "\nMETHOD is one that apr-jax methods lists, MODEL one of apr-jax models;"
        "\napr-jax train --config NAME --config.GROUP.FIELD=VALUE changes a value."
    )


if __name__ == "__main__":
    main()
