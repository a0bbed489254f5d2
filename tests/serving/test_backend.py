"""The python backend on the real Triton, called as a careless client would call it."""

from __future__ import annotations

import threading
from collections import Counter
from functools import partial

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from contracts.encoding import EncodedBatch, FeatureEncoder
from tests.serving.conftest import Served
from tests.serving.toy_engines import SPEC, toy_modules, toy_request
from training.engines.parity import Engines, answer

EAGER = Engines(*toy_modules(), SPEC.list_size)
TYPES = {
    "int32": "INT32",
    "int64": "INT64",
    "float32": "FP32",
    "float64": "FP64",
}


def tensors(batch: EncodedBatch) -> dict[str, np.ndarray]:
    rows = len(batch.count)
    return {
        "ITEM_CAT": batch.item_cat,
        "ITEM_DENSE": batch.item_dense,
        "USER_CAT": batch.user_cat,
        "USER_DENSE": batch.user_dense,
        "COUNT": batch.count[:, None],
        "TEMPERATURE": np.zeros((rows, 1), np.float32),
        "SEED": np.zeros((rows, 1), np.int64),
        "PINNED": np.full((rows, SPEC.list_size), -1, np.int32),
        "GROUP": np.full((rows, batch.item_cat.shape[1]), -1, np.int32),
        "LIMIT": np.zeros((rows, 2), np.int32),
    }


def good(rows: int = 1, candidates: int = 12) -> dict[str, np.ndarray]:
    requests = [toy_request(number, candidates) for number in range(rows)]
    return tensors(FeatureEncoder(SPEC).encode(requests))


def infer(served: Served, arrays: dict[str, np.ndarray], model: str = "") -> triton.InferResult:
    with triton.InferenceServerClient(served.url) as client:
        return client.infer(model or f"gref_{served.release}", inputs(arrays), client_timeout=60)


def inputs(arrays: dict[str, np.ndarray]) -> list[triton.InferInput]:
    made = []
    for name, array in arrays.items():
        made.append(triton.InferInput(name, list(array.shape), TYPES[array.dtype.name]))
        made[-1].set_data_from_numpy(array)
    return made


@pytest.mark.parametrize("rows", [1, 3, 64])
def test_answers_equal_the_eager_model(served: Served, rows: int) -> None:
    requests = [toy_request(number, 9 + number % 8) for number in range(rows)]
    batch = FeatureEncoder(SPEC).encode(requests)
    result = infer(served, tensors(batch))
    eager = answer(EAGER, batch, 0.0, [0] * rows)
    assert result.as_numpy("ORDER").tolist() == eager.order_BN.tolist()
    np.testing.assert_allclose(result.as_numpy("LOG_PROB"), eager.log_prob_BN, atol=1e-5)
    assert result.as_numpy("PASSES").tolist() == [[5]] * rows


def test_encoder_and_decoder_alone(served: Served) -> None:
    """Each engine is a model of its own, with the outputs of the engine interface."""
    arrays = good(2)
    first = {name: arrays[name] for name in list(arrays)[:5]}
    encoded = infer(served, first, f"gref_{served.release}_encoder")
    z, prior = encoded.as_numpy("Z"), encoded.as_numpy("PRIOR")
    assert (z.shape, prior.shape) == ((2, 16, 12), (2, 16))
    rest = {"Z": z, "PRIOR": prior, **{name: arrays[name] for name in list(arrays)[5:]}}
    decoded = infer(served, rest, f"gref_{served.release}_decoder")
    whole = infer(served, arrays)
    assert decoded.as_numpy("ORDER").tolist() == whole.as_numpy("ORDER").tolist()


def change(name: str, where: tuple[int, ...], value: float):
    def apply(arrays: dict[str, np.ndarray]) -> None:
        arrays[name] = arrays[name].copy()
        arrays[name][where] = value

    return apply


def replace(name: str, how):
    def apply(arrays: dict[str, np.ndarray]) -> None:
        arrays[name] = how(arrays[name])

    return apply


def no_candidates(arrays: dict[str, np.ndarray]) -> None:
    arrays["ITEM_CAT"] = arrays["ITEM_CAT"][:, :0]
    arrays["ITEM_DENSE"] = arrays["ITEM_DENSE"][:, :0]
    arrays["COUNT"] = np.zeros((1, 1), np.int32)
    arrays["GROUP"] = arrays["GROUP"][:, :0]


REFUSED = {
    "NaN of an item": (change("ITEM_DENSE", (0, 3, 0), np.nan), "ITEM_DENSE holds NaN"),
    "infinity of a user": (change("USER_DENSE", (0, 0), np.inf), "USER_DENSE holds NaN or inf"),
    "no candidates": (no_candidates, "ITEM_CAT holds 0 candidates; allowed: 1 to 512"),
    "count of zero": (change("COUNT", (0, 0), 0), r"COUNT is \[0\]; allowed: 1 to 16"),
    "count beyond the padding": (change("COUNT", (0, 0), 17), r"allowed: 1 to 16"),
    "category beyond its table": (
        change("ITEM_CAT", (0, 2, 1), 5),
        r"ITEM_CAT column 1 is 5; allowed: 0 to 4",
    ),
    "negative category": (change("USER_CAT", (0, 0), -1), r"USER_CAT column 0 is -1"),
    "negative temperature": (change("TEMPERATURE", (0, 0), -1), "allowed: 0"),
    "groups of other candidates": (
        replace("GROUP", lambda group: group[:, :-1]),
        "Z holds 16 candidates, GROUP 15",
    ),
    "negative limit": (change("LIMIT", (0, 1), -1), "LIMIT holds -1"),
    "limit of no item": (change("LIMIT", (0, 1), 2), "LIMIT allows no item"),
    "temperature NaN": (change("TEMPERATURE", (0, 0), np.nan), "TEMPERATURE holds NaN"),
    "other lengths": (
        replace("ITEM_DENSE", lambda a: a[:, :10]),
        "ITEM_CAT holds 16 candidates, ITEM_DENSE 10",
    ),
    "wrong width": (replace("ITEM_CAT", lambda a: np.repeat(a, 2, axis=2)), "ITEM_CAT.*shape"),
    "wrong dtype": (replace("ITEM_DENSE", lambda a: a.astype(np.float64)), "data-type.*FP64"),
    "batch too large": (
        lambda arrays: arrays.update({k: np.repeat(v, 65, axis=0) for k, v in arrays.items()}),
        "batch-size must be <= 64",
    ),
    "a tensor missing": (lambda arrays: arrays.pop("SEED"), "expected 10 inputs but got 9"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_input_is_answered_with_an_error(alive: Served, name: str) -> None:
    damage, message = REFUSED[name]
    arrays = good()
    damage(arrays)
    with pytest.raises(InferenceServerException, match=message) as refused:
        infer(alive, arrays)
    assert refused.value.status() == "StatusCode.INVALID_ARGUMENT"


def test_bytes_that_do_not_fill_the_shape(alive: Served) -> None:
    made = inputs(good())
    made[0]._raw_content = made[0]._raw_content[:-4]
    with (
        triton.InferenceServerClient(alive.url) as client,
        pytest.raises(InferenceServerException, match="ITEM_CAT"),
    ):
        client.infer(f"gref_{alive.release}", made)


def test_decoder_refuses_nan_of_an_encoder(alive: Served) -> None:
    z = np.full((1, 8, 12), np.nan, np.float32)
    arrays = {
        "Z": z,
        "PRIOR": np.zeros((1, 8), np.float32),
        "TEMPERATURE": np.zeros((1, 1), np.float32),
        "SEED": np.zeros((1, 1), np.int64),
        "PINNED": np.full((1, SPEC.list_size), -1, np.int32),
        "GROUP": np.full((1, 8), -1, np.int32),
        "LIMIT": np.zeros((1, 2), np.int32),
    }
    with pytest.raises(InferenceServerException, match="Z holds NaN"):
        infer(alive, arrays, f"gref_{alive.release}_decoder")


def test_rules_hold_in_what_is_served(served: Served) -> None:
    """A pin of the last candidate, one that cannot stand, and one of a topic among neighbours."""
    arrays = good(2)
    free = infer(served, arrays)
    assert free.as_numpy("RELAXED").tolist() == [[0, 0], [0, 0]]
    arrays["PINNED"][0, 1], arrays["PINNED"][1, 0] = 11, 400
    arrays["GROUP"][:, :12] = np.arange(12) // 3
    arrays["LIMIT"][:] = [1, 2]
    ruled = infer(served, arrays)
    order = ruled.as_numpy("ORDER")
    assert order[0, 1] == 11
    assert ruled.as_numpy("LOG_PROB")[0, 1] == 0.0  # nothing was chosen there
    assert ruled.as_numpy("RELAXED").tolist() == [[0, 0], [1, 0]]
    groups = order // 3
    assert (groups[:, 1:] != groups[:, :-1]).all()


def test_one_bad_request_does_not_spoil_its_batch(alive: Served) -> None:
    """Requests that Triton joins into one batch: the bad ones alone are refused.

    Every third is bad and the queue keeps their order, so a joined batch of 8 holds both kinds.
    Triton's own count of batch sizes says when there was one; on a busy machine it may take more
    than one attempt.
    """
    alone = infer(alive, good(1, 10)).as_numpy("ORDER").tolist()
    joined: Counter[int] = Counter()
    for _ in range(30):
        outcomes, sizes = ask_together(alive)
        for index, outcome in enumerate(outcomes):
            if index % 3:
                assert outcome == alone
            else:
                assert isinstance(outcome, InferenceServerException)
                assert "ITEM_DENSE holds NaN" in outcome.message()
        joined += sizes
        if any(8 <= size < 64 for size in joined):
            return
    raise AssertionError(f"nothing was joined, so nothing was shown: {joined}")


def ask_together(served: Served) -> tuple[list[object], Counter[int]]:
    """Large batches keep the encoder busy while 48 small requests queue behind them.

    Returns the order or the error of each small one, and the sizes of the batches that were run.
    """
    name = f"gref_{served.release}"
    big, fine, bad = inputs(good(64, 500)), inputs(good(1, 10)), good(1, 10)
    change("ITEM_DENSE", (0, 0, 0), np.nan)(bad)
    outcomes: list[object] = [None] * 48
    done = threading.Semaphore(0)

    def keep(index: int, result: triton.InferResult | None, error: Exception | None) -> None:
        outcomes[index] = error if result is None else result.as_numpy("ORDER").tolist()
        done.release()

    with triton.InferenceServerClient(served.url) as client:
        before = batch_sizes(client, f"{name}_encoder")
        for _ in range(4):
            client.async_infer(name, big, lambda result, error: done.release())
        for index in range(len(outcomes)):
            wanted = fine if index % 3 else inputs(bad)
            client.async_infer(name, wanted, partial(keep, index))
        for _ in range(4 + len(outcomes)):
            assert done.acquire(timeout=60)
        return outcomes, batch_sizes(client, f"{name}_encoder") - before


def batch_sizes(client: triton.InferenceServerClient, model: str) -> Counter[int]:
    """How often the model was run on a batch of each size, by Triton's statistics."""
    stats = client.get_inference_statistics(model).model_stats[0]
    return Counter({one.batch_size: one.compute_infer.count for one in stats.batch_stats})


def test_no_tensor_is_shared_between_rows(served: Served) -> None:
    """A row alone and in a batch of equal rows: no neighbour leaks in through joined tensors."""
    batch = FeatureEncoder(SPEC).encode([toy_request(3, 12)] * 8)
    order = infer(served, tensors(batch)).as_numpy("ORDER")
    assert (order == order[0]).all()
    alone = infer(served, good_one(3)).as_numpy("ORDER")
    assert order[0].tolist() == alone[0].tolist()


def good_one(number: int) -> dict[str, np.ndarray]:
    return tensors(FeatureEncoder(SPEC).encode([toy_request(number, 12)]))
