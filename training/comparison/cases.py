"""What systems are compared on, and the slates of each case."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

import msgspec

from contracts.datasets import MANIFEST, read_dataset
from contracts.locking import one_at_a_time
from contracts.reading import ContractError, Strict, stable_hash
from training.comparison.code_state import slates_state
from training.comparison.thinning import Thinned
from training.comparison.utilities import Utility, with_utility
from training.prepare import SourceName, make_source
from training.sources.base import Source
from training.sources.simulator import Simulator, SimulatorSettings
from training.sources.world import PRESETS, WorldSettings
from training.sources.writing import write_dataset


class Case(Strict, kw_only=True, frozen=True):
    """A dataset to compare systems on.

    Attributes:
        title: what it is, in a table's heading.
        primary: the metric that decides, one of those of docs/evaluation.md.
        world: of a simulated case; None for KuaiRand.
        lists: requests of a simulated case.
        list_size: of pseudo-lists. shown: how many of them count as shown in training (0: all);
            systems are judged with the feedback of all.
        seed: draws the slates; training has seeds of its own.
        utility: what U stands for (training/comparison/utilities.py).
        share: of the train lists that are kept.
        gref, peers: settings in the place of the defaults, by dotted field, where there is such
            a field.
    """

    name: str
    title: str
    primary: str
    source: Literal["simulator", "kuairand"] = "simulator"
    world: WorldSettings | None = None
    lists: int = 20_000
    list_size: int = 0
    shown: int = 0
    seed: int = 11
    utility: Utility = "own"
    share: float = 1.0
    gref: dict[str, Any] = msgspec.field(default_factory=dict)
    peers: dict[str, Any] = msgspec.field(default_factory=dict)

    def identity(self) -> str:
        """A hash of what its slates depend on: settings, and the code that makes them."""
        other = "name", "title", "primary", "gref", "peers"
        plain = msgspec.to_builtins(self)
        kept = {name: value for name, value in plain.items() if name not in other}
        return stable_hash([kept, slates_state(self.source)])


TRUE_CLICKS = "true click"


def _world(name: str, title: str, preset: str, **changes: Any) -> Case:
    return Case(
        name=name,
        title=f"Simulated: {title}",
        primary=TRUE_CLICKS,
        world=PRESETS[preset],
        seed=12,  # requests on which nothing was chosen (docs/evaluation/README.md)
        **changes,
    )


def _kuairand(list_size: int, shown: int = 0) -> Case:
    part = f", the first {shown} of them shown in training" if shown else ""
    return Case(
        name=f"kuairand-{list_size}" + (f"-to-{shown}" if shown else ""),
        title=f"KuaiRand-Pure, pseudo-lists of {list_size}{part}; 3-4 May",
        primary=f"ndcg@{shown or 10}",
        source="kuairand",
        list_size=list_size,
        shown=shown,
        # Pseudo-lists: nobody saw their positions, so whoever adds up a list discounts.
        peers={"discount": "log", "evaluator.discount": "log"},
    )


#: A world of few items, which systems learn in seconds: to try the command, and for the tests.
_TINY = WorldSettings(
    items=120,
    categories=6,
    users=80,
    segments=4,
    latent=8,
    candidates=12,
    list_size=5,
    item_spread=0.7,
    retrieval=1.0,
    given_noise=1.5,
    logging_temperature=0.7,
    fatigue=0.8,
)

CASES = {
    case.name: case
    for case in (
        _kuairand(6),
        _kuairand(10),
        # KuaiRand-Pure holds 53 runs of 30 exposures in all: this is what its m > n can be.
        _kuairand(10, shown=5),
        _world("plain", "no list effect, every position is looked at", "plain"),
        _world("position", "position only", "position"),
        _world("fatigue", "redundancy that tires the eye", "noisy"),
        _world("complements", "items that lead to others", "complements"),
        _world("strong", "a strong given order", "strong"),
        Case(
            name="tiny",
            title="Simulated: a world of few items, to try the command",
            primary=TRUE_CLICKS,
            world=_TINY,
            lists=2000,
            gref={
                "model.width": 16,
                "model.encoder_layers": 1,
                "model.decoder_layers": 1,
                "model.attention_heads": 2,
                "model.heads": 2,
                "pretrain.optim.epochs": 1,
                "post_train.optim.epochs": 2,
            },
            peers={"optim.epochs": 2},
        ),
    )
}
_NEEDS_FILES = "needs --kuairand, the folder of KuaiRand-Pure's files"
#: Those of the published tables; the others are for trying.
TABLES = tuple(name for name in CASES if name != "tiny")


def chosen_cases(
    asked: Sequence[str] | None, usual: Sequence[str], kuairand: Path | None
) -> tuple[list[Case], list[str]]:
    """The cases of a command, each once, and the names of those that its files are missing for.

    Args:
        asked: by name; None takes the usual ones, as far as there are files for them.

    Raises:
        ValueError: an unknown name, a KuaiRand case asked for without its files, or no such folder.
    """
    if kuairand is not None and not kuairand.is_dir():
        raise ValueError(f"--kuairand {kuairand}: no such folder; it holds KuaiRand-Pure's files")
    if unknown := [name for name in asked or () if name not in CASES]:
        raise ValueError(f"--case {unknown[0]}; allowed: {', '.join(CASES)}")
    chosen = [CASES[name] for name in dict.fromkeys(asked or usual)]
    without = [case for case in chosen if case.source == "kuairand" and kuairand is None]
    if asked and without:
        raise ValueError(f"--case {without[0].name} {_NEEDS_FILES}")
    return [case for case in chosen if case not in without], [case.name for case in without]


def slates_of(case: Case, work: Path, kuairand: Path | None, shuffled: bool = False) -> Path:
    """The case's prepared folder under ``work``, made where it is not there yet.

    Raises:
        ValueError: a KuaiRand case without its files.
        ContractError: the folder was made of other files.
    """
    name = f"{case.name}-{case.identity()[:8]}{'-shuffled' if shuffled else ''}"
    folder = work / "slates" / name
    with one_at_a_time(folder.parent / f".{name}.lock"):
        if not (folder / MANIFEST).exists():
            source = _source(case, kuairand)
            if case.share < 1:
                source = Thinned(source, case.share)
            write_dataset(source, folder, shuffle=case.seed if shuffled else None)
        elif case.source == "kuairand" and kuairand is not None:
            _refuse_others(folder, kuairand)
    return folder


def _refuse_others(folder: Path, kuairand: Path) -> None:
    """ContractError where the slates of ``folder`` were made of other files than these."""
    if read_dataset(folder)[0].fingerprint != _fingerprint(kuairand):
        raise ContractError(
            f"{folder}: made of other files than those in {kuairand}; remove the folder, or keep "
            "what is of these files in another one (--work, --results)"
        )


@cache
def _fingerprint(kuairand: Path) -> str:
    return make_source(SourceName.kuairand, 0, {"input": kuairand}).fingerprint()


def whole_of(case: Case) -> Case | None:
    """The case whose slates have the feedback of every candidate; None where its own have."""
    if not case.shown:
        return None
    return msgspec.structs.replace(case, name=f"{case.name}-whole", shown=0)


def _source(case: Case, kuairand: Path | None) -> Source:
    if case.world is not None:
        settings = SimulatorSettings(world=case.world, lists=case.lists, seed=case.seed)
        return with_utility(Simulator(settings), case.utility)
    if kuairand is None:
        raise ValueError(f"case {case.name} {_NEEDS_FILES}")
    given: dict[str, Any] = {"input": kuairand, "list_size": case.list_size}
    if case.shown:
        given["shown"] = case.shown
    return with_utility(make_source(SourceName.kuairand, case.seed, given), case.utility)
