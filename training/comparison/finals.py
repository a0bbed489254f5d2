"""Which of a method's stored rows its line is of."""

from __future__ import annotations

from collections.abc import Sequence

from training.comparison.store import Row


def latest(
    rows: Sequence[Row], control: str = "none", now: tuple[str, str] | None = None
) -> list[Row]:
    """Final rows of one method and one state of data and code, a row for each seed.

    Of several settings those that the most were tried for: an ablation's recipe is untuned.

    Args:
        now: the state that counts, if there are rows of it; else that of the last row does.
    """
    finals = [row for row in rows if row.role == "final" and row.control == control]
    if not finals:
        return []
    newest = next((row for row in finals if (row.data, row.code) == now), finals[-1])
    alike = [row for row in finals if (row.data, row.code) == (newest.data, newest.code)]
    most = max(row.trials for row in alike)
    last = [row for row in alike if row.trials == most][-1]
    same = {
        row.seed: row
        for row in finals
        if (row.settings, row.data, row.code) == (last.settings, last.data, last.code)
    }
    return [same[seed] for seed in sorted(same)]


def tried(rows: Sequence[Row], finals: Sequence[Row]) -> int:
    """Among how many settings those of ``finals`` were chosen.

    More than when they were trained, where more were tried since, all of them, and these are still
    the best.
    """
    first = finals[0]
    alike = [row for row in rows if (row.data, row.system_code) == (first.data, first.code)]
    known = [row for row in alike if row.role == "trial" and row.held_out is not None]
    stated = max(row.trials for row in finals)
    if not known or len({row.trial for row in known}) < max(row.trials for row in known):
        return stated
    best = max(known, key=lambda row: row.held_out or 0.0)
    return max(stated, len(known)) if best.settings == first.settings else stated
