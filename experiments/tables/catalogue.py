"""The paper's tables, and the search: rows, columns, cells, published numbers."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import ml_collections

from apr_jax import presets
from apr_jax.report import published
from apr_jax.runs.records import Record
from experiments import recipes
from experiments.tables import cells as cells_lib
from experiments.tables.rows import ROWS, row_of

BUDGETS = ("small", "medium", "paper")
# What stands in for every network where the budget is below the paper's.
NETWORKS = {"small": "wrn_10_1", "medium": "airbench94"}
# Epochs of airbench94 at which the error on clean images is below 6.5 %.
_MEDIUM_EPOCHS = 16.0

_TABLE_2 = ("standard", "cutout", "mixup", "apr_p", "supclr", "csi", "apr_s", "apr_sp")
# Made for other tables than the first.
_CONSISTENT = ("apr_sp_js2", "apr_sp_js6", "apr_sp_js12")
_HARD = ("standard_hard_labels", "apr_sp_hard_labels")
_NOT_TABLE_1 = ("max_blur_pool", "supclr", "csi", "csi_turns", *_CONSISTENT, *_HARD)
# What a method of our own may be made of; none costs more than APR-SP's two views.
_SEARCHED = (
    "standard",
    "apr_sp",
    *_CONSISTENT,
    "apr_s+hybrid_augment_pp",
    "apr_s+amplitude_mix",
    "apr_s+apr_p_noised",
    "apr_s+apr_noise",
    "apr_s+apr_waves",
    "trivialaugment+apr_p",
    "augmix_no_jsd+apr_p",
    "prime+apr_p",
)
_TABLE_4 = (
    "standard",
    "patch_uniform",
    "autoaugment",
    "random_autoaugment",
    "max_blur_pool",
    "stylized",
    "augmix",
    "apr_s",
    "apr_p",
    "apr_sp",
    "deepaugment",
    "deepaugment+apr_sp",
)


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of the paper.

    Attributes:
        title: of the page.
        rows: names that ``row_of`` knows, the usual ones of this table.
        columns: "SET NETWORK" of the runs at the published size.
        cells: records of a run -> column -> fraction; "" stands for the run's own.
        published: row -> column -> percent.
        settings: (set, network, row, budget) -> configuration of a run.
        changes: of every run's configuration, such as how it is measured.
        small: of those at the small size, on top of them.
        budgets: that it has.
        better: "↑" or "↓".
        recipe: tables of one recipe share their trained networks.
        columns_shown: the two cells of the picture, the one that ranks first.
        source: of the published numbers.
        more: records of a run -> further row that shows it -> cells.
        note: below the table, where it has such rows.
    """

    title: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: Callable[[Sequence[Record]], dict[str, float]]
    published: Callable[[], dict[str, published.Cells]]
    settings: Callable[[str, str, str, str], ml_collections.ConfigDict]
    better: str
    recipe: str
    columns_shown: tuple[str, str]
    source: str
    changes: dict[str, Any]
    small: dict[str, Any] = dataclasses.field(default_factory=dict)
    more: Callable[[Sequence[Record]], dict[str, dict[str, float]]] = lambda records: {}
    note: str = ""
    budgets: tuple[str, ...] = BUDGETS

    @property
    def mean(self) -> str:
        """The cell that is known when all of a run's records are."""
        return self.columns_shown[0]

    def shown(self, columns: Sequence[str]) -> tuple[str, str]:
        """The two of a page's columns that its picture shows."""
        named = filter(None, self.columns_shown)  # cells that aren't a run's own
        ends = {name: [c for c in columns if c.endswith(name)] for name in named}
        others = {c for each in ends.values() for c in each}
        ends[""] = [c for c in columns if c not in others]
        main, other = ([*ends[name], ""][0] for name in self.columns_shown)
        return main, other


def _cifar(name: str, network: str, row: str, budget: str) -> ml_collections.ConfigDict:
    """The recipe of Tables 1 and 2, a quick one, or a short one."""
    method = row_of(row).method
    settings = presets.cifar(f"{network},{method},{name}")
    if budget == "small":
        settings = recipes.short(settings, model=network, epochs=3.0, method=method)
    elif budget == "medium":
        own = settings
        settings = presets.cifar10_fast(method)
        settings.model.name, settings.optim.epochs = network, _MEDIUM_EPOCHS
        if name != "cifar10":
            settings.data.update(own.data)
            settings.augment.flip = own.augment.flip
            presets.suit_method(settings, method, name)
    settings.train.update(tensorboard=False, watch=())
    return settings


def _fgsm(name: str, network: str, row: str, budget: str) -> ml_collections.ConfigDict:
    """The recipe of Table 3."""
    if row in presets.FGSM:
        settings = presets.cifar10_fgsm(row)
    else:
        method = row_of(row).method
        settings = presets.cifar10_fgsm("standard")
        settings.augment.method = method
        # As in the presets of APR-P and APR-S.
        _, _, pair, _ = presets.FGSM["apr_p"]
        _, _, _, single = presets.FGSM["apr_s"]
        settings.augment.update(pair_prob=pair, single_prob=single)
    if name != "cifar10":  # the presets' own
        settings.data.update(presets.cifar(f"{network},standard,{name}").data)
    presets.suit_method(settings, settings.augment.method, name)
    settings.model.name = network
    settings.train.update(tensorboard=False, watch=())
    return settings


def _imagenet(
    name: str, network: str, row: str, budget: str
) -> ml_collections.ConfigDict:
    """The recipe of Table 4."""
    if name != "imagenet":
        raise ValueError(
            f"the set of a column of Table 4 is {name!r}; it is 'imagenet'"
        )
    settings = presets.imagenet_resnet50(row_of(row).method)
    settings.model.name = network
    settings.train.watch = ()
    return settings


_SETS = ("cifar10", "cifar100")
_NETWORKS = ("allconv", "densenet_bc_100_12", "wrn_40_2", "resnext29_32x4")

TABLES: dict[str, Table] = {
    "1": Table(
        title="Table 1: mean error under corruption",
        rows=tuple(r for r in ROWS if r not in _NOT_TABLE_1 and not ROWS[r].mixes),
        columns=tuple(f"{s} {n}" for s in _SETS for n in _NETWORKS),
        cells=cells_lib.corruption_cells,
        published=published.table_1,
        settings=_cifar,
        changes={"eval.parts": ("clean", "corruption"), "eval.corruption.examples": 0},
        small={"eval.corruption.examples": 1000},
        better="↓",
        recipe="cifar",
        columns_shown=("", "clean error"),
        source="Chen et al., ICCV 2021, 200 epochs; of ResNet-18 HybridAugment++-PS by "
        "Yucel et al., ICCV 2023, and PRIME by Modas et al., ECCV 2022; the "
        "benchmark's own files",
    ),
    "2": Table(
        title="Table 2: AUROC against unknown images, maximum softmax probability",
        rows=_TABLE_2,
        columns=("cifar10 resnet18",),
        cells=cells_lib.out_cells,
        published=published.table_2,
        settings=_cifar,
        changes={"eval.parts": ("clean", "ood"), "eval.ood.examples": 0},
        small={"eval.ood.examples": 2000},
        better="↑",
        recipe="cifar",
        columns_shown=("mean", "accuracy"),
        more=cells_lib.turned_cells,
        note="CSI is shown twice: by the maximum softmax probability of the upright "
        "image, as all others, which the published numbers are of, by their accuracy; "
        "and by its own score, that of logits averaged over four turns.",
        source="Chen et al., ICCV 2021, ResNet-18, 200 epochs",
    ),
    "3": Table(
        title="Table 3: accuracy of FGSM-trained networks under AutoAttack",
        rows=tuple(presets.FGSM),
        columns=("cifar10 preact_resnet18",),
        cells=cells_lib.robust_cells,
        published=published.table_3,
        settings=_fgsm,
        changes={
            "eval.parts": ("clean", "adversarial"),
            "eval.adversarial.examples": 0,
        },
        # So small a network resists no more.
        small={
            "adversary.eps": 4 / 255,
            "adversary.step_size": 5 / 255,
            "optim.epochs": 4.0,
            "eval.adversarial.linf": (4 / 255,),
            "eval.adversarial.examples": 256,
        },
        better="↑",
        recipe="fgsm",
        budgets=("small", "paper"),
        columns_shown=("robust", "accuracy"),
        source="Chen et al., ICCV 2021, PreAct-ResNet-18 at 8/255",
    ),
    "4": Table(
        title="Table 4: ImageNet-C, error in relation to AlexNet's",
        rows=_TABLE_4,
        columns=("imagenet resnet50",),
        cells=cells_lib.imagenet_cells,
        published=published.table_4,
        settings=_imagenet,
        changes={"eval.parts": ("clean", "corruption")},
        better="↓",
        recipe="imagenet",
        budgets=("paper",),
        columns_shown=("mce", "error"),
        source="Chen et al., ICCV 2021, ResNet-50, the benchmark's own files",
    ),
    # What is chosen by it has seen neither the test images nor the fifteen corruptions.
    "search": Table(
        title="Search: error on held-out images under none of the fifteen corruptions",
        rows=_SEARCHED,
        columns=("cifar10 airbench94",),
        cells=cells_lib.held_out_cells,
        published=dict,
        settings=_cifar,
        changes={
            "data.train_split": "train[:90%]",
            "data.test_split": "train[90%:]",
            "eval.parts": ("clean", "corruption"),
            "eval.corruption.sets": ("c_bar", "extra"),
            "eval.corruption.examples": 0,
        },
        small={"eval.corruption.examples": 1000},
        better="↓",
        recipe="search",
        budgets=("small", "medium"),
        columns_shown=("", "clean error"),
        source="",
    ),
}


def columns_of(table: Table, budget: str) -> tuple[str, ...]:
    """The columns that a table has at a budget, if none are named."""
    if budget == "paper":
        return table.columns
    sets = dict.fromkeys(column.split()[0] for column in table.columns)
    return tuple(f"{name} {NETWORKS[budget]}" for name in sets)
