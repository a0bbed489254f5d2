"""Vectors of docs/experiments.md; ``python -m tests.contracts.assignment_vectors`` prints them."""

from __future__ import annotations

import json

import xxhash

from contracts.assignment import assign, bucket, seed_of, temperature_of
from contracts.experiments import Exploration
from tests.contracts.made_experiments import weighted

#: Arms of the table: control 0.7, t1 0.1 of at most 0.5, t2 0.2 of at most 0.3.
WEIGHTS, CEILINGS = (1_000, 2_000), (5_000, 3_000)
SALTS = ("s", "home-2026-03")
UNITS = ("1", "2", "3", "user-17", "user-42", "a/b", "é", "e\u0301", "日本語", "😀", " 1", "u" * 40)
REQUESTS = ("r-1", "r-2", "r-3", "0b2c7d54-6a3f-4a86-9f8c-2f7f0c7d7a11", "é", "t0-71")
SHARE = 0.4


def unit_rows() -> list[str]:
    """Table rows: salt, unit, UTF-8 bytes that are hashed, xxHash64, bucket, arm."""
    rows = []
    for salt in SALTS:
        experiment = weighted(WEIGHTS, CEILINGS, salt=salt)
        for unit in UNITS:
            hashed = f"{salt}/{unit}".encode()
            arm = experiment.arms[assign(experiment, unit)].name
            digest = xxhash.xxh64_hexdigest(hashed)
            cells = salt, json.dumps(unit, ensure_ascii=False), hashed.hex(), digest
            rows.append(f"| {' | '.join((*cells, str(bucket(salt, unit)), arm))} |")
    return rows


def request_rows() -> list[str]:
    """Table rows: request_id, bucket of exploration, whether SHARE explores it, seed."""
    exploration = Exploration(share=SHARE, temperature=1.0)
    return [
        f"| {json.dumps(request, ensure_ascii=False)} | {bucket(':explore', request)} | "
        f"{'yes' if temperature_of(exploration, request) else 'no'} | {seed_of(request)} |"
        for request in REQUESTS
    ]


if __name__ == "__main__":
    print("\n".join((*unit_rows(), "", *request_rows())))
