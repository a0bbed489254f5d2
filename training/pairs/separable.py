"""Evaluators whose items and places are apart, for the search of a list.

Whoever ordered the logged lists knew more than the features say: an item that looks weak and stands
at the top was put there for a reason, and does well. An evaluator learns that of the place, and a
search that believes it moves weak items up, which is to take selection for effect. The examination
hypothesis (Craswell et al., "An Experimental Comparison of Click Position-Bias Models", WSDM 2008)
leaves no room for that: what a place is worth is the same for all items. Here evaluators are fitted
freely and asked part of the way towards it.
"""

from __future__ import annotations

import copy

from training.pairs.ensemble import Ensemble


def separable(ensemble: Ensemble, list_size: int, share: float) -> Ensemble:
    """The ensemble with its inputs of the place moved to their mean over the list.

    What a place adds to every item's logit stays as it is.

    Args:
        list_size: n, the places that were fitted.
        share: how far they are moved: 0 is as fitted; at 1 the place meets no item.

    Returns:
        A copy; the ensemble itself at 0.
    """
    if share == 0:
        return ensemble
    moved = copy.deepcopy(ensemble)
    for member in moved.evaluators():
        places = member.position.weight.data[:list_size]
        places.lerp_(places.mean(0), share)
    return moved
