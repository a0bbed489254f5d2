"""Evaluators and their lists on disk: they cost more than the training that they label."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch

from contracts.features import FeatureSpec
from contracts.locking import one_at_a_time
from training.checkpoint import load_tensors, save_atomically
from training.pairs.search import Searched
from training.pairs.two_evaluators import EVALUATORS_FILE, TwoEvaluators, load_two, save_two
from training.settings import EvaluatorSettings
from training.spent import spending, spent

SEARCHED_FILE = "searched.pt"


class LabelStore:
    """A folder where labels are kept, and taken from by whoever needs the same ones.

    A run that was killed goes on with them. With ``shared`` there is a folder for each identity,
    so that runs that differ in nothing that labels depend on make them once.

    Attributes:
        saved_seconds: processor seconds that had been spent on what was taken from here.
    """

    def __init__(self, folder: Path, shared: bool = False) -> None:
        self.folder = folder
        self.shared = shared
        self.saved_seconds = 0.0

    def two(
        self,
        identity: str,
        spec: FeatureSpec,
        settings: EvaluatorSettings,
        device: torch.device,
        fit: Callable[[], TwoEvaluators],
        write: bool,
    ) -> TwoEvaluators:
        """Both evaluators of this identity, fitted if they are not there."""
        file = self._file(identity, EVALUATORS_FILE)
        with self._alone(file, write):
            found = load_two(file, spec, settings, device, identity)
            if found is None:
                with self._timed(file, write):
                    found = fit()
                    if write:
                        save_two(file, found, identity)
            else:
                self._count(file)
            return found

    def searched(self, identity: str, search: Callable[[], Searched], write: bool) -> Searched:
        """Their lists, searched for if they are not there."""
        file = self._file(identity, SEARCHED_FILE)
        with self._alone(file, write):
            if file.exists() and (kept := load_tensors(file)).get("identity") == identity:
                self._count(file)
                return Searched(kept["lists"].numpy(), kept["scores"].numpy())
            with self._timed(file, write):
                found = search()
                if write:
                    lists, scores = torch.from_numpy(found.lists), torch.from_numpy(found.scores)
                    save_atomically(file, {"identity": identity, "lists": lists, "scores": scores})
            return found

    def _file(self, identity: str, name: str) -> Path:
        return (self.folder / identity[:16] if self.shared else self.folder) / name

    def _alone(self, file: Path, write: bool) -> AbstractContextManager[None]:
        """Of a shared folder one process makes the labels; a run's own is entered by all its
        ranks together."""
        shared = self.shared and write
        return one_at_a_time(file.with_suffix(".lock")) if shared else nullcontext()

    @staticmethod
    def _timed(file: Path, write: bool) -> AbstractContextManager[None]:
        if not write:
            return nullcontext()
        file.parent.mkdir(parents=True, exist_ok=True)
        return spending(_seconds(file))

    def _count(self, file: Path) -> None:
        self.saved_seconds += spent(_seconds(file))


def _seconds(file: Path) -> Path:
    return file.with_suffix(".seconds")
