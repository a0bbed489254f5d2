"""Do engines keep the engine interface of docs/architecture.md?"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch

from contracts.features import FeatureSpec
from contracts.reading import ContractError
from training.engines.parity import Engines, no_rules

#: PRIOR of a padded candidate is at most this.
PADDED_PRIOR = -1e9


def check_engines(encoder_file: Path, decoder_file: Path, spec: FeatureSpec) -> int:
    """Load two TorchScript engines, run them as ``check_interface`` does, and return D."""
    engines = Engines(_load(encoder_file), _load(decoder_file), spec.list_size)
    return check_interface(engines, spec, encoder_file, decoder_file)


def check_interface(
    engines: Engines, spec: FeatureSpec, encoder_file: Path, decoder_file: Path
) -> int:
    """Run engines on a small request, and return D, the width of Z.

    The request has the spec's smallest bucket and one row each with a single candidate and with
    as many as the bucket holds, all features missing.

    Raises:
        ContractError: a file is no engine, or an output breaks the interface.
    """
    padded = spec.candidate_buckets[0]
    count_B1 = torch.tensor([[1], [padded]], dtype=torch.int32)
    with torch.inference_mode():
        try:
            z_BMD, prior_BM = engines.encode(
                torch.zeros(2, padded, spec.item.categorical_columns, dtype=torch.int32),
                torch.zeros(2, padded, spec.item.dense_columns),
                torch.zeros(2, spec.user.categorical_columns, dtype=torch.int32),
                torch.zeros(2, spec.user.dense_columns),
                count_B1,
            )
        except Exception as error:
            raise ContractError(f"{encoder_file}: does not run: {_cause(error)}") from error
        _check_encoder(encoder_file, z_BMD, prior_BM, padded)
        try:
            order_BN, log_prob_BN, passes_B1, relaxed_B2 = engines.decode(
                z_BMD,
                prior_BM,
                torch.zeros(2, 1),
                torch.zeros(2, 1, dtype=torch.int64),
                *no_rules([0, 0], spec.list_size, padded),
            )
        except Exception as error:
            raise ContractError(f"{decoder_file}: does not run: {_cause(error)}") from error
    n = spec.list_size
    _check_tensor(decoder_file, "ORDER", order_BN, torch.int32, (2, n))
    _check_tensor(decoder_file, "LOG_PROB", log_prob_BN, torch.float32, (2, n))
    _check_tensor(decoder_file, "PASSES", passes_B1, torch.int32, (2, 1))
    _check_tensor(decoder_file, "RELAXED", relaxed_B2, torch.int32, (2, 2))
    for row, candidates in zip(order_BN.tolist(), count_B1.flatten().tolist()):
        chosen = row[: min(candidates, n)]
        legal = len(set(chosen)) == len(chosen) and all(0 <= i < candidates for i in chosen)
        if not legal or any(index != -1 for index in row[len(chosen) :]):
            raise ContractError(
                f"{decoder_file}: ORDER is {row} for {candidates} candidates; "
                "allowed: distinct indices of real candidates, then -1"
            )
    return int(z_BMD.shape[2])


def _load(path: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            return torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
        except Exception as error:
            raise ContractError(f"{path}: not a TorchScript engine: {_cause(error)}") from error


def _check_encoder(path: Path, z_BMD: torch.Tensor, prior_BM: torch.Tensor, padded: int) -> None:
    if z_BMD.dim() != 3:
        raise ContractError(f"{path}: Z has {z_BMD.dim()} axes; allowed: [B, M, D]")
    _check_tensor(path, "Z", z_BMD, torch.float32, (2, padded, z_BMD.shape[2]))
    _check_tensor(path, "PRIOR", prior_BM, torch.float32, (2, padded))
    if bool((prior_BM[0, 1:] > PADDED_PRIOR).any()):
        raise ContractError(
            f"{path}: PRIOR is {float(prior_BM[0, 1:].max())} at a padded candidate; "
            f"allowed: at most {PADDED_PRIOR}"
        )


def _check_tensor(
    path: Path, name: str, tensor: torch.Tensor, dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    if tensor.dtype != dtype or tuple(tensor.shape) != shape:
        raise ContractError(
            f"{path}: {name} is {tensor.dtype} {list(tensor.shape)}; allowed: {dtype} {list(shape)}"
        )


def _cause(error: Exception) -> str:
    return (str(error).strip() or repr(error)).splitlines()[-1]
