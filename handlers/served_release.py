"""A release as a client sees it: read back from the served ensemble's configuration."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from tritonclient.grpc import model_config_pb2

from contracts.encoding import FeatureEncoder
from contracts.features import FeatureSpec
from contracts.reading import ContractError, convert
from contracts.releases import RELEASE_NAME
from handlers.rerank_result import RerankError

_PREFIX = "gref_"


@dataclass(frozen=True)
class ServedRelease:
    """Everything that a client must know of a release to call it."""

    name: str
    spec: FeatureSpec
    spec_sha256: str
    encoder: FeatureEncoder
    max_batch_size: int

    @property
    def model(self) -> str:
        return model_of(self.name)


def model_of(release: str) -> str:
    """The ensemble of a release: r0007 -> gref_r0007."""
    return _PREFIX + release


def newest_release(models: Iterable[str]) -> str:
    """The release with the highest number among the names of served models.

    Raises:
        RerankError: none of them is a release.
    """
    names = [model.removeprefix(_PREFIX) for model in models if model.startswith(_PREFIX)]
    releases = [name for name in names if RELEASE_NAME.match(name)]
    if not releases:
        raise RerankError("unavailable", "the server has no release ready; load one")
    return max(releases, key=lambda name: int(name[1:]))


def read_release(
    config: model_config_pb2.ModelConfig, release: str, expected: FeatureSpec | None = None
) -> ServedRelease:
    """The release that an ensemble's configuration describes.

    Args:
        expected: the feature spec that the caller encodes by; another one served is an error.

    Raises:
        RerankError: the configuration is not a release's, or its spec does not match its hash.
    """
    parameters = {name: value.string_value for name, value in config.parameters.items()}
    try:
        text, stated = parameters["feature_spec"], parameters["feature_spec_sha256"]
        spec = convert(json.loads(text), FeatureSpec, config.name)
        if parameters["release"] != release:
            raise ContractError(f"it says that it is {parameters['release']}")
    except (KeyError, ValueError) as error:
        raise RerankError("bad_response", f"{config.name} is no release: {error}") from error
    if spec.hash() != stated:
        raise RerankError(
            "bad_response",
            f"{config.name}: its feature spec has hash {spec.hash()[:12]} and states "
            f"{stated[:12]}; this client and the release differ in version",
        )
    if expected is not None and expected.hash() != stated:
        raise RerankError(
            "bad_response",
            f"{config.name} was trained on feature spec {stated[:12]}, the client encodes by "
            f"{expected.hash()[:12]}; use the release's own (leave spec out)",
        )
    return ServedRelease(release, spec, stated, FeatureEncoder(spec), config.max_batch_size)
