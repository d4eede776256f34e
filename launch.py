"""Trains a network as a configuration says, measures it, and draws a page.

    python launch.py --config configs/quickstart.py --workdir runs/quickstart
    python launch.py --config configs/cifar.py:resnet18,apr_p,cifar100
    python launch.py --config configs/cifar10_wrn_aprsp.py --config.optim.epochs=100

The same command again goes on where it stopped. Results are in the work directory:
``results.jsonl``, ``metrics.jsonl``, ``report.html``, ``checkpoints/``.
"""

from absl import app, flags

from apr_jax.cli import train
from apr_jax.cli.train import main, parse

flags.adopt_module_key_flags(train)

if __name__ == "__main__":
    app.run(main, flags_parser=parse)
