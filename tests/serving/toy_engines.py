"""A small but real pair of TorchScript engines with the engine interface, for fast serving tests.

The encoder looks categories up, projects dense values and adds the user; the decoder picks one item
at a time, each choice moving its state. Nothing here is learned.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import nn

from contracts.encoding import FeatureEncoder
from contracts.features import Categorical, Dense, FeatureGroup, FeatureSpec, FeedbackKind
from contracts.releases import DataVersion, Engine, file_sha256
from contracts.slates import Candidate, RerankRequest
from training.decoding.rules import make_rules, placed, relaxed, restrict
from training.engines.parity import Engines, ParitySettings, parity_gates
from training.release.engines_folder import EnginesFile, write_engines_folder

WIDTH = 12
SPEC = FeatureSpec(
    user=FeatureGroup(
        categorical=(Categorical(name="user", buckets=50, width=4),),
        dense=(Dense(name="age", mean=40.0, std=15.0),),
    ),
    item=FeatureGroup(
        categorical=(
            Categorical(name="item", buckets=200, width=4),
            Categorical(name="topic", vocabulary=("film", "news", "sport"), width=2),
        ),
        dense=(Dense(name="score"), Dense(name="price", transform="log1p", mean=1.0)),
    ),
    list_size=5,
    candidate_buckets=(8, 16, 64, 512),
    feedback=(FeedbackKind(kind="click", type="binary"),),
    utility="click",
)


class ToyEncoder(nn.Module):
    """Encoder of the engine interface."""

    def __init__(self, spec: FeatureSpec) -> None:
        super().__init__()
        item_rows = [feature.rows for feature in spec.item.categorical] or [1]
        user_rows = [feature.rows for feature in spec.user.categorical] or [1]
        self.item_tables = nn.ModuleList([nn.Embedding(rows, WIDTH) for rows in item_rows])
        self.user_tables = nn.ModuleList([nn.Embedding(rows, WIDTH) for rows in user_rows])
        self.item_dense = nn.Linear(spec.item.dense_columns, WIDTH)
        self.user_dense = nn.Linear(spec.user.dense_columns, WIDTH)

    def forward(
        self,
        item_cat_BMC: torch.Tensor,
        item_dense_BME: torch.Tensor,
        user_cat_BC: torch.Tensor,
        user_dense_BE: torch.Tensor,
        count_B1: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        z_BMD = self.item_dense(item_dense_BME)
        for index, table in enumerate(self.item_tables):
            z_BMD = z_BMD + table(item_cat_BMC[:, :, index])
        user_BD = self.user_dense(user_dense_BE)
        for index, table in enumerate(self.user_tables):
            user_BD = user_BD + table(user_cat_BC[:, index])
        position_M = torch.arange(item_cat_BMC.size(1))
        prior_BM = -0.05 * position_M.float()[None, :].expand(z_BMD.size(0), -1)
        prior_BM = prior_BM.masked_fill(position_M[None, :] >= count_B1, -1e9)
        return torch.tanh(z_BMD + user_BD[:, None, :]), prior_BM


class ToyDecoder(nn.Module):
    """Decoder of the engine interface: greedy or sampled, one item at a time."""

    def __init__(self, list_size: int) -> None:
        super().__init__()
        self.list_size = list_size
        self.start = nn.Parameter(torch.randn(WIDTH))
        self.update = nn.Linear(WIDTH, WIDTH)

    def forward(
        self,
        z_BMD: torch.Tensor,
        prior_BM: torch.Tensor,
        temperature_B1: torch.Tensor,
        seed_B1: torch.Tensor,
        pinned_BN: torch.Tensor,
        group_BM: torch.Tensor,
        limit_B2: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        batch, padded = prior_BM.size(0), prior_BM.size(1)
        rules = make_rules(prior_BM, pinned_BN, group_BM, limit_B2)
        free_BM = prior_BM > -1e8
        state_BD = self.start[None, :].expand(batch, -1)
        orders = []
        log_probs = []
        position_M = torch.arange(padded).double()
        for step in range(self.list_size):
            logits_BM = 2.0 * (z_BMD * state_BD[:, None, :]).sum(2) + prior_BM
            place_B1 = torch.full([batch, 1], step)
            logits_BM = restrict(logits_BM.masked_fill(~free_BM, -1e9), place_B1, rules)
            # Reproducible noise from seed, step and position alone, so that a row's draw does not
            # depend on its neighbours or on the padding.
            phase_BM = (seed_B1 % 9973).double() * 12.9898 + step * 78.233 + position_M * 37.719
            uniform_BM = torch.frac(torch.sin(phase_BM).abs() * 43758.5453).clamp(1e-9, 1 - 1e-9)
            gumbel_BM = -torch.log(-torch.log(uniform_BM)).float()
            noisy_BM = logits_BM + gumbel_BM * temperature_B1
            choice_B = noisy_BM.masked_fill(logits_BM < -1e8, -3e9).argmax(1)
            any_B = free_BM.any(1)
            log_prob_BM = torch.log_softmax(logits_BM, 1)
            chosen_B = log_prob_BM.gather(1, choice_B[:, None])[:, 0]
            item_B = torch.where(any_B, choice_B, -torch.ones_like(choice_B))
            rules = placed(rules, place_B1, item_B)
            orders.append(item_B)
            log_probs.append(torch.where(any_B, chosen_B, torch.zeros_like(chosen_B)))
            free_BM = free_BM.scatter(1, choice_B[:, None], False)
            item_BD = z_BMD[torch.arange(batch), choice_B]
            state_BD = torch.tanh(self.update(item_BD) + self.start[None, :])
        passes_B1 = torch.full([batch, 1], self.list_size, dtype=torch.int32)
        order_BN = torch.stack(orders, 1).int()
        gave_B2 = relaxed(order_BN, pinned_BN, rules)
        return order_BN, torch.stack(log_probs, 1), passes_B1, gave_B2


def toy_modules(spec: FeatureSpec = SPEC, seed: int = 0) -> tuple[ToyEncoder, ToyDecoder]:
    """The eager pair; the same seed gives the same weights."""
    torch.manual_seed(seed)
    return ToyEncoder(spec).eval(), ToyDecoder(spec.list_size).eval()


def toy_request(number: int, candidates: int = 12) -> RerankRequest:
    """A request with features of every kind; distinct numbers give distinct requests."""
    topics = ("film", "news", "sport", "never seen")
    return RerankRequest(
        request_id=f"request-{number}",
        user=f"user-{number % 40}",
        user_features={"age": 20 + number % 50},
        candidates=tuple(
            Candidate(
                item=f"item-{number}-{index}",
                score=1.0 / (index + 1),
                features={
                    "topic": topics[(number + index) % 4],
                    "price": float((7 * number + index) % 30),
                },
            )
            for index in range(candidates)
        ),
    )


def write_toy_engines(folder: Path, spec: FeatureSpec = SPEC, seed: int = 0) -> Path:
    """Script, freeze and save the pair as a complete engines folder, parity gates included."""
    folder.mkdir(parents=True, exist_ok=True)
    eager = toy_modules(spec, seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        scripted = [torch.jit.freeze(torch.jit.script(module)) for module in eager]
        scripted[0].save(str(folder / "encoder.pt"))
        scripted[1].save(str(folder / "decoder.pt"))
    encoder = FeatureEncoder(spec)
    batches = [
        encoder.encode([toy_request(number, 1 + 3 * number) for number in range(5)]),
        encoder.encode([toy_request(7, 60)]),
    ]
    gates = parity_gates(
        Engines(*eager, spec.list_size),
        Engines(*scripted, spec.list_size),
        batches,
        spec.candidate_buckets,
        ParitySettings(),
    )
    engines = EnginesFile(
        engines=tuple(
            Engine(
                part=part,
                format="torchscript",
                precision="fp32",
                backend="python",
                file=f"{part}.pt",
                versions={"torch": str(torch.__version__)},
            )
            for part in ("encoder", "decoder")
        ),
        feature_spec_sha256=spec.hash(),
        list_size=spec.list_size,
        heads=1,
        settings={"toy": {"seed": seed}},
        data=DataVersion(dataset="toy", fingerprint="0"),
        gates=gates,
        files={f"{part}.pt": file_sha256(folder / f"{part}.pt") for part in ("encoder", "decoder")},
    )
    write_engines_folder(folder, engines, spec)
    return folder
