"""Encoder and decode as ONNX graphs: what TensorRT's builder reads.

The graphs have no data-dependent control: rules and sampling are always in the decoder's, and the
Gumbel noise is an input, because TensorRT has neither shifts nor exclusive or for the counter-based
generator (``noise_engine`` makes it). Batch and candidates stay dynamic; n and H are fixed.

Axes: B batch, M candidates, N list positions.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from contracts.features import MAX_CANDIDATES, FeatureSpec
from training.decoding.choice import gumbel_lists
from training.decoding.rules import make_rules, relaxed
from training.decoding.unrolled import UnrolledDecode
from training.engines.formats import Precision
from training.engines.torchscript import EncoderEngine
from training.model.gen_reranker import GenReranker

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}

ENCODER_INPUTS = ("ITEM_CAT", "ITEM_DENSE", "USER_CAT", "USER_DENSE", "COUNT")
ENCODER_OUTPUTS = ("Z", "PRIOR")
DECODER_INPUTS = ("Z", "PRIOR", "TEMPERATURE", "NOISE", "PINNED", "GROUP", "LIMIT")
DECODER_OUTPUTS = ("ORDER", "LOG_PROB", "PASSES", "RELAXED")


class NoiseEngine(nn.Module):
    """SEED int64 [B, 1] and GROUP [B, M] (for its shape) -> NOISE float32 [B, N, M].

    All zeros where no row samples: a greedy batch pays for nothing but the zeros.
    """

    def __init__(self, list_size: int) -> None:
        super().__init__()
        self.list_size = list_size

    def forward(self, temperature_B1: Tensor, seed_B1: Tensor, group_BM: Tensor) -> Tensor:
        if bool((temperature_B1 > 0).any()):
            return gumbel_lists(seed_B1, self.list_size, group_BM.size(1))
        size = [seed_B1.size(0), self.list_size, group_BM.size(1)]
        return torch.zeros(size, device=seed_B1.device)


class ExportedEncoder(nn.Module):
    """The encoder engine, its arithmetic in ``precision``, its inputs and outputs in fp32."""

    def __init__(
        self, model: GenReranker, precision: Precision, engine: EncoderEngine | None = None
    ) -> None:
        super().__init__()
        self.engine = engine or EncoderEngine(model)
        self.precision = precision

    def forward(
        self,
        item_cat: Tensor,
        item_dense: Tensor,
        user_cat: Tensor,
        user_dense: Tensor,
        count: Tensor,
    ) -> tuple[Tensor, Tensor]:
        with _arithmetic(self.precision, item_dense.device.type):
            z, prior = self.engine(item_cat, item_dense, user_cat, user_dense, count)
        return z.float(), prior.float()


class ExportedDecoder(nn.Module):
    """OMTP decoding with the noise as an input and the rules always on."""

    def __init__(self, model: GenReranker, precision: Precision, block: int | None = None) -> None:
        super().__init__()
        self.decode = UnrolledDecode(model.decoder, model.spec.list_size, block)
        self.precision = precision

    def forward(
        self,
        z_BMZ: Tensor,
        prior_BM: Tensor,
        temperature_B1: Tensor,
        noise_BNM: Tensor,
        pinned_BN: Tensor,
        group_BM: Tensor,
        limit_B2: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        with _arithmetic(self.precision, z_BMZ.device.type):
            rules = make_rules(prior_BM, pinned_BN, group_BM, limit_B2)
            order, log_prob, passes = self.decode.lists(
                z_BMZ, prior_BM, temperature_B1, noise_BNM, rules
            )
        return order, log_prob, passes, relaxed(order, pinned_BN, rules)

    def greedy(
        self, z_BMZ: Tensor, prior_BM: Tensor, temperature_B1: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Order, log-probabilities and passes where there are no rules and no row samples."""
        with _arithmetic(self.precision, z_BMZ.device.type):
            out: tuple[Tensor, Tensor, Tensor] = self.decode.lists(
                z_BMZ, prior_BM, temperature_B1, None, None
            )
        return out


def encoder_example(spec: FeatureSpec, batch: int = 2, candidates: int = 16) -> tuple[Tensor, ...]:
    """Inputs of the right types and widths."""
    return (
        torch.ones(batch, candidates, spec.item.categorical_columns, dtype=torch.int32),
        torch.zeros(batch, candidates, spec.item.dense_columns),
        torch.ones(batch, spec.user.categorical_columns, dtype=torch.int32),
        torch.zeros(batch, spec.user.dense_columns),
        torch.full([batch, 1], candidates - 3, dtype=torch.int32),
    )


def encoder_arguments(
    spec: FeatureSpec, widest: int = MAX_CANDIDATES
) -> tuple[tuple[Tensor, ...], tuple[Any, ...]]:
    """Example inputs of the encoder, and which axes of them are dynamic (torch.export).

    Args:
        widest: the most candidates that the compiler may rely on.
    """
    batch, candidates = _axes(spec, widest)
    both, row = {0: batch, 1: candidates}, {0: batch}
    return encoder_example(spec), (both, both, row, row, row)


def decoder_arguments(
    model: GenReranker, from_seed: bool = False, widest: int = MAX_CANDIDATES
) -> tuple[tuple[Tensor, ...], tuple[Any, ...]]:
    """As ``encoder_arguments`` for the decoder, with SEED or with NOISE as its fourth input."""
    with torch.inference_mode():
        z, prior = EncoderEngine(model)(*encoder_example(model.spec))
    (rows, m), n = prior.shape, model.spec.list_size
    batch, candidates = _axes(model.spec, widest)
    both, row = {0: batch, 1: candidates}, {0: batch}
    seed = torch.zeros(rows, 1, dtype=torch.int64)
    inputs = (
        z.clone(),
        prior.clone(),
        torch.zeros(rows, 1),
        seed if from_seed else torch.zeros(rows, n, m),
        torch.full([rows, n], -1, dtype=torch.int32),
        torch.full([rows, m], -1, dtype=torch.int32),
        torch.zeros(rows, 2, dtype=torch.int32),
    )
    drawn = row if from_seed else {0: batch, 2: candidates}
    return inputs, (both, both, row, drawn, row, both, row)


def encoder_graph(model: GenReranker, precision: Precision = "fp32") -> bytes:
    """The encoder as serialized ONNX, dynamic in batch and candidates."""
    module = ExportedEncoder(model, precision)
    return _export(module, *encoder_arguments(model.spec), ENCODER_INPUTS, ENCODER_OUTPUTS)


def decoder_graph(
    model: GenReranker, precision: Precision = "fp32", block: int | None = None
) -> bytes:
    """The decode of n items as serialized ONNX, its passes unrolled."""
    module = ExportedDecoder(model, precision, block)
    return _export(module, *decoder_arguments(model), DECODER_INPUTS, DECODER_OUTPUTS)


def _axes(spec: FeatureSpec, widest: int) -> tuple[Any, Any]:
    least = min(spec.candidate_buckets)
    # The literal 1024 is the largest batch of a plan's profile, not of a request.
    return torch.export.Dim("batch", min=1, max=1024), torch.export.Dim(
        "candidates", min=min(least, 2), max=widest
    )


@contextlib.contextmanager
def _arithmetic(precision: Precision, device: str) -> Iterator[None]:
    if precision == "fp32":
        yield
        return
    with torch.autocast(device, DTYPES[precision]):
        yield


def _export(
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    dynamic: tuple[Any, ...],
    input_names: tuple[str, ...],
    output_names: tuple[str, ...],
) -> bytes:
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module.eval(),
            inputs,
            dynamo=True,
            dynamic_shapes=dynamic,
            input_names=list(input_names),
            output_names=list(output_names),
            optimize=True,
            verbose=False,
        )
    assert program is not None
    serialized: bytes = program.model_proto.SerializeToString()
    return serialized
