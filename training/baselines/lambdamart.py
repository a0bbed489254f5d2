"""LambdaMART: gradient-boosted trees on pairwise swaps weighted by NDCG; by LightGBM.

Burges, "From RankNet to LambdaRank to LambdaMART: An Overview", 2010; Ke et al., "LightGBM: A
Highly Efficient Gradient Boosting Decision Tree", NeurIPS 2017. What most teams would reach for
first.

Features of a candidate: its numbers and the user's, its given position, small categories as such,
and the rates of training/pairs/rates.py in the place of identities. Trained on the shown items of
each list, grouped by list; scores all m candidates. A continuous utility becomes five grades.

Axes: S slates, M candidates, n list positions, F features.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from contracts.features import FeatureSpec
from contracts.reading import ContractError
from training.baselines.fitting import check_spec
from training.baselines.interface import OnEpoch, PeerSettings
from training.data.arrays import SlateArrays
from training.data.batch import Batch
from training.pairs.rates import Rates

Float32 = npt.NDArray[np.float32]
Ints = npt.NDArray[np.integer]  # type: ignore[type-arg]

#: Categories with more rows come in as rates alone.
SMALL = 64
#: Trees have nothing else to know a user's ways by: larger tables than an evaluator keeps.
MAX_VALUES = 5_000_000
GRADES = 4


class LambdaMartSettings(PeerSettings, kw_only=True, frozen=True):
    """Settings of LightGBM's lambdarank. ``optim`` is not used.

    Attributes:
        trees, patience: at most so many, and stop after so many without a better held-out NDCG.
        place_bias: LightGBM's unbiased lambdarank: a learned bias for the place at which an item
            was shown, left out at serving.
    """

    SEARCH: ClassVar[dict[str, tuple[Any, ...]]] = {
        "learning_rate": (0.03, 0.1),
        "leaves": (15, 31, 63),
        "min_leaf": (20, 100),
        "place_bias": (False, True),
    }

    trees: int = 500
    patience: int = 30
    learning_rate: float = 0.05
    leaves: int = 31
    min_leaf: int = 50
    place_bias: bool = False


class LambdaMart:
    """The peer; the number of trees is the one of the best NDCG of held-out shown items."""

    name = "lambdamart"
    paper = "Burges, From RankNet to LambdaRank to LambdaMART, 2010; LightGBM, NeurIPS 2017"
    settings_type = LambdaMartSettings

    def fit(
        self,
        train: SlateArrays,
        valid: SlateArrays,
        spec: FeatureSpec,
        settings: LambdaMartSettings,
        seed: int,
        on_epoch: OnEpoch,
    ) -> FittedTrees:
        check_spec(train, valid, spec)
        lightgbm = _lightgbm()
        rates = Rates(spec, MAX_VALUES)
        rates.add(train)
        features = Features(spec, rates)
        rows = features.shown(train, training=True)
        if settings.place_bias:
            rows["position"] = np.nonzero(train.exposed >= 0)[1]
        data = lightgbm.Dataset(
            **rows,
            categorical_feature=features.categorical,
            free_raw_data=False,
        )
        held = lightgbm.Dataset(**features.shown(valid), reference=data)

        def told(env: Any) -> None:
            held_out = env.evaluation_result_list[0][2]
            on_epoch(epoch=env.iteration + 1, loss=float("nan"), held_out=float(held_out))

        booster = lightgbm.train(
            {
                "objective": "lambdarank",
                "metric": "ndcg",
                "eval_at": [spec.list_size],
                "lambdarank_truncation_level": spec.list_size,
                "learning_rate": settings.learning_rate,
                "num_leaves": settings.leaves,
                "min_data_in_leaf": settings.min_leaf,
                "seed": seed,
                "feature_fraction": 0.8,
                "deterministic": True,
                "force_row_wise": True,
                "num_threads": torch.get_num_threads(),
                "verbosity": -1,
            },
            data,
            settings.trees,
            valid_sets=[held],
            callbacks=[lightgbm.early_stopping(settings.patience, verbose=False), told],
        )
        return FittedTrees(booster, features, spec.list_size)


class Features:
    """What the trees see of each candidate."""

    def __init__(self, spec: FeatureSpec, rates: Rates) -> None:
        self.rates = rates
        self.item = [i for i, one in enumerate(spec.item.categorical) if one.rows <= SMALL]
        self.user = [i for i, one in enumerate(spec.user.categorical) if one.rows <= SMALL]
        self.categorical = list(range(len(self.item) + len(self.user)))

    def __call__(
        self,
        item_cat: Ints,
        item_dense: Float32,
        user_cat: Ints,
        user_dense: Float32,
        training: bool = False,
    ) -> Float32:
        """[S, M, F]."""
        slates, m = item_cat.shape[:2]
        user = np.concatenate([user_cat[:, self.user].astype(np.float32), user_dense], axis=1)
        user = np.broadcast_to(user[:, None], (slates, m, user.shape[1]))
        small, numbers = user[..., : len(self.user)], user[..., len(self.user) :]
        place = np.broadcast_to(np.arange(m, dtype=np.float32)[None, :, None], (slates, m, 1))
        rates = self.rates.train(training)(
            torch.from_numpy(item_cat), torch.from_numpy(user_cat), torch.arange(slates)
        ).numpy()
        item = item_cat[..., self.item].astype(np.float32)
        return np.concatenate([item, small, numbers, item_dense, place, rates], axis=-1)

    def shown(self, slates: SlateArrays, training: bool = False) -> dict[str, Any]:
        """Rows of the shown items, their grades, and how many belong to each list."""
        found = self(
            slates.item_cat, slates.item_dense, slates.user_cat, slates.user_dense, training
        )
        shown = slates.exposed >= 0
        index = np.where(shown, slates.exposed, 0)[..., None]
        rows = np.take_along_axis(found, index, axis=1)[shown]
        utility = slates.utility[shown]
        binary = slates.spec.utility_kind.type == "binary"
        grade = utility if binary else np.round(utility * GRADES)
        sizes = shown.sum(1)
        return {"data": rows, "label": grade.astype(int), "group": sizes[sizes > 0]}


class FittedTrees:
    """Trees, and the rates that they look at."""

    def __init__(self, booster: Any, features: Features, list_size: int) -> None:
        self._booster = booster
        self._features = features
        self._list_size = list_size
        self.epochs = int(booster.best_iteration)
        leaves = sum(
            tree["num_leaves"]
            for tree in booster.dump_model(num_iteration=self.epochs)["tree_info"]
        )
        # A tree of L leaves has L - 1 splits, each with a feature and a threshold.
        self.parameters = 3 * leaves - 2 * self.epochs + features.rates.numbers

    def rerank(self, batch: Batch) -> Tensor:
        found = self._features(
            batch.item_cat.cpu().numpy(),
            batch.item_dense.cpu().numpy(),
            batch.user_cat.cpu().numpy(),
            batch.user_dense.cpu().numpy(),
        )
        slates, m, width = found.shape
        scores = self._booster.predict(
            found.reshape(-1, width), num_iteration=self.epochs, num_threads=torch.get_num_threads()
        ).reshape(slates, m)
        count = batch.count.cpu().numpy()[:, None]
        scores = np.where(np.arange(m)[None] < count, scores, -np.inf)
        order = np.argsort(-scores, axis=1, kind="stable")[:, : self._list_size]
        lists = np.full((slates, self._list_size), -1, np.int64)
        lists[:, : order.shape[1]] = np.where(np.arange(order.shape[1])[None] < count, order, -1)
        return torch.from_numpy(lists).to(batch.count.device)


def _lightgbm() -> Any:
    try:
        import lightgbm
    except ImportError as error:
        raise ContractError(
            "LambdaMART needs LightGBM; install the extra: pip install 'gref[compare]'"
        ) from error
    return lightgbm
