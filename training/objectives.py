"""The objectives of the two stages: a batch to a loss and what is logged.

Axes: B batch, M candidates, N list positions, H heads.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from training.data.batch import Batch
from training.losses.distillation import distillation_loss
from training.losses.dpo import PairLogProbs, lengths, rerank_dpo_loss
from training.losses.likelihood import chosen_before, list_log_probs
from training.losses.omtp import next_items_loss, ordering_loss
from training.model.gen_reranker import GenReranker
from training.pairs.base import PairSource, row_seeds
from training.pairs.search import Searched
from training.settings import PostTrainSettings, PretrainSettings

Scalars = dict[str, Tensor]


class PretrainObjective(nn.Module):
    """L_omtp on the given order (first ``given_epochs`` epochs), then on the exposure order."""

    def __init__(
        self, model: GenReranker, settings: PretrainSettings, list_size: int, seed: int
    ) -> None:
        super().__init__()
        self.model = model
        self.settings = settings
        self.list_size = list_size
        self.seed = seed

    def forward(self, batch: Batch, epoch: int) -> tuple[Tensor, Scalars]:
        settings = self.settings
        given = epoch <= settings.given_epochs
        lists = batch.given(self.list_size) if given else batch.exposed
        z, prior = self.model.encode(batch)
        logits, prefix_logits = self.model.window_logits(z, prior, lists)
        loss_n = next_items_loss(logits, lists)
        loss = settings.lambda_n * loss_n
        scalars = {"L_n": loss_n}
        if settings.lambda_o > 0 and self.model.settings.heads > 1:
            by_feedback = settings.order_score == "feedback" and not given
            generator = torch.Generator().manual_seed(self.seed * 1000 + epoch)
            loss_o = ordering_loss(
                prefix_logits,
                lists,
                batch.utility if by_feedback else None,
                settings.max_permutations,
                generator,
            )
            loss = loss + settings.lambda_o * loss_o
            scalars["L_o"] = loss_o
        if settings.lambda_pointwise > 0:
            pointwise = pointwise_loss(self.model, z, batch)
            loss = loss + settings.lambda_pointwise * pointwise
            scalars["L_pointwise"] = pointwise
        return loss, {name: value.detach() for name, value in scalars.items()}


def pointwise_loss(model: GenReranker, z_BMD: Tensor, batch: Batch) -> Tensor:
    """Cross-entropy of the utility of shown items, read off Z. Not in the paper; a setting."""
    index = batch.exposed.clamp(min=0)
    logit = model.utility_logits(z_BMD).gather(1, index)
    shown = (batch.exposed >= 0).float()
    loss = binary_cross_entropy_with_logits(logit, batch.utility, reduction="none")
    return ((loss * shown).sum(1) / shown.sum(1).clamp(min=1)).mean()


class RerankDpoObjective(nn.Module):
    """Rerank-DPO (Eq. 8): the policy against its frozen copy, over a source's pairs.

    pi(Y) is the block factorisation that decoding uses (docs/paper_index.md, what the sources
    leave open), unless
    ``factorisation`` asks for head 1's. With a ``teacher`` the evaluators are distilled as well.
    """

    def __init__(
        self,
        model: GenReranker,
        source: PairSource,
        settings: PostTrainSettings,
        seed: int,
        teacher: Searched | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        # Not a submodule: the reference is not trained, saved or synchronised.
        self._reference = [copy.deepcopy(model).eval().requires_grad_(False)]
        self.source = source
        self.settings = settings
        self.seed = seed
        self.teacher = teacher

    @property
    def reference(self) -> GenReranker:
        return self._reference[0]

    def forward(self, batch: Batch, epoch: int) -> tuple[Tensor, Scalars]:
        settings = self.settings
        encoded = self.model.encode(batch)
        losses: list[Tensor] = []
        scalars: Scalars = {}
        if settings.dpo > 0 and self._with_pairs(epoch):
            loss, scalars = self._preferences(batch, epoch, encoded)
            losses.append(settings.dpo * loss)
        if settings.distil > 0 and self.teacher is not None:
            lists, scores = self.teacher.of(batch)
            logits = self.model.block_logits(*encoded, lists, self._block)
            loss = distillation_loss(logits, lists, scores, settings.distil_temperature)
            losses.append(settings.distil * loss)
            scalars["distillation"] = loss.detach()
        return torch.stack(losses).sum(), scalars

    def _with_pairs(self, epoch: int) -> bool:
        """Whether an epoch sees pairs: the last ``dpo_epochs``, or all without a teacher."""
        settings = self.settings
        if settings.dpo_epochs == 0 or self.teacher is None or settings.distil == 0:
            return True
        return epoch > settings.optim.epochs - settings.dpo_epochs

    @property
    def _block(self) -> int | None:
        return 1 if self.settings.factorisation == "head_1" else None

    def _preferences(
        self, batch: Batch, epoch: int, encoded: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Scalars]:
        """Eq. 8 over the source's pairs."""
        seeds = row_seeds(self.seed, epoch, batch.row)
        # Rounding may blur the loss; which lists are drawn and preferred it may not.
        with torch.autocast(batch.exposed.device.type, enabled=False):
            pairs = self.source.pairs(batch, self.model, seeds)
        rows = torch.cat([pairs.rows(), pairs.rows()])
        both = torch.cat([pairs.chosen, pairs.rejected])
        policy, logits = self._log_probs(self.model, encoded, both, rows)
        with torch.no_grad():
            begun = self.reference.encode(batch)
            reference, _ = self._log_probs(self.reference, begun, both, rows)
        size = len(pairs.chosen)
        log_probs = PairLogProbs(policy[:size], policy[size:], reference[:size], reference[size:])
        loss, scalars = rerank_dpo_loss(
            log_probs,
            lengths(pairs.chosen),
            lengths(pairs.rejected),
            pairs.weight,
            self.settings,
        )
        scalars["pairs"] = pairs.weight.mean()
        scalars["mass_unshown"] = mass_on_unshown(logits.detach(), batch.exposed[rows], both)
        return loss, scalars

    def _log_probs(
        self, model: GenReranker, encoded: tuple[Tensor, Tensor], lists: Tensor, rows: Tensor
    ) -> tuple[Tensor, Tensor]:
        """log p of each position [P, N], and the logits [P, N, M]."""
        z, prior = encoded
        logits = model.block_logits(z[rows], prior[rows], lists, self._block)
        return list_log_probs(logits, lists), logits


def mass_on_unshown(logits_BNM: Tensor, exposed_BN: Tensor, lists_BN: Tensor) -> Tensor:
    """Mean probability, over the positions of lists, of candidates that were not shown."""
    candidates = logits_BNM.size(-1)
    shown = chosen_before(exposed_BN, candidates)[:, -1]
    before = chosen_before(lists_BN, candidates)[:, :-1]
    p = logits_BNM.float().masked_fill(before, -1e9).softmax(-1)
    mass = (p * (~shown).unsqueeze(1)).sum(-1)
    valid = lists_BN >= 0
    return (mass * valid).sum() / valid.sum().clamp(min=1)
