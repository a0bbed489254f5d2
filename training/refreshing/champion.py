"""The release that a refresh starts from and is measured against."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from contracts.reading import ContractError
from contracts.releases import ReleaseManifest
from training.checkpoint import Checkpoint, load_checkpoint, weights_sha256
from training.data.facts import FACTS, DataFacts, facts_from_text
from training.release.store import ReleaseStore
from training.sources.feedback_table import FeedbackTable


@dataclass(frozen=True)
class Champion:
    """The champion, verified.

    Attributes:
        file: its checkpoint's file; weights_sha256: of the weights, the reference of the DPO.
        facts: of the slates that it was trained on, None where its checkpoint is too old to say.
    """

    name: str
    manifest: ReleaseManifest
    file: Path
    checkpoint: Checkpoint
    weights_sha256: str
    facts: DataFacts | None


def open_champion(store: ReleaseStore) -> Champion:
    """Read and check the champion.

    Raises:
        ContractError: there is none, it is damaged, or it was published without its checkpoint.
    """
    name = store.champion()
    file = store.checkpoint(name)
    checkpoint = load_checkpoint(file)
    text = checkpoint.data.get(FACTS)
    return Champion(
        name=name,
        manifest=store.manifest(name),
        file=file,
        checkpoint=checkpoint,
        weights_sha256=weights_sha256(checkpoint.weights),
        facts=None if text is None else facts_from_text(text, f"{file}: {FACTS}"),
    )


def check_spec(champion: Champion, table: FeedbackTable) -> None:
    """Raise ContractError unless the table's rows and the champion have one feature spec."""
    theirs, ours = table.spec.hash(), champion.checkpoint.spec.hash()
    if theirs != ours:
        raise ContractError(
            f"{table.uri}: feature spec {theirs}, the champion {champion.name}'s {ours}; their "
            "features are not the same. Give the table of this champion's traffic, or train, "
            "publish and name a champion under the table's spec"
        )
