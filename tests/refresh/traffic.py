"""A champion's traffic in a simulated world, written into a real Delta table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from deltalake import DeltaTable, write_deltalake

from contracts.features import FeatureSpec
from contracts.feedback_table import DAY, day_of, table_properties, table_schema
from contracts.slate_columns import to_table
from contracts.slates import Feedback, Slate
from training.checkpoint import Checkpoint
from training.data.arrays import encode_table
from training.decoding.omtp import OmtpDecode
from training.sources.simulator import DAY_MS, START_MS
from training.sources.world import Requests, World
from training.sources.world_requests import rerank_request

LATER_MS = START_MS + 20 * DAY_MS

Ints = npt.NDArray[np.int64]
Acts = dict[str, npt.NDArray[np.float64]]


def show_lists(
    world: World, checkpoint: Checkpoint, count: int, seed: int, temperature: float = 0.0
) -> tuple[Requests, list[Slate]]:
    """Requests, and the lists that a policy shows them, as slates without feedback."""
    requests = world.draw(count, np.random.default_rng([seed, 11]))
    slates = []
    for row in range(count):
        asked = rerank_request(world, requests, row, f"t{seed}-{row}")
        slates.append(
            Slate(
                request_id=asked.request_id,
                user=asked.user,
                time=LATER_MS + seed * DAY_MS + row * 1000,
                surface=asked.surface,
                release="champion",
                candidates=asked.candidates,
                exposed=(),
                user_features=asked.user_features,
                temperature=temperature,
            )
        )
    arrays = encode_table(to_table(slates, checkpoint.spec).combine_chunks(), checkpoint.spec)
    model = checkpoint.model()
    decode = OmtpDecode(model.decoder, checkpoint.spec.list_size).eval()
    shown: list[Slate] = []
    with torch.inference_mode():
        for batch in arrays.batches(512):
            heat = torch.full([batch.size, 1], temperature)
            order, log_prob, _ = decode(*model.encode(batch), heat, batch.row.unsqueeze(1))
            for row, listed, chances in zip(
                batch.row.tolist(), order.tolist(), log_prob.double().tolist()
            ):
                real = [index for index in listed if index >= 0]
                changes = {"exposed": tuple(real), "log_prob": tuple(chances[: len(real)])}
                shown.append(_with(slates[row], **changes))
    return requests, shown


def shown_items(requests: Requests, slates: Sequence[Slate]) -> Ints:
    """World rows of the shown items [S, N]."""
    exposed = np.array([slate.exposed for slate in slates])
    return np.take_along_axis(requests.candidates, exposed, axis=1)


def with_feedback(slates: Sequence[Slate], acts: Acts) -> list[Slate]:
    """The slates with what users did, [S, N] of each kind."""
    return [
        _with(
            slate,
            feedback=tuple(
                Feedback(
                    position=int(position),
                    kind=kind,
                    value=float(values[row, position]),
                    time=slate.time + 1000 * (int(position) + 1),
                )
                for kind, values in acts.items()
                for position in np.flatnonzero(values[row])
            ),
        )
        for row, slate in enumerate(slates)
    ]


def traffic(
    world: World, checkpoint: Checkpoint, count: int, seed: int, temperature: float = 0.0
) -> list[Slate]:
    """Lists that the policy shows, and what the world's users do with them."""
    requests, slates = show_lists(world, checkpoint, count, seed, temperature)
    rng = np.random.default_rng([seed, 12])
    return with_feedback(slates, world.act(requests.users, shown_items(requests, slates), rng))


def append(table: Path | str, slates: Sequence[Slate], spec: FeatureSpec) -> int:
    """Append slates in one commit, making the table if need be; the new version."""
    rows = to_table(slates, spec)
    days = pa.array([day_of(time) for time in rows["time"].to_pylist()], pa.string())
    rows = rows.append_column(pa.field(DAY, pa.string(), nullable=False), days)
    if not DeltaTable.is_deltatable(str(table)):
        DeltaTable.create(
            str(table),
            table_schema(spec),
            partition_by=[DAY],
            configuration=table_properties(spec),
            raise_if_key_not_exists=False,  # the properties are ours, not Delta's
        )
    write_deltalake(str(table), rows.cast(table_schema(spec)), mode="append")
    return DeltaTable(str(table)).version()


def _with(slate: Slate, **changes: object) -> Slate:
    fields = {name: getattr(slate, name) for name in slate.__struct_fields__}
    return Slate(**{**fields, **changes})
