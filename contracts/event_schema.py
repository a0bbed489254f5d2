"""The JSON Schema of the events, made from the structs that read them.

    python contracts/event_schema.py            # is the published schema what the code says?
    python contracts/event_schema.py --write    # publish what the code says

Exit codes: 0 it is, or was written; 2 it is not.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import msgspec

from contracts.events import MAX_ID, Event

PUBLISHED = Path(__file__).parent / "schemas" / "events.v1.json"

#: What holds beyond the schema; JSON Schema cannot say it.
_BEYOND = (
    "A message of gref.exposures is an Exposure, one of gref.feedback a FeedbackEvent. Beyond this "
    "schema: a message is UTF-8 JSON of at most 1,048,576 bytes; whole numbers are written without "
    "a decimal point; numbers fit a 64-bit float; exposed holds indices below the number of "
    "candidates; no two candidates have the same item; log_prob is as long as exposed."
)


def events_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of an event of either topic, version 1."""
    (event,), definitions = msgspec.json.schema_components([Event])
    candidate, exposure = definitions["Candidate"], definitions["Exposure"]
    # What Exposure.__post_init__ checks and a schema can say.
    candidate["properties"]["item"] = {"type": "string", "minLength": 1, "maxLength": MAX_ID}
    exposure["properties"]["exposed"]["uniqueItems"] = True
    for definition in definitions.values():
        definition["description"] = _one_line(definition["description"])
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:gref:events:v1",
        "title": "Events of GReF, version 1",
        "description": _BEYOND,
        "oneOf": event["anyOf"],
        "$defs": definitions,
    }


def schema_text() -> str:
    """The schema as it is published."""
    return json.dumps(events_schema(), indent=2) + "\n"


def is_published() -> bool:
    """Whether the published file is what the code says."""
    return PUBLISHED.exists() and PUBLISHED.read_text(encoding="utf-8") == schema_text()


def _one_line(docstring: str) -> str:
    return " ".join(docstring.replace("``", "").split())


if __name__ == "__main__":  # no typer: a ranking server may hold this folder alone
    if sys.argv[1:] == ["--write"]:
        PUBLISHED.parent.mkdir(exist_ok=True)
        PUBLISHED.write_text(schema_text(), encoding="utf-8")
        print(f"{PUBLISHED}: written")
    elif sys.argv[1:]:
        print(__doc__)
        sys.exit(0 if sys.argv[1:] == ["--help"] else 2)
    elif is_published():
        print(f"{PUBLISHED}: up to date")
    else:
        print(f"{PUBLISHED}: differs from the code; publish with --write", file=sys.stderr)
        sys.exit(2)
