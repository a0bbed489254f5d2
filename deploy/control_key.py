"""The key to Triton's control of models, where a server asks for one.

A server in production restricts loading and unloading (--grpc-restricted-protocol, as
deploy/kubernetes sets it): those calls must carry a header with a key. It comes from the
environment, never from a command line, which others can read.
"""

from __future__ import annotations

import os
from typing import Any

import tritonclient.grpc as triton

#: The environment variable that holds the key.
CONTROL_VARIABLE = "GREF_TRITON_CONTROL"
#: The header of ``--grpc-restricted-protocol=...:gref-control=KEY``; the prefix is Triton's own.
CONTROL_HEADER = "triton-grpc-protocol-gref-control"


def use_control_key(client: triton.InferenceServerClient) -> None:
    """Let a client send the key of the environment with every call; without one, change nothing."""
    key = os.environ.get(CONTROL_VARIABLE, "")
    if key:
        client.register_plugin(_Header(key))


class _Header(triton.InferenceServerClientPlugin):  # type: ignore[misc]
    """Adds the header to each request."""

    def __init__(self, key: str) -> None:
        self._key = key

    def __call__(self, request: Any) -> None:
        request.headers[CONTROL_HEADER] = self._key
