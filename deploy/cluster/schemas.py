"""Is an object what the API says? Schemas of Kubernetes' own kinds come with kubernetes-validate,
those of the custom kinds that we use lie in ``deploy/kubernetes/schemas``."""

from __future__ import annotations

import json
from functools import lru_cache

import jsonschema  # type: ignore[import-untyped]
import kubernetes_validate  # type: ignore[import-untyped]

from deploy.cluster.rendering import KUBERNETES, Object, name_of

SCHEMAS = KUBERNETES / "schemas"
#: The oldest and the newest Kubernetes that the manifests are checked against.
VERSIONS = ("1.30", "1.37")


def schema_faults(objects: list[Object], versions: tuple[str, ...] = VERSIONS) -> list[str]:
    """What breaks a schema: unknown fields, wrong types, missing fields, unknown kinds."""
    faults = []
    for one in objects:
        own = _own_schema(one["apiVersion"], one["kind"])
        if own is not None:
            faults += [
                f"{name_of(one)}: {_place(error)}{error.message}"
                for error in jsonschema.Draft202012Validator(own).iter_errors(one)
            ]
            continue
        faults += [fault for version in versions if (fault := _fault(one, version))]
    return list(dict.fromkeys(faults))


def _fault(one: Object, version: str) -> str | None:
    try:
        kubernetes_validate.validate(one, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return f"{name_of(one)}: {_place(error)}{error.message} (Kubernetes {version})"
    except kubernetes_validate.SchemaNotFoundError:
        return (
            f"{name_of(one)}: {one['apiVersion']} has no such kind in Kubernetes {version}; a "
            f"custom kind needs a schema in {SCHEMAS.name}/"
        )
    return None


def _place(error: jsonschema.ValidationError) -> str:
    path = ".".join(str(step) for step in error.absolute_path)
    return f"{path}: " if path else ""


@lru_cache
def _own_schema(api_version: str, kind: str) -> Object | None:
    group = api_version.partition("/")[0]
    path = SCHEMAS / f"{kind.lower()}.{group}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
