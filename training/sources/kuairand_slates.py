"""Lists of KuaiRand exposures as slates, their candidates ordered by the initial ranker."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from contracts.slates import Candidate, Feedback, Scalar, Slate
from training.sources.initial_ranker import InitialRanker, rank_scores
from training.sources.kuairand_features import ITEM_NUMBERS, USER_NUMBERS, PastFeatures
from training.sources.kuairand_files import USER_TEXT, VIDEO_TEXT, WATCH_TIME, Exposures

Ints = npt.NDArray[np.int64]


class SlateBuilder:
    """Turns lists of exposures into slates whose candidates the initial ranker has ordered."""

    def __init__(self, exposures: Exposures, past: PastFeatures, ranker: InitialRanker) -> None:
        self.exposures, self.past, self.ranker = exposures, past, ranker
        self._next: dict[int, int] = {}

    def slates(self, lists: Ints) -> Iterator[Slate]:
        """Slates of lists [L, size] of exposures."""
        shown = self.exposures.rows(lists.ravel())
        numbers = self.past.later(shown)
        scores = rank_scores(self.ranker, self.past.rows(shown, numbers)).reshape(lists.shape)
        users, videos = self.past.users.at(shown.user), self.past.videos.at(shown.video)
        columns: dict[str, list[Scalar]] = {
            name: [None if value != value else value for value in numbers[name].tolist()]
            for name in (*USER_NUMBERS, *ITEM_NUMBERS)
        }
        columns["length_class"] = [str(value) for value in self.past.length[videos]]
        columns.update({n: self.past.videos.text[n][videos].tolist() for n in VIDEO_TEXT})
        columns.update({n: self.past.users.text[n][users].tolist() for n in USER_TEXT})
        items = shown.video.reshape(lists.shape)
        # By score, then by id: what was shown when has no part in the order.
        given = np.lexsort((items, -scores), axis=1)
        position = np.argsort(given, axis=1)
        for index, order in enumerate(given.tolist()):
            first = index * lists.shape[1]
            yield Slate(
                request_id=self._request_id(int(shown.user[first])),
                user=str(shown.user[first]),
                time=int(shown.time[first]),
                surface="log" if shown.from_log[first] else "sequence",
                release="production",
                candidates=tuple(
                    Candidate(
                        item=str(items[index, column]),
                        score=float(scores[index, column]),
                        features={
                            name: columns[name][first + column]
                            for name in (*ITEM_NUMBERS, "length_class", *VIDEO_TEXT)
                        },
                    )
                    for column in order
                ),
                exposed=tuple(position[index].tolist()),
                user_features={name: columns[name][first] for name in (*USER_NUMBERS, *USER_TEXT)},
                feedback=_feedback(shown, first, lists.shape[1]),
            )

    def _request_id(self, user: int) -> str:
        number = self._next[user] = self._next.get(user, 0) + 1
        return f"k{user}-{number}"


def _feedback(shown: Exposures, first: int, size: int) -> tuple[Feedback, ...]:
    """What was done with the exposures ``first`` to ``first + size``; times are of exposure."""
    found = [
        Feedback(
            position=position,
            kind=kind,
            value=1.0,
            time=int(shown.time[first + position]),
        )
        for kind, labels in shown.labels.items()
        for position in np.flatnonzero(labels[first : first + size] > 0).tolist()
    ]
    found += [
        Feedback(
            position=position,
            kind=WATCH_TIME,
            value=float(shown.watch_ms[first + position]) / 1000,
            time=int(shown.time[first + position]),
        )
        for position in np.flatnonzero(shown.watch_ms[first : first + size] > 0).tolist()
    ]
    return tuple(found)
