"""Which gates engines need before they are published, by their precision and by what could run."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from contracts.releases import Gate
from training.engines.metric_parity import METRIC
from training.engines.parity import GRAPH, REQUIRED_GATES


def of_graph(gates: Iterable[Gate], instead: str) -> tuple[Gate, ...]:
    """Gates of a run that was not of the engine files, renamed so that nobody takes them for it."""
    return tuple(
        msgspec.structs.replace(
            gate,
            name=gate.name.replace("parity", GRAPH, 1),
            detail=f"ran {instead}; {gate.detail}",
        )
        for gate in gates
    )


def missing_gates(gates: Iterable[Gate], precision: str, graph_parity: bool) -> str | None:
    """What was not run, and what to do; None where nothing is missing."""
    names = {gate.name for gate in gates}
    required = {*REQUIRED_GATES, *([] if precision == "fp32" else [METRIC])}
    missing = sorted(required - names)
    of_graphs = {name.replace("parity", GRAPH, 1) for name in required}
    if not missing or (graph_parity and of_graphs <= names):
        return None
    if of_graphs <= names:
        return (
            "parity was checked of the graphs, not of the engine files, which could not run where "
            "they were exported; export on a machine with the GPU that they are for, or say that "
            "this will do: --accept-graph-parity"
        )
    return f"gates were not run: {', '.join(missing)}; export again"
