"""The rules of the feedback table for one row of plain data: the oracle of rules.check_batch."""

from __future__ import annotations

import math
from datetime import datetime, timezone
from typing import Any

from contracts.features import FeatureSpec
from streaming.feedback_table.rules import Window


def broken_rules(row: dict[str, Any], spec: FeatureSpec, window: Window) -> set[str]:
    """Names of the rules that a row breaks; ``None`` lists are absent."""
    broken = set()
    candidates, exposed = row["candidates"] or [], row["exposed"] or []
    if not row["request_id"] or not row["user"] or row["time"] is None:
        broken.add("missing")
    if not candidates or not exposed or None in candidates:
        broken.add("missing")
    if len(set(candidates)) < len(candidates):
        broken.add("candidate_twice")
    if len(set(exposed)) < len(exposed):
        broken.add("exposed_twice")
    if any(index is None or not 0 <= index < len(candidates) for index in exposed):
        broken.add("exposed_out_of_range")
    numbers = {"scores"} | {f"item__{one.name}" for one in spec.item.dense if one.name != "score"}
    others = {f"item__{one.name}" for one in spec.item.categorical if one.name != "item"}
    for name in numbers | others:
        if row[name] is not None and len(row[name]) != len(candidates):
            broken.add("candidates_unaligned")
    for name in numbers:
        if any(value is not None and not math.isfinite(value) for value in row[name] or []):
            broken.add("not_finite")
    for one in spec.user.dense:
        value = row[f"user__{one.name}"]
        if value is not None and not math.isfinite(value):
            broken.add("not_finite")
    if row["log_prob"] is not None:
        logs = row["log_prob"]
        if len(logs) != len(exposed):
            broken.add("log_prob")
        if any(one is None or not math.isfinite(one) or one > 1e-6 for one in logs):
            broken.add("log_prob")
    heat = row["temperature"]
    if heat is not None and not (math.isfinite(heat) and heat >= 0):
        broken.add("exploration")
    when = datetime.fromtimestamp((row["time"] or 0) / 1000, timezone.utc)
    if row["day"] != when.strftime("%Y-%m-%d"):
        broken.add("day")
    for kind in spec.feedback:
        values = row[f"feedback__{kind.kind}"]
        times = row[f"feedback_time__{kind.kind}"]
        for given in (values, times):
            if given is not None and len(given) != len(exposed):
                broken.add("feedback_unaligned")
        for value in values or []:
            if value is None:
                continue
            binary = kind.type == "binary"
            if not math.isfinite(value) or value < 0 or (binary and value not in (0.0, 1.0)):
                broken.add("feedback_value")
        pairs = [one is None for one in values or []], [one is None for one in times or []]
        if pairs[0] != pairs[1]:
            broken.add("feedback_without_time")
        for time in times or []:
            if time is None:
                continue
            late = time - (row["time"] or 0)
            if late < -window.before or (window.after is not None and late > window.after):
                broken.add("feedback_outside_window")
    return broken
