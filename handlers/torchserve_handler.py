"""The TorchServe handler of a release: JSON requests in, lists out, by the two engines of Triton.

``handlers/archive.py`` packs this file with the engines and the package ``contracts``; nothing
else of the project is needed. The worker's Python needs torch, msgspec, numpy, pyyaml, xxhash.

TorchServe hands over a batch and expects one answer for each row, in order. Rows of one candidate
bucket run as one engine call. A row that is refused has status 400 and ``{"error": ...}`` of its
own; where a joint call fails, each row is tried alone, so that nobody pays for a neighbour.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

try:
    import msgspec
    import torch

    import contracts
    from contracts.encoding import FeatureEncoder
    from contracts.features import FeatureSpec
    from contracts.reading import ContractError, convert, read_json, read_yaml
    from contracts.releases import MANIFEST, ReleaseManifest, file_sha256, find_engine
    from contracts.rerank_call import RerankAnswer, RerankCall, RerankRefusal, read_call
    from contracts.rules import encode_rules
    from contracts.slates import RerankRequest, distinct
    from contracts.torchserve import DECODER, ENCODER, FEATURES, FORMATS, HandlerSettings
except ImportError as missing:
    raise RuntimeError(
        f"{missing}. The Python that runs TorchServe's workers needs torch, msgspec, numpy, pyyaml "
        "and xxhash: pip install them there; contracts comes with the archive."
    ) from missing

logger = logging.getLogger(__name__)

#: Keys under which TorchServe hands over a body: of a plain REST request, and of a form or gRPC.
_BODY = ("body", "data")
_PHRASES = {400: "Bad Request", 500: "Internal Server Error"}
#: TorchScript profiles in the first run of a shape and optimises in the second.
_WARMUP_RUNS = 2
_ROUNDING = 1e-3


class EngineError(RuntimeError):
    """The engines failed, or gave what is no list; the request may be as good as any."""


@dataclass(frozen=True)
class _Row:
    """A request that can be encoded, reduced to distinct candidates; ``sent`` are their indices."""

    call: RerankCall
    request: RerankRequest
    sent: list[int]


class Reranker:
    """The engines of one release, loaded and checked."""

    def __init__(self, folder: Path, settings: HandlerSettings | None = None) -> None:
        """Load a release from an unpacked archive.

        Raises:
            ContractError: a file is missing, altered, of another feature spec, or in a format
                that does not run here; the message holds both values.
        """
        settings = settings or HandlerSettings()
        torch.set_num_threads(settings.intra_op_threads)
        manifest = read_json(folder / MANIFEST, ReleaseManifest)
        self.release = manifest.name
        self.spec = read_yaml(folder / FEATURES, FeatureSpec)
        if self.spec.hash() != manifest.feature_spec_sha256:
            raise ContractError(
                f"{folder / FEATURES}: hash {self.spec.hash()}, the release was made for "
                f"{manifest.feature_spec_sha256}; make the archive again"
            )
        self._features = FeatureEncoder(self.spec)
        self._encoder = _load(folder / ENCODER, manifest, "encoder")
        self._decoder = _load(folder / DECODER, manifest, "decoder")
        if settings.warmup:
            self._warm_up()

    def answer(self, bodies: Sequence[object]) -> list[tuple[int, bytes]]:
        """A status and a JSON body for each body, in order; no exception leaves this."""
        answers: list[tuple[int, bytes]] = [(500, b"")] * len(bodies)
        buckets: dict[int, list[tuple[int, _Row]]] = defaultdict(list)
        for index, body in enumerate(bodies):
            try:
                row = _read(body)
                buckets[self.spec.bucket(len(row.sent))].append((index, row))
            except Exception as error:
                answers[index] = _refused(error)
        for bucket, members in buckets.items():
            for (index, _), told in zip(members, self._settle([r for _, r in members], bucket)):
                answers[index] = told
        return answers

    def _settle(self, rows: Sequence[_Row], bucket: int) -> list[tuple[int, bytes]]:
        try:
            return [(200, msgspec.json.encode(one)) for one in self._rerank(rows, bucket)]
        except Exception as error:
            if len(rows) == 1:
                return [_refused(error)]
        return [self._settle([row], bucket)[0] for row in rows]

    def _rerank(self, rows: Sequence[_Row], bucket: int) -> list[RerankAnswer]:
        """Lists of requests that share a bucket, by one call of each engine."""
        requests = [row.request for row in rows]
        batch = self._features.encode(requests, bucket)
        rules = encode_rules(requests, self.spec.list_size, bucket)
        tensor = torch.from_numpy
        try:
            with torch.inference_mode():
                z_BMD, prior_BM = self._encoder(
                    tensor(batch.item_cat),
                    tensor(batch.item_dense),
                    tensor(batch.user_cat),
                    tensor(batch.user_dense),
                    tensor(batch.count[:, None]),
                )
                order_BN, log_prob_BN, passes_B1, relaxed_B2 = self._decoder(
                    z_BMD,
                    prior_BM,
                    torch.tensor([[row.call.temperature] for row in rows]),
                    torch.tensor([[row.call.seed] for row in rows], dtype=torch.int64),
                    tensor(rules.pinned),
                    tensor(rules.group),
                    tensor(rules.limit),
                )
        except Exception as error:  # TorchScript puts its own stack before the cause
            cause = (str(error).strip() or repr(error)).splitlines()[-1]
            raise EngineError(f"engine failed: {cause}") from error
        outputs = (order_BN, log_prob_BN, passes_B1, relaxed_B2)
        return [self._list(*one) for one in zip(rows, *(output.tolist() for output in outputs))]

    def _list(
        self,
        row: _Row,
        order_N: list[int],
        log_prob_N: list[float],
        passes_1: list[int],
        relaxed_2: list[int],
    ) -> RerankAnswer:
        count = len(row.sent)
        length = min(count, self.spec.list_size)
        chosen, log_prob = order_N[:length], log_prob_N[:length]
        real = len(set(chosen)) == length and all(0 <= index < count for index in chosen)
        if not real or not all(math.isfinite(p) and p <= _ROUNDING for p in log_prob):
            raise EngineError(f"engine gave no list: {order_N}, {log_prob_N}")
        # The engine never hears of pins beyond the list, and they do not stand either.
        beyond = sum(pin.position >= self.spec.list_size for pin in row.request.rules.pinned)
        return RerankAnswer(
            request_id=row.request.request_id,
            items=tuple(row.request.candidates[index].item for index in chosen),
            indices=tuple(row.sent[index] for index in chosen),
            log_prob=tuple(log_prob),
            release=self.release,
            passes=passes_1[0],
            relaxed=(relaxed_2[0] + beyond, relaxed_2[1]),
        )

    def _warm_up(self) -> None:
        from contracts.slates import Candidate

        smallest = 1
        for bucket in self.spec.candidate_buckets:
            candidates = tuple(Candidate(item=str(index)) for index in range(smallest))
            request = RerankRequest(request_id="warm-up", user="", candidates=candidates)
            for _ in range(_WARMUP_RUNS):
                self._rerank([_reduced(RerankCall(request=request))], bucket)
            smallest = bucket + 1


_reranker: Reranker | None = None


def handle(data: Sequence[Mapping[str, object]] | None, context: Any) -> list[bytes]:
    """TorchServe's entry point: once with no data to load, then with each batch.

    Args:
        data: rows of a batch, each a mapping with the JSON of a RerankCall under ``body`` or
            ``data``, as bytes, as text, or decoded.
        context: TorchServe's, for statuses, and at the load for folder and settings.

    Returns:
        The JSON of a RerankAnswer, or of a RerankRefusal with its status set, for each row.
    """
    global _reranker
    if _reranker is None:
        _reranker = _load_release(context)
    if data is None:
        return []
    answers = _reranker.answer([_body(row) for row in data])
    for index, (status, _) in enumerate(answers):
        context.set_response_content_type(index, "application/json")
        if status != 200:
            context.set_response_status(code=status, phrase=_PHRASES[status], idx=index)
    return [body for _, body in answers]


def _load_release(context: Any) -> Reranker:
    config = getattr(context, "model_yaml_config", None) or {}
    settings = convert(config.get("handler", {}), HandlerSettings, "model-config.yaml: handler")
    reranker = Reranker(Path(context.system_properties["model_dir"]), settings)
    logger.info("release %s is loaded; contracts of %s", reranker.release, contracts.__file__)
    return reranker


def _body(row: Mapping[str, object]) -> object:
    given = [row[name] for name in _BODY if name in row]
    if len(given) != 1:
        names = ", ".join(sorted(row)) or "none"
        return ContractError(
            f"request: parts {names}; allowed: one, as body (Content-Type: application/json) or "
            "under data"
        )
    return given[0]


def _read(body: object) -> _Row:
    if isinstance(body, ContractError):
        raise body
    row = _reduced(read_call(body))
    if not row.sent:
        raise ContractError("no candidates; allowed: at least one")
    return row


def _reduced(call: RerankCall) -> _Row:
    request, sent = call.request, distinct(call.request)
    if len(sent) < len(request.candidates):
        candidates = tuple(request.candidates[index] for index in sent)
        request = msgspec.structs.replace(request, candidates=candidates)
    return _Row(call, request, sent)


def _refused(error: Exception) -> tuple[int, bytes]:
    """What a row that has no list is told. ValueErrors are about what the caller sent."""
    bad = isinstance(error, ValueError)
    if not bad:
        logger.warning("a request failed", exc_info=error)
    told = str(error) if isinstance(error, (ValueError, EngineError)) else repr(error)
    told = told.encode(errors="backslashreplace").decode()  # it may quote what is no text
    return (400 if bad else 500), msgspec.json.encode(RerankRefusal(error=told))


def _load(path: Path, manifest: ReleaseManifest, part: Any) -> Any:
    engine = find_engine(manifest, part, FORMATS)
    try:
        found, expected = file_sha256(path), manifest.files[engine.file]
    except OSError as error:
        raise ContractError(f"{path}: cannot be read: {error}") from error
    if found != expected:
        raise ContractError(
            f"{path}: not the published {part}: sha256 {found}, expected {expected}; "
            "make the archive again"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        loaded = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
        # An engine that was frozen at export has lost its training flag, and needs nothing more.
        return torch.jit.freeze(loaded.eval()) if hasattr(loaded, "training") else loaded
