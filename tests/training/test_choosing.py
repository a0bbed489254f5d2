"""Which epoch of a stage is kept: the best, or the latest that is not told from it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.evaluation.logged_slates import slate_arrays
from training.data.arrays import Batch
from training.distributed import Processes
from training.loop import History, Stage, run_stage
from training.settings import OptimSettings

HERE = Processes(0, 1, torch.device("cpu"))


class Counting(nn.Module):
    """A model of one weight, in which every epoch leaves its number."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(self.model.weight)

    def forward(self, batch: Batch, epoch: int) -> tuple[Tensor, dict[str, Tensor]]:
        with torch.no_grad():
            self.model.weight.fill_(float(epoch))
        return 0.0 * self.model.weight.sum(), {}


def kept(folder: Path, scores: list[float], slack: float | None) -> tuple[int, History]:
    """The epoch whose weights a stage with these held-out scores gives back."""
    objective = Counting()
    left = iter(scores)
    stage = Stage(
        name="post_train",
        objective=objective,
        optim=OptimSettings(learning_rate=1e-12, batch_size=8, warm_up_steps=0, weight_decay=0.0),
        validate=lambda: {"value": next(left), "value_se": slack or 0.0},
        selection="value",
        epochs=len(scores) - 1,
        seed=0,
        identity="one",
        slack="" if slack is None else "value_se",
    )
    history = run_stage(stage, slate_arrays([3] * 8), folder, HERE)
    return round(float(objective.model.weight.detach())), history


@pytest.mark.parametrize(
    ("scores", "slack", "epoch"),
    [
        ([0.0, 0.19, 0.16, 0.17, 0.18], None, 1),
        ([0.0, 0.19, 0.16, 0.17, 0.18], 0.015, 4),
        ([0.0, 0.19, 0.16, 0.17, 0.16], 0.025, 3),
        ([0.0, 0.19, 0.18, 0.17, 0.16], 0.015, 2),  # within the slack of the best, not of the last
        ([0.0, -0.01, -0.01], 0.1, 0),  # none is better than what it began with
        ([0.0, 0.01, -0.01], 0.1, 1),  # as good as the best, and worse than the beginning
        ([0.0, 0.1, float("nan")], 0.1, 1),
    ],
)
def test_a_later_epoch_is_kept_where_it_cannot_be_told_from_the_best(
    scores: list[float], slack: float | None, epoch: int, tmp_path: Path
) -> None:
    weight, history = kept(tmp_path, scores, slack)
    assert weight == history.best_epoch == epoch
    assert history.best_score == scores[epoch]


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    scores=st.lists(st.integers(-5, 5).map(lambda k: k / 10), min_size=2, max_size=7),
    slack=st.sampled_from([0.0, 0.15, 0.35]),
)
def test_what_is_kept_is_above_the_beginning_and_within_the_slack(
    scores: list[float], slack: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    epoch, _ = kept(tmp_path_factory.mktemp("stage"), scores, slack)
    best = max(scores)
    if best <= scores[0]:
        assert epoch == 0
        return
    good = [i for i, s in enumerate(scores) if i > 0 and scores[0] < s and s >= best - slack]
    assert epoch == good[-1]
