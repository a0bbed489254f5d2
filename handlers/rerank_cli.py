"""The client as a command: rerank a request from a file, or write an example request."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from contracts.assignment import Router
from contracts.features import Categorical, FeatureGroup, FeatureSpec
from contracts.reading import ContractError, read_json, write_json
from contracts.routing import Routing
from contracts.slates import Candidate, RerankRequest, Scalar
from handlers.client import RerankClient
from handlers.rerank_result import RerankError, RerankResult
from handlers.routed_client import RoutedClient

EXAMPLES = """
Examples:

  python handlers/client.py example --out request.json

  python handlers/client.py rerank request.json

  python handlers/client.py rerank request.json --release r0003 --temperature 0.5 --seed 7

  python handlers/client.py rerank request.json --routing routing.json

  python handlers/client.py route user-17 --routing routing.json --surface home

Exit codes: 0 done, 1 the server or release could not be used, 2 bad input.
"""

UNAVAILABLE, BAD_INPUT = 1, 2

Url = Annotated[str, typer.Option(envvar="GREF_URL", help="Triton's gRPC address.")]
ReleaseName = Annotated[
    str | None, typer.Option(help="Release to ask; without it the newest that is ready.")
]

RoutingFile = Annotated[
    Path | None, typer.Option(help="routing.json: ask the release of the user's arm.")
]

app = typer.Typer(
    help=__doc__, epilog=EXAMPLES, add_completion=False, no_args_is_help=True, rich_markup_mode=None
)
console, errors = Console(), Console(stderr=True)


@app.command()
def rerank(
    request: Annotated[Path, typer.Argument(help="JSON file of a request.")],
    url: Url = "127.0.0.1:8001",
    release: ReleaseName = None,
    routing: RoutingFile = None,
    temperature: Annotated[
        float | None,
        typer.Option(help="0 is greedy (as without it, save where a routing explores)."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of the draw; 0 without it, or the routing's.")
    ] = None,
    deadline_ms: Annotated[float, typer.Option(help="Wall time of the call.", min=1)] = 2000.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Rerank the candidates of a request and print the list."""
    try:
        asked = read_json(request, RerankRequest)
        if routing and release:
            raise ContractError("--routing picks the release; leave out --release")
        result = _asked(asked, url, release, routing, temperature, seed, deadline_ms)
    except ContractError as error:
        _say("error", error)
        raise typer.Exit(BAD_INPUT) from None
    if as_json:
        print(msgspec.json.encode(result).decode())
    else:
        console.print(_headline(asked, result), markup=False, soft_wrap=True)
        console.print(_table(result))
    if result.fallback:
        _say(f"given order ({result.fallback})", result.error)
        raise typer.Exit(BAD_INPUT if result.fallback == "bad_request" else UNAVAILABLE)


@app.command()
def route(
    user: Annotated[str, typer.Argument(help="A user's id.")],
    routing: Annotated[Path, typer.Option(help="routing.json.")],
    surface: Annotated[str, typer.Option(help="Of the request.")] = "",
    request_id: Annotated[str, typer.Option(help="Of the request.")] = "",
) -> None:
    """Say who gets what: release, arms and exploration of a request, without a server."""
    try:
        found = Router(read_json(routing, Routing)).route(surface, user, request_id)
    except ContractError as error:
        _say("error", error)
        raise typer.Exit(BAD_INPUT) from None
    drawn = f"drawn at {found.temperature:g}" if found.temperature else "greedy"
    arm = found.arm or "no experiment"
    console.print(f"{found.release}, {arm}, {drawn}", markup=False, highlight=False)


@app.command()
def example(
    url: Url = "127.0.0.1:8001",
    release: ReleaseName = None,
    candidates: Annotated[int, typer.Option(min=1, max=512, help="How many.")] = 20,
    out: Annotated[Path | None, typer.Option(help="File; without it standard output.")] = None,
) -> None:
    """Write an example request with every feature that the served release reads."""
    try:
        with RerankClient(url, release) as client:
            spec = client.connect().spec
    except RerankError as error:
        _say("error", error)
        raise typer.Exit(UNAVAILABLE) from None
    request = example_request(spec, candidates)
    if out:
        write_json(out, request)
        console.print(f"wrote {out}")
    else:
        print(json.dumps(msgspec.to_builtins(request), indent=2, ensure_ascii=False))


def _asked(
    request: RerankRequest,
    url: str,
    release: str | None,
    routing: Path | None,
    temperature: float | None,
    seed: int | None,
    deadline_ms: float,
) -> RerankResult:
    if routing is not None:
        with RoutedClient(url, routing, deadline_ms=deadline_ms) as routed:
            return routed.rerank(request, temperature=temperature, seed=seed)
    with RerankClient(url, release, deadline_ms=deadline_ms) as client:
        return client.rerank(request, temperature=temperature or 0.0, seed=seed or 0)


def example_request(spec: FeatureSpec, candidates: int) -> RerankRequest:
    """A request with made-up values for every feature of a spec."""
    items = [_values(spec.item, index) for index in range(candidates)]
    has_score = any(feature.name == "score" for feature in spec.item.dense)
    for features in items:
        features.pop("item", None)
        features.pop("score", None)
    user = _values(spec.user, 0)
    user.pop("user", None)
    return RerankRequest(
        request_id="example",
        user="user-1",
        user_features=user,
        candidates=tuple(
            Candidate(
                item=f"item-{index + 1}",
                features=features,
                score=round(1 - index / candidates, 3) if has_score else None,
            )
            for index, features in enumerate(items)
        ),
    )


def _values(group: FeatureGroup, index: int) -> dict[str, Scalar]:
    values: dict[str, Scalar] = {}
    for feature in group.categorical:
        values[feature.name] = _category(feature, index)
    for number in group.dense:
        # Within one standard deviation of the mean, on the scale of the raw value.
        value = number.mean + number.std * ((index % 5) - 2) / 2
        values[number.name] = round(
            max(0.0, 2.718281828**value - 1) if number.transform == "log1p" else value, 4
        )
    return values


def _category(feature: Categorical, index: int) -> str:
    if feature.vocabulary:
        return feature.vocabulary[index % len(feature.vocabulary)]
    return f"{feature.name}-{index % 7}"


def _headline(request: RerankRequest, result: RerankResult) -> str:
    made_by = f"release {result.release}" if not result.fallback else "given order"
    arm = f", {result.arm}" if result.arm else ""
    passes = f", {result.passes} decoder passes" if result.passes is not None else ""
    count = len(request.candidates)
    took = f"{result.latency_ms:.1f} ms{passes}"
    return f"{request.request_id}: {count} candidates, {made_by}{arm}, {took}"


def _table(result: RerankResult) -> Table:
    table = Table()
    for name in ("place", "item", "given place", "log-probability"):
        table.add_column(name, justify="left" if name == "item" else "right")
    for place, (item, index) in enumerate(zip(result.items, result.indices)):
        log_prob = f"{result.log_prob[place]:.4f}" if result.log_prob else ""
        table.add_row(str(place + 1), escape(item), str(index + 1), log_prob)
    return table


def _say(what: str, cause: object) -> None:
    errors.print(f"{what}: {cause}", style="red", markup=False, highlight=False, soft_wrap=True)
