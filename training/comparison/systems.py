"""Every system behind one interface: settings to try, ``fit`` on slates, ``rerank``.

Peers come from training/baselines. GReF is trained by the functions of the commands, from the same
settings files, with the same checks and alarms.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np
import torch
from torch import Tensor

from contracts.datasets import read_dataset
from contracts.reading import Strict
from training.baselines.base import PEERS, Fitted, Oracle, Peer, trials
from training.baselines.bounds import NoSettings
from training.checkpoint import load_checkpoint
from training.comparison.cases import Case
from training.data.arrays import SlateArrays
from training.data.batch import Batch
from training.decoding.run import make_decode
from training.distributed import Processes
from training.evaluate import world_of
from training.model.gen_reranker import GenReranker
from training.post_train import post_train
from training.pretrain import pretrain
from training.settings import TrainingSettings, override, read_settings

SETTINGS = Path(__file__).resolve().parents[1] / "settings"

#: The system that the others are paired with.
GREF = "gref"


@dataclass(frozen=True)
class Slates:
    """A case's slates, on disk and as arrays."""

    folder: Path
    train: SlateArrays
    valid: SlateArrays
    test: SlateArrays


@dataclass(frozen=True)
class Trained:
    """A fitted system, and why its training stopped, if an alarm did."""

    fitted: Fitted
    alarm: str = ""


class System(Protocol):
    """A system to compare.

    Attributes:
        is_gref: whose code its results depend on (code_state.py).
        learns: whether feedback changes it, so that the control with shuffled feedback says
            something.
    """

    name: str
    about: str
    is_gref: bool
    learns: bool

    def fits(self, case: Case) -> bool:
        """Whether it can be asked about a case."""
        ...

    def trials(self, case: Case, count: int) -> list[Strict]:
        """Settings to try, the defaults first; fewer where there is less to try."""
        ...

    def fit(self, slates: Slates, settings: Strict, seed: int, folder: Path) -> Trained:
        """Train; ``folder`` is new and may be filled."""
        ...


class OracleSystem:
    """The greedy list by the simulated world's truth: a bound, made from the test slates."""

    name, about, is_gref, learns = Oracle.name, Oracle.paper, False, False

    def fits(self, case: Case) -> bool:
        return case.world is not None

    def trials(self, case: Case, count: int) -> list[Strict]:
        return [NoSettings()]

    def fit(self, slates: Slates, settings: Strict, seed: int, folder: Path) -> Trained:
        return Trained(Oracle(world_of(read_dataset(slates.folder)[0]), slates.test))


class PeerSystem:
    """A peer of training/baselines."""

    is_gref = False

    def fits(self, case: Case) -> bool:
        return True

    def __init__(self, peer: Peer) -> None:
        self.name, self.about, self._peer = peer.name, peer.paper, peer
        self.learns = bool(peer.settings_type.SEARCH)

    def trials(self, case: Case, count: int) -> list[Strict]:
        found = trials(self._peer.settings_type, count, seed=case.seed)
        return [with_changes(one, case.peers) for one in found]

    def fit(self, slates: Slates, settings: Strict, seed: int, folder: Path) -> Trained:
        spec = slates.train.spec
        fitted = self._peer.fit(
            slates.train, slates.valid, spec, settings, seed, lambda *_, **__: None
        )
        return Trained(fitted)


#: What is tried around GReF's settings: as many trials are drawn from it as from a peer's grid.
_PRETRAIN_GRID: dict[str, tuple[Any, ...]] = {
    "pretrain.optim.learning_rate": (5e-4, 1e-3, 2e-3),
    "pretrain.lambda_o": (0.1, 1.0),
    "pretrain.optim.epochs": (2, 4),
}
_POST_GRID: dict[str, tuple[Any, ...]] = {
    "post_train.optim.learning_rate": (5e-4, 1e-3, 2e-3),
    "post_train.beta": (0.1, 0.3),
    "post_train.likelihood_weight": (0.1, 0.5),
}


class Gref:
    """GReF, whole or one of its stages.

    Args:
        changes: settings by dotted field, over those of the data's source.
        stages: which are run. Without pre-training Rerank-DPO starts from untrained weights.
        grid: what trials are drawn from.
    """

    is_gref = True
    learns = True

    def __init__(
        self,
        name: str,
        about: str,
        changes: Mapping[str, Any] | None = None,
        stages: tuple[str, ...] = ("pretrain", "post_train"),
        grid: Mapping[str, tuple[Any, ...]] | None = None,
    ) -> None:
        self.name, self.about, self._stages = name, about, stages
        self._changes = dict(changes or {})
        self._grid = dict(grid or {})

    def fits(self, case: Case) -> bool:
        return True

    def trials(self, case: Case, count: int) -> list[Strict]:
        start = override(self.defaults(case), self._changes)
        if "pretrain" not in self._stages:
            start = override(start, {"pretrain.optim.epochs": 0})
        points = [
            override(start, dict(zip(self._grid, point)))
            for point in itertools.product(*self._grid.values())
        ]
        others = [point for point in points if point != start]
        order = np.random.default_rng(case.seed).permutation(len(others))
        return [start, *(others[index] for index in order[: max(0, count - 1)])]

    @staticmethod
    def defaults(case: Case) -> TrainingSettings:
        """The settings file of the case's source, as the commands read it."""
        return override(read_settings(SETTINGS / f"{case.source}.yaml"), case.gref)

    def fit(self, slates: Slates, settings: Strict, seed: int, folder: Path) -> Trained:
        assert isinstance(settings, TrainingSettings)
        settings = msgspec.structs.replace(settings, seed=seed)
        here = Processes(0, 1, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
        dataset, spec = read_dataset(slates.folder)
        history = pretrain(slates.folder, dataset, spec, settings, folder, here)
        best = folder / "pretrain" / "best.pt"
        if "post_train" in self._stages:
            history = post_train(slates.folder, dataset, spec, settings, best, folder, here)
            best = folder / "post_train" / "best.pt"
        policy = GrefLists(load_checkpoint(best).model(), spec.list_size, history.best_epoch)
        return Trained(policy, history.alarm)


class GrefLists:
    """A policy's lists by OMTP, as it serves."""

    def __init__(self, model: GenReranker, list_size: int, epochs: int) -> None:
        self.model = model.eval()
        self.decode = make_decode(model, list_size)
        self.epochs = epochs
        self.parameters = sum(value.numel() for value in model.parameters())

    @torch.inference_mode()
    def rerank(self, batch: Batch) -> Tensor:
        """Lists int64 [B, n]."""
        z, prior = self.model.encode(batch)
        cold = torch.zeros(batch.size, 1, device=z.device)
        order: Tensor = self.decode(z, prior, cold, cold.long())[0]
        return order.long()


def untrained(slates: SlateArrays, settings: TrainingSettings) -> GrefLists:
    """GReF's network before training: the same work for each request."""
    torch.manual_seed(0)
    return GrefLists(GenReranker(slates.spec, settings.model), slates.spec.list_size, 0)


def with_changes(settings: Strict, changes: Mapping[str, Any]) -> Strict:
    """Settings with those of the dotted fields replaced that they have."""
    known = msgspec.to_builtins(settings)
    return override(settings, {name: v for name, v in changes.items() if _has(known, name)})


def _has(plain: Any, dotted: str) -> bool:
    for name in dotted.split("."):
        if not isinstance(plain, dict) or name not in plain:
            return False
        plain = plain[name]
    return True


PUBLISHED = {
    "model.pairwise": [],
    "model.prior": "none",
    "pretrain.given_epochs": 0,
    "pretrain.order_score": "exposure",
    "post_train.pairs.source": "exposure",
    "post_train.beta": 0.1,
    "post_train.likelihood": "none",
}

_VARIANTS: tuple[System, ...] = (
    Gref(GREF, "pre-training and Rerank-DPO, the recipe", grid=_POST_GRID),
    Gref("gref-pre", "pre-training only", stages=("pretrain",), grid=_PRETRAIN_GRID),
    Gref("gref-post", "Rerank-DPO only, from untrained weights", stages=("post_train",),
         grid=_POST_GRID),
    Gref("gref-published", "the paper's recipe: Eq. 7 pairs, beta 0.1, no likelihood term",
         changes=PUBLISHED, grid={"pretrain.optim.learning_rate": (5e-4, 1e-3, 2e-3),
                                  "post_train.optim.learning_rate": (1e-4, 3e-4, 1e-3),
                                  "post_train.optim.epochs": (1, 2)}),
)  # fmt: skip


def systems() -> dict[str, System]:
    """All systems by name, in the order of the tables; bounds first."""
    peers: list[System] = [PeerSystem(peer) for peer in PEERS.values()]
    everyone: list[System] = [OracleSystem(), *peers, *_VARIANTS]
    return {one.name: one for one in everyone}
