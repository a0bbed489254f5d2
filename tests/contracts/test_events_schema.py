"""The published JSON Schema, judged by the jsonschema library: it says what the decoders do."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.event_schema import PUBLISHED, events_schema, is_published
from contracts.events import Exposure, FeedbackEvent, decode_exposure, decode_feedback, encode_event
from contracts.reading import ContractError
from tests.contracts.made_events import exposure, exposures, feedback, feedback_events

SCHEMA = json.loads(PUBLISHED.read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
#: What a decoder says beyond the schema (its description lists them).
BEYOND = ("outside 0 to", "an item twice", "differ in length")
ROOT = Path(__file__).resolve().parents[2]


def test_the_published_schema_is_what_the_code_says() -> None:
    assert is_published(), "run: python contracts/event_schema.py --write"
    assert events_schema() == SCHEMA
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_the_command_tells_and_exits() -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "contracts/event_schema.py", *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )

    assert run().returncode == 0
    assert run("--nonsense").returncode == 2
    assert "Exit codes" in run("--help").stdout


@given(st.one_of(exposures(), feedback_events()))
def test_every_event_is_valid(event: Exposure | FeedbackEvent) -> None:
    VALIDATOR.validate(json.loads(encode_event(event)))


#: JSON values without whole-numbered floats: 1.0 is an integer to JSON Schema and none to us.
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 64), 1 << 64)
    | st.sampled_from([0, 1, 2, -1, 512, 0.5, -2.5, 1 << 53, (1 << 53) + 1, 1 << 63, ""])
    | st.sampled_from(["exposure", "feedback", "x", "é" * 64, "𝄞" * 65, "y" * 256, "z" * 257]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["item", "score", "features", "x"]), inner, max_size=3)
    ),
    max_leaves=4,
)


def paths(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [here]
    if isinstance(value, (dict, list)):
        for key, child in value.items() if isinstance(value, dict) else enumerate(value):
            found += paths(child, (*here, key))
    return found


@st.composite
def damaged(draw: st.DrawFn, event: Exposure | FeedbackEvent) -> Any:
    """An event as plain data with one thing changed, taken out, or put in."""
    content = copy.deepcopy(json.loads(encode_event(event)))
    *way, last = draw(st.sampled_from(paths(content)[1:]))
    parent = content
    for step in way:
        parent = parent[step]
    action = draw(st.sampled_from(["change", "change", "remove", "add"]))
    if action == "remove":
        del parent[last]
    elif action == "add" and isinstance(parent, dict):
        parent[draw(st.sampled_from(["extra", "version", "score", "type"]))] = draw(values)
    else:
        parent[last] = draw(values)
    return content


@pytest.mark.parametrize(
    ("event", "decode", "definition"),
    [
        (exposure(log_prob=(-1.0, -2.5, -0.5)), decode_exposure, "Exposure"),
        (feedback(), decode_feedback, "FeedbackEvent"),
    ],
)
@given(data=st.data())
@settings(max_examples=400, deadline=None)
def test_schema_and_decoder_refuse_the_same(
    event: Any, decode: Any, definition: str, data: st.DataObject
) -> None:
    content = data.draw(damaged(event))
    validator = VALIDATOR.evolve(schema={"$ref": f"{SCHEMA['$id']}#/$defs/{definition}"})
    by_schema = validator.is_valid(content)
    refusal = None
    try:
        decode(json.dumps(content).encode())
    except ContractError as error:
        refusal = str(error)
    if by_schema:
        assert refusal is None or any(text in refusal for text in BEYOND)
    else:
        assert refusal is not None, list(validator.iter_errors(content))


def test_the_oracle_can_refuse() -> None:
    content = json.loads(encode_event(feedback()))
    for change in ({"version": 2}, {"value": "1"}, {"colour": "red"}, {"type": "click"}):
        assert not VALIDATOR.is_valid({**content, **change})
    shown_twice = {**json.loads(encode_event(exposure())), "exposed": [1, 1]}
    assert not VALIDATOR.is_valid(shown_twice)


def test_the_examples_of_the_documentation_are_events() -> None:
    text = (ROOT / "docs" / "events.md").read_text()
    examples = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    assert len(examples) == 2
    for example, decode in zip(examples, (decode_exposure, decode_feedback)):
        event = decode(example.encode())
        VALIDATOR.validate(json.loads(example))
        for field in type(event).__struct_fields__:
            assert f"`{field}`" in text
