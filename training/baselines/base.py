"""The peers by name, and what is needed to run them.

>>> peer = PEERS["prm"]
>>> fitted = peer.fit(train, valid, spec, peer.settings_type(), seed=0, on_epoch=print_it)
>>> order_Bn = fitted.rerank(batch)
"""

from __future__ import annotations

from training.baselines.bounds import GivenOrder, Oracle, RandomOrder
from training.baselines.edge_rerank import EdgeRerank
from training.baselines.fitting import logged_ndcg
from training.baselines.interface import Fitted, OnEpoch, Peer, PeerSettings, trials
from training.baselines.lambdamart import LambdaMart
from training.baselines.nar4rec_peer import Nar4RecPeer
from training.baselines.pier import PierPeer
from training.baselines.scorers import DCN, DNN, PRM
from training.baselines.seq2slate_peer import Seq2SlatePeer
from training.baselines.with_rates import WithRates

__all__ = [
    "PEERS",
    "Fitted",
    "OnEpoch",
    "Oracle",
    "Peer",
    "PeerSettings",
    "logged_ndcg",
    "trials",
]

_ALL: tuple[Peer, ...] = (
    RandomOrder(),
    GivenOrder(),
    DNN,
    DCN,
    LambdaMart(),
    PRM,
    EdgeRerank(),
    PierPeer(),
    Seq2SlatePeer(),
    Nar4RecPeer(),
    WithRates(DNN),
    WithRates(PRM),
)

#: Every peer that learns from logs or needs nothing. The oracle needs a simulated world besides.
PEERS: dict[str, Peer] = {peer.name: peer for peer in _ALL}
