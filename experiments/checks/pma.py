"""PMA beside AutoAttack's four on three small networks: what is left after each.

    python -m experiments.checks.pma

Trains the networks on scikit-learn's digits (8 x 8 pixels), one as usual, one against
FGSM from a random start (Wong et al. 2020) and one against PGD (Madry et al. 2018), in
a minute. Then AutoAttack with PMA behind it (``standard+pma``) attacks the first test
images of each, and every attack alone does. PMA behind the four leaves no more than
they do by construction; the records say how much less, and what PMA alone leaves.
"""

import argparse
import functools
import json
import pathlib
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from apr_jax import attacks
from apr_jax.attacks import sequence
from apr_jax.gates import places
from experiments.benchmarks import common

OUT = pathlib.Path(__file__).parents[1] / "results" / "check_pma.jsonl"
_TRAINED = 1300  # images; the others are tested
_BATCH = 100


class Convolutions(nn.Module):
    """Two convolutions and a linear layer."""

    @nn.compact
    def __call__(self, pixels: jax.Array) -> jax.Array:
        """Pixels [B, 8, 8, 1] -> logits [B, 10]."""
        x = nn.relu(nn.Conv(16, (3, 3))(pixels - 0.5))
        x = nn.relu(nn.Conv(32, (3, 3), strides=(2, 2))(x))
        return nn.Dense(10)(x.reshape(len(x), -1))


class Perceptron(nn.Module):
    """Two hidden layers."""

    @nn.compact
    def __call__(self, pixels: jax.Array) -> jax.Array:
        """Pixels [B, 8, 8, 1] -> logits [B, 10]."""
        x = pixels.reshape(len(pixels), -1) - 0.5
        for _ in range(2):
            x = nn.relu(nn.Dense(96)(x))
        return nn.Dense(10)(x)


class Network(NamedTuple):
    """How a network is made: its module, its training, and the radius for it."""

    module: nn.Module
    steps: int  # of the attack in training; 0: none
    step_share: float  # length of each, in radii
    eps: float  # of training and test


NETWORKS = {
    "cnn_standard": Network(Convolutions(), 0, 0.0, 0.1),
    "cnn_fgsm": Network(Convolutions(), 1, 1.25, 0.2),
    "mlp_pgd": Network(Perceptron(), 7, 0.3, 0.15),
}


def digits() -> tuple[np.ndarray, np.ndarray]:
    """All images, float32 [N, 8, 8, 1] in [0, 1], and labels, in a fixed order."""
    from sklearn import datasets

    loaded = datasets.load_digits()
    order = np.random.default_rng(0).permutation(len(loaded.target))
    images = (loaded.images[order, :, :, None] / 16).astype(np.float32)
    return images, loaded.target[order].astype(np.int32)


def trained(network: Network, epochs: int) -> Any:
    """The variables of a network after its training."""
    images, labels = (part[:_TRAINED] for part in digits())
    module = network.module
    variables = module.init(jax.random.key(0), images[:1])
    optimizer = optax.adam(2e-3)

    def loss_of(variables: Any, images: jax.Array, labels: jax.Array) -> jax.Array:
        logits = module.apply(variables, images)
        each = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return each.mean()

    @jax.jit
    def step(key: Any, variables: Any, state: Any, clean: Any, labels: Any) -> Any:
        eps, seen = network.eps, clean
        if network.steps:
            seen += jax.random.uniform(key, clean.shape, minval=-eps, maxval=eps)
        for _ in range(network.steps):
            way = jnp.sign(jax.grad(loss_of, 1)(variables, seen, labels))
            seen += network.step_share * eps * way
            seen = jnp.clip(jnp.clip(seen, clean - eps, clean + eps), 0, 1)
        grads = jax.grad(loss_of)(variables, seen, labels)
        updates, state = optimizer.update(grads, state)
        return optax.apply_updates(variables, updates), state

    state, rng = optimizer.init(variables), np.random.default_rng(1)
    for epoch in range(epochs):
        rows = rng.permutation(_TRAINED).reshape(-1, _BATCH)
        for number, chosen in enumerate(rows):
            key = jax.random.fold_in(jax.random.key(epoch), number)
            variables, state = step(
                key, variables, state, images[chosen], labels[chosen]
            )
    return variables


def measured(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """The record of one network."""
    network = NETWORKS[name]
    images, labels = (part[_TRAINED:][: args.images] for part in digits())
    logits_fn = functools.partial(network.module.apply, trained(network, args.epochs))
    attack = functools.partial(
        attacks.autoattack,
        jax.random.key(0),
        logits_fn,
        images,
        labels,
        norm="linf",
        eps=network.eps,
        steps=args.steps,
        queries=args.queries,
    )
    after = attack(version="standard+pma").survived
    single = sequence.VERSIONS["standard+pma"]
    alone = {each: float(attack(version=each).robust.mean()) for each in single}
    return common.stamped(
        experiment="check_pma",
        network=name,
        eps=network.eps,
        images=len(labels),
        steps=args.steps,
        queries=args.queries,
        epochs=args.epochs,
        clean=float(after["clean"].mean()),
        autoattack=float(after["square"].mean()),
        with_pma=float(after["pma"].mean()),
        after={each: float(standing.mean()) for each, standing in after.items()},
        alone=alone,
        pma_alone=alone["pma"],
        jax=jax.__version__,
    )


def main() -> None:
    """Parses the command line, and measures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS)
    )
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--queries", type=int, default=5000)
    parser.add_argument("--out", type=places.argument, default=OUT)
    args = parser.parse_args()
    records = []
    for name in args.networks:
        records.append(measured(name, args))
        common.append(args.out, records[-1:])
        print(json.dumps(records[-1]), flush=True)
    common.show(
        f"Accuracy left, {args.images} images",
        {
            "": "{network}",
            "radius": "{eps}",
            "clean": "{clean:.1%}",
            "AutoAttack": "{autoattack:.1%}",
            "and PMA": "{with_pma:.1%}",
            "PMA alone": "{pma_alone:.1%}",
        },
        records,
    )


if __name__ == "__main__":
    main()
