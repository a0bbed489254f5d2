"""The TorchServe handler on its own: whole batches, bad rows, and releases that it refuses."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from contracts.encoding import FeatureEncoder
from contracts.reading import ContractError, read_json, write_json
from contracts.releases import MANIFEST, ReleaseManifest
from contracts.rerank_call import RerankAnswer, RerankCall
from contracts.rules import encode_rules
from contracts.slates import distinct
from handlers import torchserve_handler
from handlers.archive import make_archive
from handlers.torchserve_handler import Reranker, handle
from tests.serving.torchserve_calls import BAD, as_json, toy_call, unpack
from tests.serving.toy_engines import SPEC, toy_modules, toy_request

pytest.importorskip("model_archiver", reason="needs torch-model-archiver")
context_of = pytest.importorskip("ts.context", reason="needs torchserve")


@pytest.fixture(scope="module")
def archive(toy_release: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_archive(toy_release, tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def reranker(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Reranker:
    return Reranker(unpack(archive, tmp_path_factory.mktemp("model")))


def eager(call: RerankCall) -> RerankAnswer:
    """What the eager modules say to one call alone: the oracle."""
    sent = distinct(call.request)
    request = msgspec.structs.replace(
        call.request, candidates=tuple(call.request.candidates[index] for index in sent)
    )
    batch = FeatureEncoder(SPEC).encode([request])
    rules = encode_rules([request], SPEC.list_size, batch.item_cat.shape[1])
    arrays = (batch.item_cat, batch.item_dense, batch.user_cat, batch.user_dense)
    encode, decode = toy_modules()
    with torch.inference_mode():
        z, prior = encode(*map(torch.from_numpy, arrays), torch.tensor([[len(sent)]]))
        order, log_prob, passes, gave = decode(
            z,
            prior,
            torch.tensor([[call.temperature]]),
            torch.tensor([[call.seed]]),
            *map(torch.from_numpy, (rules.pinned, rules.group, rules.limit)),
        )
    chosen = [index for index in order[0].tolist() if index >= 0]
    beyond = sum(pin.position >= SPEC.list_size for pin in request.rules.pinned)
    return RerankAnswer(
        request_id=request.request_id,
        items=tuple(request.candidates[index].item for index in chosen),
        indices=tuple(sent[index] for index in chosen),
        log_prob=tuple(log_prob[0, : len(chosen)].tolist()),
        release="r0001",
        passes=int(passes),
        relaxed=(int(gave[0, 0]) + beyond, int(gave[0, 1])),
    )


def assert_same(found: RerankAnswer, expected: RerankAnswer) -> None:
    np.testing.assert_allclose(found.log_prob, expected.log_prob, atol=1e-5)
    alike = msgspec.structs.replace(found, log_prob=expected.log_prob)
    assert alike == expected


def read(told: tuple[int, bytes]) -> RerankAnswer:
    assert told[0] == 200, told
    return msgspec.json.decode(told[1], type=RerankAnswer)


def test_a_batch_is_answered_in_order(reranker: Reranker) -> None:
    calls = [toy_call(number) for number in range(60)]
    answers = reranker.answer([as_json(call) for call in calls])
    for call, told in zip(calls, answers, strict=True):
        assert_same(read(told), eager(call))
    assert any(sum(read(told).relaxed) for told in answers), "rules had to give somewhere"


def test_rows_of_one_bucket_run_as_one_engine_call(
    reranker: Reranker, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[tuple[int, int]] = []
    encoder = reranker._encoder

    def counted(item_cat: torch.Tensor, *others: torch.Tensor) -> Any:
        sizes.append((item_cat.shape[0], item_cat.shape[1]))
        return encoder(item_cat, *others)

    monkeypatch.setattr(reranker, "_encoder", counted)
    numbers = (3, 30, 8, 12, 5, 16, 60)
    reranker.answer([as_json(RerankCall(request=toy_request(1, m))) for m in numbers])
    assert sorted(sizes) == [(2, 16), (2, 64), (3, 8)]


@pytest.mark.parametrize("form", ["bytes", "bytearray", "text", "decoded"])
def test_every_form_of_a_body(reranker: Reranker, form: str) -> None:
    """TorchServe hands over bytes, or, by its setting, what it decoded itself."""
    body = as_json(toy_call(3))
    forms: dict[str, Callable[[], object]] = {
        "bytes": lambda: body,
        "bytearray": lambda: bytearray(body),
        "text": body.decode,
        "decoded": lambda: json.loads(body),
    }
    assert_same(read(reranker.answer([forms[form]()])[0]), eager(toy_call(3)))


@pytest.mark.parametrize("name", BAD)
def test_a_bad_row_is_told_why_and_spoils_nobody(reranker: Reranker, name: str) -> None:
    body, told = BAD[name]
    good = toy_call(4)
    answers = reranker.answer([as_json(good), body, as_json(good)])
    status, refusal = answers[1]
    assert status == 400
    assert re.search(told, json.loads(refusal)["error"]), refusal
    for index in (0, 2):
        assert_same(read(answers[index]), eager(good))


def test_what_python_decodes_and_json_does_not_know(reranker: Reranker) -> None:
    """TorchServe's own decoder takes NaN for a number."""
    plain = json.loads(as_json(RerankCall(request=toy_request(1, 6))))
    plain["request"]["candidates"][2]["features"]["price"] = float("nan")
    too = json.loads(as_json(RerankCall(request=toy_request(1, 6))))
    too["temperature"] = float("nan")
    answers = reranker.answer([plain, too, 7, None])
    told = [json.loads(body)["error"] for _, body in answers]
    assert [status for status, _ in answers] == [400] * 4
    assert "candidate 2 (item item-1-2): item feature price: nan" in told[0]
    assert "temperature is nan" in told[1]
    assert "is int; allowed" in told[2]
    assert "is NoneType; allowed" in told[3]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["request", "seed", "user", "candidates", "rules", "x"]), inner
        )
    ),
    max_leaves=8,
)


@given(st.lists(st.one_of(st.binary(max_size=30), json_values), max_size=6))
def test_anything_gets_an_answer_of_its_own(reranker: Reranker, bodies: list[object]) -> None:
    answers = reranker.answer([*bodies, as_json(toy_call(2))])
    assert len(answers) == len(bodies) + 1
    assert answers[-1][0] == 200
    for status, body in answers[:-1]:
        assert status == 400
        assert json.loads(body).keys() == {"error"}


def test_text_that_is_none(reranker: Reranker) -> None:
    """A lone surrogate can be written in JSON, and no answer can repeat it."""
    body = as_json(toy_call(2)).replace(b'"request-2"', b'"\\ud800"')
    answers = reranker.answer([body, as_json(toy_call(2))])
    assert [status for status, _ in answers] == [400, 200]
    json.loads(answers[0][1])


def test_a_joint_call_that_fails_is_tried_one_by_one(
    reranker: Reranker, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = reranker._encoder

    def alone(item_cat: torch.Tensor, *others: torch.Tensor) -> Any:
        if item_cat.shape[0] > 1:
            raise RuntimeError("Traceback of TorchScript (most recent call last):\nout of memory")
        return encoder(item_cat, *others)

    monkeypatch.setattr(reranker, "_encoder", alone)
    calls = [RerankCall(request=toy_request(number, 12)) for number in range(4)]
    for call, told in zip(calls, reranker.answer([as_json(call) for call in calls]), strict=True):
        assert_same(read(told), eager(call))


def broken(*outputs: Any) -> Callable[..., Any]:
    return lambda z, *others: tuple(torch.tensor([one] * z.shape[0]) for one in outputs)


@pytest.mark.parametrize(
    ("order", "log_prob", "why"),
    [
        ([0, 1, 1, 2, 3], [-1.0] * 5, "an item twice"),
        ([0, 1, 2, 3, 12], [-1.0] * 5, "beyond the candidates"),
        ([0, 1, 2, 3, -1], [-1.0] * 5, "too short"),
        ([0, 1, 2, 3, 4], [-1.0, float("nan"), -1.0, -1.0, -1.0], "NaN"),
        ([0, 1, 2, 3, 4], [0.5] * 5, "a probability above 1"),
    ],
)
def test_what_is_no_list_is_not_given_out(
    reranker: Reranker, monkeypatch: pytest.MonkeyPatch, order: list[int], log_prob: Any, why: str
) -> None:
    monkeypatch.setattr(reranker, "_decoder", broken(order, log_prob, [5], [0, 0]))
    status, body = reranker.answer([as_json(RerankCall(request=toy_request(1, 12)))])[0]
    assert status == 500, why
    assert "engine gave no list" in json.loads(body)["error"]


def test_an_engine_that_fails_is_the_servers_fault(
    reranker: Reranker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*inputs: Any) -> Any:
        raise RuntimeError("The following operation failed in TorchScript\n...\ncause of it")

    monkeypatch.setattr(reranker, "_decoder", fails)
    assert reranker.answer([as_json(toy_call(1))]) == [
        (500, b'{"error":"engine failed: cause of it"}')
    ]


def context(folder: Path, rows: int, **handler: Any) -> Any:
    """TorchServe's own context, as its worker makes it."""
    made = context_of.Context(
        "gref_r0001", str(folder), {}, 8, None, "0.12.0", model_yaml_config={"handler": handler}
    )
    made.request_processor = [context_of.RequestProcessor({}) for _ in range(rows)]
    return made


def test_the_entry_point(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchserve_handler, "_reranker", None)
    folder = unpack(archive, tmp_path / "model")
    assert handle(None, context(folder, 0)) == []
    rows: list[dict[str, object]] = [
        {"body": as_json(toy_call(1))},
        {"body": b"{"},
        {"data": as_json(toy_call(2))},
        {"image": b"", "text": b""},
        {},
    ]
    batch = context(folder, len(rows))
    answers = handle(rows, batch)
    statuses = [batch.get_response_status(index)[0] for index in range(len(rows))]
    assert statuses == [200, 400, 200, 400, 400]
    assert (
        b"parts image, text; allowed: one, as body (Content-Type: application/json)" in answers[3]
    )
    assert b"parts none" in answers[4]
    assert all(
        batch.get_response_content_type(index) == "application/json" for index in range(len(rows))
    )
    monkeypatch.setattr(torchserve_handler, "_reranker", None)
    with pytest.raises(ContractError, match="field intra_op_threads: Expected `int`"):
        handle(None, context(folder, 0, intra_op_threads="many"))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def other_spec(folder: Path) -> None:
    path = folder / "features.yaml"
    path.write_text(path.read_text().replace("mean: 40.0", "mean: 41.0"))


def manifest_says(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        manifest = read_json(folder / MANIFEST, ReleaseManifest)
        engines = tuple(msgspec.structs.replace(one, **changes) for one in manifest.engines)
        write_json(folder / MANIFEST, msgspec.structs.replace(manifest, engines=engines))

    return change


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda f: flip(f / "encoder.pt"), "not the published encoder: sha256 .{64}, expected"),
        (lambda f: flip(f / "decoder.pt"), "not the published decoder: sha256 .{64}, expected"),
        (lambda f: (f / "decoder.pt").unlink(), "decoder.pt: cannot be read"),
        (lambda f: (f / MANIFEST).unlink(), "manifest.json: no such file"),
        (other_spec, "features.yaml: hash .{64}, the release was made for .{64}"),
        (manifest_says(format="tensorrt"), "encoder is tensorrt, and what runs here is torchscri"),
        (manifest_says(part="encoder"), "has no decoder engine"),
    ],
)
def test_releases_that_are_refused(
    archive: Path, tmp_path: Path, damage: Callable[[Path], None], told: str
) -> None:
    folder = unpack(archive, tmp_path / "model")
    damage(folder)
    with pytest.raises(ContractError, match=told):
        Reranker(folder)


def worker(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Python as TorchServe's worker runs it: the unpacked archive is first on its path."""
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    return subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        cwd=folder.parent,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_archive_needs_nothing_of_the_project(archive: Path, tmp_path: Path) -> None:
    folder = unpack(archive, tmp_path / "model")
    code = """
import sys, pathlib
import torchserve_handler
torchserve_handler.Reranker(pathlib.Path("model"))
ours = {name: module.__file__ for name, module in sys.modules.items()
        if name.partition(".")[0] in ("contracts", "handlers", "training", "deploy")}
print(ours)
"""
    done = worker(folder, code)
    assert done.returncode == 0, done.stderr
    ours: dict[str, str] = eval(done.stdout)  # noqa: S307 (what was printed above)
    assert "contracts.encoding" in ours
    assert {name.partition(".")[0] for name in ours} == {"contracts"}
    assert all(Path(file).is_relative_to(folder) for file in ours.values())


def test_a_worker_without_its_needs_says_which(archive: Path, tmp_path: Path) -> None:
    """TorchServe hides an ImportError behind one of its own, so it must not be one."""
    folder = unpack(archive, tmp_path / "model")
    done = worker(folder, "import sys; sys.modules['xxhash'] = None; import torchserve_handler")
    assert "RuntimeError" in done.stderr.splitlines()[-1]
    assert "xxhash" in done.stderr.splitlines()[-1]
    assert "needs torch, msgspec, numpy, pyyaml" in done.stderr
