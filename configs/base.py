"""Every value of a configuration, once. The other files here are differences.

The values are the CIFAR recipe of the paper's code: SGD 0.1 with Nesterov momentum,
weight decay 5e-4 on all parameters, the rate multiplied by 0.2 at epochs 60, 120,
160 and 190 of 200, batches of 128 clean images.
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    """Returns the complete configuration; ``apr_jax.config`` says what each is."""
    return ml_collections.ConfigDict(
        {
            "name": "cifar10_wrn_aprsp",
            "seed": 0,
            "data": {
                "source": "tfds",
                "name": "cifar10",
                "data_dir": "",
                "cache_dir": "",
                "train_split": "train",
                "test_split": "test",
                "shifted_splits": (),
                "image_size": 32,
                "eval_resize": 0,
                "extra_dirs": (),
                "extra_ratio": 0.0,
                "streaming": False,
                "max_broken": 100,
                "shuffle_buffer": 16384,
                "mean": (0.4914, 0.4822, 0.4465),
                "std": (0.2023, 0.1994, 0.2010),
            },
            "augment": {
                "method": "apr_sp",
                "crop_pad": 4,
                "crop_fill": 128,
                "flip": True,
                "single_prob": 0.5,
                "single_level": 3.0,
                "single_ops": "base",
                "single_overflow": "clip",
                "pair_prob": 0.6,
                "pair_per": "batch",
                "pair_clip": False,
                "pair_donors": "device",
                "axes": (-3, -2, -1),
                "heads_weight": 0.5,
                "jsd_weight": 12.0,
                "mix_alpha": 1.0,
                "cutout_size": 16,
            },
            "adversary": {
                "attack": "none",
                "eps": 8 / 255,
                "step_size": 10 / 255,
                "steps": 7,
                "held_out": 0,
                "stop_drop": 0.0,
            },
            "contrast": {
                "temperature": 0.5,
                "width": 128,
                "crop_area": 0.08,
                "linear_share": 0.125,
                "linear_rate": 0.1,
            },
            "model": {
                "name": "wrn_40_2",
                "dtype": "float32",
                "dropout": 0.0,
                "norm": "batch",
            },
            "optim": {
                "learning_rate": 0.1,
                "momentum": 0.9,
                "nesterov": True,
                "weight_decay": 5e-4,
                "epochs": 200.0,
                "schedule": "multistep",
                "milestones": (60.0, 120.0, 160.0, 190.0),
                "gamma": 0.2,
                "warmup_epochs": 0.0,
                "peak": 0.5,
            },
            "train": {
                "batch_size": 128,
                "sync_batch_norm": False,
                "devices": 0,
                "steps_per_call": 0,
                "log_every": 100,
                "tensorboard": True,
                "watch": (),
                "watch_examples": 1000,
            },
            "checkpoint": {
                "every_steps": 2000,
                "keep": 3,
            },
            "eval": {
                "batch_size": 1000,
                "parts": ("clean",),
                "corruptions": (),
                "corruption_examples": 0,
                "corruption_source": "generated",
                "corruption_dir": "",
                "frost_dir": "",
                "out_sets": (),
                "near_sets": (),
                "ood_examples": 0,
                "attack": "standard",
                "linf": (8 / 255,),
                "l2": (),
                "attack_examples": 1000,
                "fourier_examples": 1000,
            },
        }
    )
