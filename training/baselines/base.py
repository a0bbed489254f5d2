"""The peers by name, and what is needed to run them.

>>> peer = PEERS["prm"]
>>> fitted = peer.fit(train, valid, spec, peer.settings_type(), seed=0, on_epoch=print_it)
>>> order_Bn = fitted.rerank(batch)
"""

from __future__ import annotations

from training.baselines.bounds import GivenOrder, Oracle, RandomOrder
from training.baselines.interface import Fitted, OnEpoch, Peer, PeerSettings, trials
from training.baselines.scorers import DCN, DNN, PRM

__all__ = ["PEERS", "Fitted", "OnEpoch", "Oracle", "Peer", "PeerSettings", "trials"]

#: Every peer that learns from logs or needs nothing. The oracle needs a simulated world besides.
PEERS: dict[str, Peer] = {peer.name: peer for peer in (RandomOrder(), GivenOrder(), DNN, DCN, PRM)}
