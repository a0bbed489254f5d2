"""Lists of KuaiRand exposures as slates, their candidates ordered by the initial ranker."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from contracts.slates import Candidate, Feedback, Scalar, Slate
from training.sources.initial_ranker import InitialRanker, rank_scores
from training.sources.kuairand_features import ITEM_NUMBERS, USER_NUMBERS, PastFeatures
from training.sources.kuairand_files import USER_TEXT, VIDEO_TEXT, WATCH_TIME, Exposures

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

USER_NAMES = (*USER_NUMBERS, *USER_TEXT)
ITEM_NAMES = (*ITEM_NUMBERS, "length_class", *VIDEO_TEXT)


class SlateBuilder:
    """Turns lists of exposures into slates whose candidates the initial ranker has ordered.

    Args:
        count: how many exposures of a list, the first in time, count as shown; 0: all.
    """

    def __init__(
        self, exposures: Exposures, past: PastFeatures, ranker: InitialRanker, count: int = 0
    ) -> None:
        self.exposures, self.past, self.ranker = exposures, past, ranker
        self._count = count
        self._next: dict[int, int] = {}

    def slates(self, lists: Ints) -> Iterator[Slate]:
        """Slates of lists [L, N] of exposures, each in the order of exposure."""
        shown = self.exposures.rows(lists.ravel())
        # Inputs are computed with a list's items in the order of their ids: a row's score can
        # differ in its last bits with its place in a batch, and that place must not be a time.
        by_item = np.argsort(shown.video.reshape(lists.shape), axis=1)
        ranked = self.exposures.rows(np.take_along_axis(lists, by_item, axis=1).ravel())
        numbers = self.past.later(ranked)
        scores = rank_scores(self.ranker, self.past.rows(ranked, numbers))
        scores = scores.reshape(lists.shape).round(5)
        columns = self._columns(ranked, numbers)
        given = np.argsort(-scores, axis=1, kind="stable")
        exposed = np.take_along_axis(np.argsort(given, axis=1), np.argsort(by_item, axis=1), axis=1)
        count = self._count or lists.shape[1]
        for index, order in enumerate(given.tolist()):
            first = index * lists.shape[1]
            user = int(shown.user[first])
            yield Slate(
                request_id=self._request_id(user),
                user=str(user),
                time=int(shown.time[first]),
                surface="log" if shown.from_log[first] else "sequence",
                release="production",
                candidates=tuple(
                    Candidate(
                        item=str(ranked.video[first + column]),
                        score=float(scores[index, column]),
                        features={name: columns[name][first + column] for name in ITEM_NAMES},
                    )
                    for column in order
                ),
                exposed=tuple(exposed[index, :count].tolist()),
                user_features={name: columns[name][first] for name in USER_NAMES},
                feedback=_feedback(shown, first, count),
            )

    def _columns(self, ranked: Exposures, numbers: dict[str, Floats]) -> dict[str, list[Scalar]]:
        """Raw features of exposures, by name; None is missing."""
        users, videos = self.past.users, self.past.videos
        user, video = users.at(ranked.user), videos.at(ranked.video)
        columns: dict[str, list[Scalar]] = {
            name: [None if value != value else value for value in values.tolist()]
            for name, values in numbers.items()
        }
        columns["length_class"] = [str(value) for value in self.past.length[video]]
        columns.update({name: videos.text[name][video].tolist() for name in VIDEO_TEXT})
        columns.update({name: users.text[name][user].tolist() for name in USER_TEXT})
        return columns

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
