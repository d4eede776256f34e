"""TensorFlow's stateless random numbers by Philox, in NumPy, to the bit.

The generator is that of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3"
(2011), Philox4x32-10; keys and counters are made of seeds, and floats of its words, as
``tf.random.stateless_uniform(..., dtype=tf.float64, alg="philox")`` does.
"""

import numpy as np

_MULTIPLIERS = np.array([0xD2511F53, 0xCD9E8D57], np.uint64)
_WEYL = np.array([0x9E3779B9, 0xBB67AE85], np.uint32)
_ROUNDS = 10
# The key that TensorFlow mixes seeds by.
_MIXING_KEY = np.array([0x3EC8F720, 0x02461E29], np.uint32)
_ONE = np.uint64(1023 << 52)  # exponent of the floats in [1, 2)


def uniform(seeds: np.ndarray, count: int) -> np.ndarray:
    """Draws numbers in [0, 1), float64 [N, count], from seeds int64 [N, 2]."""
    seeds = np.ascontiguousarray(seeds, np.int64).reshape(-1, 2)
    mixed = _philox(_words(seeds), np.broadcast_to(_MIXING_KEY, (len(seeds), 2)))
    blocks = -(-count // 2)  # each gives four words, two numbers
    counters = np.zeros((len(seeds), blocks, 4), np.uint32)
    counters[..., 0] = np.arange(blocks)
    counters[..., 2:] = mixed[:, None, 2:]
    keys = np.broadcast_to(mixed[:, None, :2], (len(seeds), blocks, 2))
    words = _philox(counters.reshape(-1, 4), keys.reshape(-1, 2)).astype(np.uint64)
    high, low = words[:, 0::2] & np.uint64(0xFFFFF), words[:, 1::2]
    floats = (_ONE | high << np.uint64(32) | low).view(np.float64) - 1.0
    return floats.reshape(len(seeds), 2 * blocks)[:, :count]


def _words(seeds: np.ndarray) -> np.ndarray:
    """The words uint32 [N, 4] of seeds int64 [N, 2], the lower one of each first."""
    bits = seeds.view(np.uint64)
    low = bits & np.uint64(0xFFFFFFFF)
    return np.stack([low, bits >> np.uint64(32)], -1).astype(np.uint32).reshape(-1, 4)


def _philox(counters: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Words uint32 [N, 4] of counters uint32 [N, 4] and keys uint32 [N, 2]."""
    words, keys = counters, keys.copy()
    for _ in range(_ROUNDS):
        products = words[:, 0::2].astype(np.uint64) * _MULTIPLIERS
        low = products.astype(np.uint32)
        high = (products >> np.uint64(32)).astype(np.uint32)
        words = np.stack(
            [
                high[:, 1] ^ words[:, 1] ^ keys[:, 0],
                low[:, 1],
                high[:, 0] ^ words[:, 3] ^ keys[:, 1],
                low[:, 0],
            ],
            1,
        )
        keys += _WEYL
    return words
