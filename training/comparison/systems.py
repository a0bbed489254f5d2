"""Every system by name: bounds, the peers of training/baselines, GReF."""

from __future__ import annotations

from pathlib import Path

from contracts.reading import Strict
from training.baselines.base import PEERS, Peer, trials
from training.baselines.with_rates import WithRates
from training.comparison.bound_systems import ExposedSystem, OracleSystem
from training.comparison.cases import Case
from training.comparison.gref import VARIANTS
from training.comparison.system import Slates, System, Trained, with_changes


class PeerSystem:
    """A peer of training/baselines."""

    is_gref = False

    def __init__(self, peer: Peer) -> None:
        self.name, self.about, self._peer = peer.name, peer.paper, peer
        self.code = _modules(peer)
        self.learns = bool(peer.settings_type.SEARCH)

    def fits(self, case: Case) -> bool:
        return True

    def trials(self, case: Case, count: int) -> list[Strict]:
        found = trials(self._peer.settings_type, count, seed=case.seed)
        return [with_changes(one, case.peers) for one in found]

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
    everyone: list[System] = [OracleSystem(), ExposedSystem(), *peers, *VARIANTS]
    return {one.name: one for one in everyone}
