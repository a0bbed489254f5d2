"""Every system by name: bounds, the peers of training/baselines, GReF."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contracts.reading import Strict, stable_hash
from training.baselines.base import PEERS, Peer, trials
from training.baselines.with_rates import WithRates
from training.comparison.bound_systems import ExposedSystem, OracleSystem
from training.comparison.cases import Case
from training.comparison.gref import VARIANTS
from training.comparison.system import Slates, System, Trained, with_changes


class PeerSystem:
    """A peer of training/baselines.

    Args:
        variant: of its name, where ``changes`` (settings by dotted field) make it another row.
    """

    is_gref = False

    def __init__(
        self, peer: Peer, variant: str = "", changes: Mapping[str, Any] | None = None
    ) -> None:
        self.name = peer.name + f"-{variant}" * bool(variant)
        self.about, self._peer = peer.paper, peer
        self._changes = dict(changes or {})
        self.code = _modules(peer)
        self.learns = bool(peer.settings_type.SEARCH)

    def fits(self, case: Case) -> bool:
        return True

    def trials(self, case: Case, count: int) -> list[Strict]:
        """What a case or a variant has fixed is not searched: points that differ in it are one."""
        everything = math.prod(map(len, self._peer.settings_type.SEARCH.values()))
        drawn = trials(self._peer.settings_type, everything + 1, seed=case.seed)
        fixed = {**case.peers, **self._changes}
        changed: list[Strict] = [with_changes(one, fixed) for one in drawn]
        return list({stable_hash(one): one for one in changed}.values())[:count]

    def fit(self, slates: Slates, settings: Strict, seed: int, folder: Path) -> Trained:
        spec = slates.train.spec
        fitted = self._peer.fit(
            slates.train, slates.valid, spec, settings, seed, lambda *_, **__: None
        )
        return Trained(fitted)


def _modules(peer: Peer) -> tuple[str, ...]:
    """Where a peer's results begin: at its own module, and at that of the peer inside it."""
    inside = _modules(peer.peer) if isinstance(peer, WithRates) else ()
    return (type(peer).__module__, *inside)


def systems() -> dict[str, System]:
    """All systems by name, in the order of the tables; bounds first."""
    peers: list[System] = [PeerSystem(peer) for peer in PEERS.values()]
    greedy = PeerSystem(PEERS["edge_rerank"], "greedy", {"beam": 1})
    everyone: list[System] = [OracleSystem(), ExposedSystem(), *peers, greedy, *VARIANTS]
    return {one.name: one for one in everyone}
