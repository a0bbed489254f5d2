"""The arithmetic limit: what a list costs in matrix products, at the rate that this machine has.

Only products count, 2 operations for a multiplication and its addition; norms, activations,
softmax, gathers and choices are what an engine adds to the limit.

Axes: B batch, M candidates, N list size, H heads, D width, L layers.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch

from benchmarks.peer_networks import GREF, SEQ2SLATE, TRANSFORMER_POINTER, WITHOUT_OMTP
from benchmarks.rounds import Clock
from contracts.features import FeatureSpec
from training.settings import ModelSettings


@dataclass(frozen=True)
class Product:
    """``times`` products, one after another, of [batch, rows, inner] by [batch, inner, columns]."""

    rows: int
    inner: int
    columns: int
    batch: int = 1
    times: int = 1

    @property
    def operations(self) -> int:
        return 2 * self.times * self.batch * self.rows * self.inner * self.columns


def operations(products: Iterable[Product]) -> int:
    """Floating-point operations of all."""
    return sum(product.operations for product in products)


def products_of(
    name: str, spec: FeatureSpec, settings: ModelSettings, batch: int, candidates: int
) -> list[Product]:
    """The products of one call of a network of benchmarks/peer_networks.py."""
    n, given = spec.list_size, _input(spec, settings.width, batch, candidates)
    encoder = _encoder_layer(settings, batch, candidates) * settings.encoder_layers
    if name in (GREF, WITHOUT_OMTP):
        heads = settings.heads if name == GREF else 1
        return given + encoder + _omtp(settings, batch, candidates, n, heads)
    if name == "NAR4Rec":
        return given + encoder + _positions(settings, batch, candidates, n)
    if name == "PRM":
        return given + encoder + [Product(batch * candidates, settings.width, 1)]
    if name == "DNN":
        hidden = settings.feed_forward * settings.width
        widths = [settings.width, *[hidden] * settings.encoder_layers, 1]
        rows = batch * candidates
        return given + [Product(rows, *pair) for pair in pairwise(widths)]
    if name == SEQ2SLATE:
        return given + _recurrent(settings, batch, candidates, n)
    if name == TRANSFORMER_POINTER:
        return given + encoder + _uncached(settings, batch, candidates, n)
    raise ValueError(f"no network {name!r}")


def _input(spec: FeatureSpec, d: int, batch: int, m: int) -> list[Product]:
    item, user = (
        sum(feature.width for feature in group.categorical) + group.dense_columns
        for group in (spec.item, spec.user)
    )
    rows = batch * m
    return [Product(rows, item, d), Product(batch, user, d), Product(rows, 2 * d, d)]


def _attention(settings: ModelSettings, batch: int, queries: int, keys: int) -> list[Product]:
    """Scores and weighted values of all attention heads."""
    heads = settings.attention_heads
    each = settings.width // heads
    return [
        Product(queries, each, keys, batch * heads),
        Product(queries, keys, each, batch * heads),
    ]


def _feed_forward(settings: ModelSettings, rows: int) -> list[Product]:
    d, hidden = settings.width, settings.feed_forward * settings.width
    return [Product(rows, d, hidden), Product(rows, hidden, d)]


def _encoder_layer(settings: ModelSettings, batch: int, m: int) -> list[Product]:
    d, rows = settings.width, batch * m
    projections = [Product(rows, d, d), Product(rows, d, 2 * d), Product(rows, d, d)]
    return projections + _attention(settings, batch, m, m) + _feed_forward(settings, rows)


def _omtp(settings: ModelSettings, batch: int, m: int, n: int, heads: int) -> list[Product]:
    """ceil(n / H) passes; only the newest token goes through the whole of the last layer.

    [BOS] is the same for every request up to the first look at Z, and sees itself alone.
    """
    d, layers = settings.width, settings.decoder_layers
    out = [Product(batch * m, d, 2 * layers * d)] if settings.cross_attention else []
    for done in range(0, n, heads):
        tokens = heads if done else 1
        if done:
            out.append(Product(batch * tokens, d, d))  # of the items chosen last
        for layer in range(layers):
            asked = 1 if layer == layers - 1 else tokens
            rows = batch * asked
            if done:
                out += [Product(rows, d, d)] * 2 + [Product(batch * tokens, d, 2 * d)]
                out += _attention(settings, batch, asked, done + 1)
            elif layer:
                out += [Product(batch, d, 2 * d), Product(batch, d, d)]
            if settings.cross_attention:
                out += [Product(rows, d, d)] * 2 + _attention(settings, batch, asked, m)
            out += _feed_forward(settings, rows)
        room = min(heads, n - done)
        out += [Product(batch, d, room * d), Product(room, d, m, batch)]
    return out


def _position_layer(
    settings: ModelSettings, batch: int, m: int, tokens: int, own: int
) -> list[Product]:
    """A block over list positions that look at the candidates; self-attention of ``own`` rows."""
    d, rows = settings.width, batch * tokens
    return [
        *[Product(own * tokens, d, 3 * d), Product(own * tokens, d, d)],
        *_attention(settings, own, tokens, tokens),
        *[Product(rows, d, d)] * 2,
        *_attention(settings, batch, tokens, m),
        *_feed_forward(settings, rows),
    ]


def _positions(settings: ModelSettings, batch: int, m: int, n: int) -> list[Product]:
    """NAR4Rec's position layers; the first self-attention is the same for every request."""
    d, layers = settings.width, settings.decoder_layers
    out = [Product(batch * m, d, 2 * layers * d), Product(n, d, m, batch)]
    for layer in range(layers):
        out += _position_layer(settings, batch, m, n, batch if layer else 1)
    return out


def _recurrent(settings: ModelSettings, batch: int, m: int, n: int) -> list[Product]:
    """Seq2Slate: an LSTM's inputs go through its weights at once, its states one by one."""
    d, upper, lower = settings.width, settings.encoder_layers, settings.decoder_layers
    return [
        Product(batch * m, d, 4 * d, times=upper),
        Product(batch, d, 4 * d, times=upper * m),
        Product(batch, d, 2 * lower * d),
        Product(batch, d, 4 * d, times=2 * lower * n),
        *_pointer(settings, batch, m, n),
    ]


def _uncached(settings: ModelSettings, batch: int, m: int, n: int) -> list[Product]:
    """The Transformer form of Seq2Slate: step t runs t tokens through all layers."""
    d, layers = settings.width, settings.decoder_layers
    out = [*_pointer(settings, batch, m, n), Product(batch * m, d, 2 * layers * d, times=n)]
    for tokens in range(1, n + 1):
        out += _position_layer(settings, batch, m, tokens, batch) * layers
    return out


def _pointer(settings: ModelSettings, batch: int, m: int, n: int) -> list[Product]:
    d = settings.width
    return [
        Product(batch * m, d, d),
        Product(batch, d, d, times=n),
        Product(batch * m, d, 1, times=n),
    ]


def matrix_rate(
    sizes: Sequence[int] = (384, 768, 1152), device: str = "cpu", clock: Clock = "wall"
) -> float:
    """The best rate of large square products in operations a second: the machine's own limit.

    Read by the clock that the networks are timed by: on a busy machine another one would make the
    limit, and with it every share of it, look low or high.
    """
    return max(
        Product(size, size, size).operations
        / _seconds(Product(size, size, size), device, clock, least=0.15)
        for size in sizes
    )


class ShapedLimit:
    """Seconds of products, each measured once at its own shape."""

    def __init__(self, device: str = "cpu", clock: Clock = "wall") -> None:
        self._device = device
        self._clock = clock
        self._known: dict[tuple[int, int, int, int], float] = {}

    def seconds(self, products: Iterable[Product]) -> float:
        """As long as this takes with nothing between the products."""
        total = 0.0
        for product in products:
            shape = (product.batch, product.rows, product.inner, product.columns)
            if shape not in self._known:
                self._known[shape] = _seconds(product, self._device, self._clock, least=0.03)
            total += product.times * self._known[shape]
        return total


def _seconds(product: Product, device: str, clock: Clock, least: float) -> float:
    """Of one product in fp32: the fastest of several, for only interruptions make it slower."""
    read = time.process_time if clock == "cpu" else time.perf_counter
    lead = (product.batch,) if product.batch > 1 else ()
    one = torch.randn(*lead, product.rows, product.inner, device=device)
    two = torch.randn(*lead, product.inner, product.columns, device=device)
    out = torch.empty(*lead, product.rows, product.columns, device=device)
    best, spent, rounds = float("inf"), 0.0, 0
    while spent < least or rounds < 3:
        if device == "cuda":
            torch.cuda.synchronize()
        started = read()
        torch.matmul(one, two, out=out)
        if device == "cuda":
            torch.cuda.synchronize()
        took = read() - started
        best, spent, rounds = min(best, took), spent + took, rounds + 1
    return best
