"""Every kustomization of the project, rendered once."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest

from deploy.cluster.rendering import Object, kustomizations, render

#: What can be rendered, by name; the tests are made over it.
NAMES = tuple(kustomizations())


@pytest.fixture(scope="session")
def rendered() -> Callable[[str], list[Object]]:
    """Objects of a kustomization by its name; a copy, which a test may spoil."""
    done: dict[str, list[Object]] = {}

    def get(name: str) -> list[Object]:
        if name not in done:
            done[name] = render(kustomizations()[name])
        return copy.deepcopy(done[name])

    return get


def find(objects: list[Object], kind: str, name: str) -> Object:
    """The object of a kind and name."""
    return next(one for one in objects if (one["kind"], one["metadata"]["name"]) == (kind, name))
