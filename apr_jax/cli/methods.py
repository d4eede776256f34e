"""Lists the training methods: ``apr-jax methods``."""

from apr_jax.augment import AUGMENTS


def main() -> None:
    """Prints each name, what the network sees, and whose it is."""
    width = max(map(len, AUGMENTS))
    for name, method in AUGMENTS.items():
        source = f" ({method.source})" if method.source else ""
        print(f"{name:{width}}  {method.about}{source}")
    print('\nSeveral join by "+": apr-jax train --config quickstart:cutout+apr_p.')
    print('With "+one_view" the second view takes the place of the first.')


if __name__ == "__main__":
    main()
