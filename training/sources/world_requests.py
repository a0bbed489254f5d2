"""A world's requests as a ranking server sees them: ids and features, none of the truth."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from contracts.slates import Candidate, RerankRequest, Scalar
from training.sources.world import Requests, World

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def rerank_request(
    world: World, requests: Requests, row: int, request_id: str, surface: str = "simulator"
) -> RerankRequest:
    """One of the drawn requests, with its candidates in the given order."""
    user = int(requests.users[row])
    return RerankRequest(
        request_id=request_id,
        user=world.user_id(user),
        candidates=candidates(world, requests.candidates[row], requests.scores[row]),
        user_features=user_features(world, user),
        surface=surface,
    )


def user_features(world: World, user: int) -> dict[str, Scalar]:
    """What is known of a user: the segment and the activity, not the taste."""
    return {"segment": f"g{world.segment[user]}", "activity": float(world.activity[user])}


def candidates(world: World, items: Ints, scores: Floats) -> tuple[Candidate, ...]:
    """Item rows [M] with the previous stage's scores [M] as candidates."""
    columns = zip(
        items.tolist(),
        scores.tolist(),
        world.category[items].tolist(),
        world.observed_quality[items].tolist(),
        world.duration[items].tolist(),
    )
    return tuple(
        Candidate(
            item=world.item_id(item),
            score=score,
            features={"category": f"c{category}", "quality": quality, "duration": duration},
        )
        for item, score, category, quality, duration in columns
    )
