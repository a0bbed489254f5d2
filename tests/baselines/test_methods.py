"""Choices and decodes of the peers against plain ones, written from their papers."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.baselines.networks import KINDS, inputs_of, network
from tests.model.tiny import SPEC, model_settings, random_batch
from training.baselines.choosing import best_first, match_positions
from training.baselines.nar4rec import Nar4Rec
from training.baselines.prm import Prm
from training.baselines.seq2slate import Seq2Slate

SIZES = st.tuples(st.integers(1, 7), st.integers(1, 6), st.integers(0, 3), st.integers(0, 10_000))


def drawn(m: int, positions: int, padding: int, seed: int) -> tuple[Tensor, Tensor]:
    """Logits [1, N, M + padding], where padded candidates look best, and the mask."""
    logits = torch.randn(1, positions, m + padding, generator=torch.Generator().manual_seed(seed))
    logits[:, :, m:] += 100.0
    blocked = torch.zeros(1, m + padding)
    blocked[:, m:] = -1e9
    return logits, blocked


@settings(max_examples=60)
@given(SIZES)
def test_matching_is_greedy_from_the_first_position_on(sizes: tuple[int, int, int, int]) -> None:
    m, positions, _, _ = sizes
    logits, blocked = drawn(*sizes)
    order, score = match_positions(logits, blocked)
    left = dict(enumerate(range(m)))
    for place in range(positions):
        if not left:
            assert (order[0, place], score[0, place]) == (-1, 0)
            continue
        values = {item: float(logits[0, place, item]) for item in left}
        best = max(values, key=values.__getitem__)
        assert order[0, place] == best
        total = sum(math.exp(value) for value in values.values())
        assert float(score[0, place]) == pytest.approx(values[best] - math.log(total), abs=1e-4)
        del left[best]


@settings(max_examples=60)
@given(SIZES)
def test_best_first_sorts_the_real_candidates(sizes: tuple[int, int, int, int]) -> None:
    m, list_size, _, _ = sizes
    logits, blocked = drawn(*sizes)
    order, score = best_first(logits[:, 0], blocked, list_size)
    values = logits[0, 0, :m].double().numpy()
    expected = np.argsort(-values)[:list_size].tolist()
    assert order[0].tolist() == expected + [-1] * (list_size - len(expected))
    softmax = values - np.log(np.exp(values).sum())
    assert score[0, : len(expected)].tolist() == pytest.approx(softmax[expected], abs=1e-4)


def test_seq2slate_is_the_pointer_network_of_its_paper() -> None:
    """Against cells, one request and one step at a time, with weights copied by name."""
    made = network("seq2slate")
    assert isinstance(made, Seq2Slate)
    for counts, seed in (([7], 0), ([12], 1), ([3], 2)):
        given = inputs_of(random_batch(counts, seed=seed))
        x_MD = made.input(*given)[0][0]
        states_MD, last = x_MD, x_MD[-1]
        for layer in range(made.encoder.num_layers):
            cell, hidden = cell_of(made.encoder, layer), None
            outs = []
            for row in states_MD:
                hidden = cell(row[None], hidden)
                outs.append(hidden[0][0])
            states_MD, last = torch.stack(outs), outs[-1]
        width = len(last)
        start = torch.tanh(made.bridge(last)).view(2, made.decoder_layers, 1, width)
        state = [(start[0, layer], start[1, layer]) for layer in range(made.decoder_layers)]
        fed, chosen = made.begin, []
        while len(chosen) < min(counts[0], SPEC.list_size):
            value = fed[None]
            for layer in range(made.decoder_layers):
                state[layer] = cell_of(made.decoder, layer)(value, state[layer])
                value = state[layer][0]
            pointed = made.point(torch.tanh(made.key(states_MD) + made.query(value))).squeeze(1)
            pointed[chosen] = -torch.inf
            chosen.append(int(pointed.argmax()))
            fed = x_MD[chosen[-1]]
        assert made(*given)[0][0, : len(chosen)].tolist() == chosen


def cell_of(stack: nn.LSTM, layer: int) -> nn.LSTMCell:
    cell = nn.LSTMCell(stack.hidden_size, stack.hidden_size)
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    cell.load_state_dict({name: getattr(stack, f"{name}_l{layer}") for name in names})
    return cell.requires_grad_(False)


@pytest.mark.parametrize("kind", ["seq2slate", "seq2slate_transformer"])
def test_a_shorter_list_is_the_beginning_of_a_longer_one(kind: str) -> None:
    long = network(kind)
    weights = {
        name: value[:3] if name == "place.weight" else value
        for name, value in long.state_dict().items()
    }
    short = KINDS[kind](msgspec.structs.replace(SPEC, list_size=3), model_settings()).eval()
    short.load_state_dict(weights)
    given = inputs_of(random_batch([12, 5, 2, 9], seed=5))
    with torch.inference_mode():
        torch.testing.assert_close(short(*given)[1], long(*given)[1][:, :3], atol=1e-4, rtol=1e-4)
        assert torch.equal(short(*given)[0], long(*given)[0][:, :3])


def test_nar4rec_positions_see_one_another_and_the_candidates() -> None:
    made = network("nar4rec")
    assert isinstance(made, Nar4Rec)
    given = inputs_of(random_batch([9], seed=1))
    logits, _ = made.logits(*given)
    for place in (0, SPEC.list_size - 1):
        other = KINDS["nar4rec"](SPEC, model_settings()).eval()
        other.load_state_dict(made.state_dict())
        with torch.no_grad():
            other.place.weight[place] += 1.0
            changed, _ = other.logits(*given)
        # In both directions: a change of the last position reaches the first, and the reverse.
        for reached in (0, SPEC.list_size - 1):
            assert not torch.allclose(changed[:, reached], logits[:, reached], atol=1e-3)


def test_prm_lets_candidates_see_one_another_and_dnn_does_not() -> None:
    item_cat, item_dense, *rest = inputs_of(random_batch([6], seed=2))
    other = item_dense.clone()
    other[0, 5] += 3.0
    prm = network("prm")
    assert isinstance(prm, Prm)
    for kind, moves in (("prm", True), ("dnn", False)):
        made = network(kind)
        scores = []
        for dense in (item_dense, other):
            x_BMD, blocked = made.input(item_cat, dense, *rest)
            if kind == "prm":
                for layer in made.layers:
                    x_BMD = layer(x_BMD, blocked[:, None, None])
                scores.append(made.score(x_BMD)[0, :5])
            else:
                scores.append(made.layers(x_BMD)[0, :5])
        assert torch.allclose(*scores, atol=1e-5) != moves
