"""What an event must be by itself, before it meets the others of its request.

Exposures are decoded into structs made from the feature spec: msgspec then checks the type of every
feature value while it reads, which is faster than looking at them afterwards.
"""

from __future__ import annotations

from typing import Annotated, Any, Protocol, Union

import msgspec
import pyarrow as pa

from contracts.events import MAX_EVENT_BYTES, Exposure, FeedbackEvent, decode_exposure
from contracts.events import decode_feedback as decode_any_feedback
from contracts.features import MAX_CANDIDATES, FeatureSpec
from contracts.reading import ContractError
from contracts.slate_columns import item_columns, user_columns
from streaming.consumer.dead_letters import Refused

#: ``timestamp_type`` of a record whose timestamp the broker set when it appended it.
LOG_APPEND_TIME = 1
_DETAIL = 500


class Record(Protocol):
    """What the join needs of a Kafka record (``kafka.consumer.fetcher.ConsumerRecord``)."""

    @property
    def offset(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def timestamp_type(self) -> int: ...


class _Header(msgspec.Struct):
    type: Any = None
    version: Any = None


class Intake:
    """Decodes events and refuses those that no slate can take."""

    def __init__(self, spec: FeatureSpec, max_skew: int) -> None:
        """Take the table's feature spec, and how far in ms an event may lie in the future."""
        self._sha256 = spec.hash()
        self._max_skew = max_skew
        self._binary = {one.kind: one.type == "binary" for one in spec.feedback}
        # Of both events: a decoder of one alone would not ask for the type.
        self._decoder = msgspec.json.Decoder(Union[_exposure_of(spec), FeedbackEvent])

    def exposure(self, record: Record, now: int) -> Exposure:
        """The exposure of a record; raises Refused."""
        value = _value(record)
        try:
            exposure = self._decoder.decode(value)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise _why(value, error, decode_exposure) from None
        if not isinstance(exposure, Exposure):
            raise Refused("malformed", "type is feedback; allowed on this topic: exposure")
        if record.key != exposure.request_id.encode():
            raise _wrong_key(record, exposure.request_id)
        if exposure.feature_spec_sha256 and exposure.feature_spec_sha256 != self._sha256:
            raise Refused(
                "other_features",
                f"feature spec {exposure.feature_spec_sha256[:12]}, the table's "
                f"{self._sha256[:12]}",
            )
        self._check_time(exposure.time, record, now)
        return exposure

    def feedback(self, record: Record, now: int) -> FeedbackEvent:
        """The feedback event of a record; raises Refused."""
        value = _value(record)
        try:
            event = self._decoder.decode(value)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise _why(value, error, decode_any_feedback) from None
        if not isinstance(event, FeedbackEvent):
            raise Refused("malformed", "type is exposure; allowed on this topic: feedback")
        if record.key != event.request_id.encode():
            raise _wrong_key(record, event.request_id)
        binary = self._binary.get(event.kind)
        if binary is None:
            raise Refused(
                "unknown_kind", f"kind {event.kind!r}; the spec's: {', '.join(self._binary)}"
            )
        if event.value < 0 or (binary and event.value not in (0.0, 1.0)):
            raise Refused(
                "wrong_value",
                f"{event.kind} is {event.value}; allowed: {'0 or 1' if binary else '0 or more'}",
            )
        self._check_time(event.time, record, now)
        return event

    def _check_time(self, time: int, record: Record, now: int) -> None:
        # The broker's own time, where the topic keeps it, gives the same answer on each reading.
        clock = record.timestamp if record.timestamp_type == LOG_APPEND_TIME else now
        if time > clock + self._max_skew:
            raise Refused("future", f"{time - clock} ms ahead; allowed: {self._max_skew}")


def _value(record: Record) -> bytes:
    value = record.value
    if value is None:
        raise Refused("malformed", "no value")
    if len(value) > MAX_EVENT_BYTES:
        raise Refused("too_large", f"{len(value):,} bytes; allowed: {MAX_EVENT_BYTES:,}")
    return value


def _wrong_key(record: Record, request_id: str) -> Refused:
    key = None if record.key is None else record.key[:64]
    return Refused("wrong_key", f"key {key!r}; expected the request_id {request_id[:64]!r}")


def _why(value: bytes, error: Exception, decode_any: Any) -> Refused:
    """Which rule a refused value breaks: that of the version, of the features, or of the schema."""
    try:
        header = msgspec.json.decode(value, type=_Header)
        if header.version not in (None, 1):
            return Refused("unknown_version", f"version {str(header.version)[:64]}; known: 1")
        decode_any(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Refused("malformed", str(error)[:_DETAIL])
    except ContractError as cause:
        return Refused("malformed", str(cause)[:_DETAIL])
    return Refused("feature_value", str(error)[:_DETAIL])


def _exposure_of(spec: FeatureSpec) -> Any:
    """The type of an exposure whose features must be what the columns of ``spec`` take."""
    candidate = msgspec.defstruct(
        "Candidate",
        [
            ("item", str),
            ("features", _features(item_columns(spec)), msgspec.field(default=None)),
            ("score", Union[float, None], None),
        ],
        frozen=True,
        forbid_unknown_fields=True,
        kw_only=True,
        gc=False,
    )
    return msgspec.defstruct(
        "Exposure",
        [
            (
                "candidates",
                Annotated[tuple[candidate, ...], msgspec.Meta(max_length=MAX_CANDIDATES)],  # type: ignore[valid-type]
            ),
            ("user_features", _features(user_columns(spec)), msgspec.field(default=None)),
        ],
        bases=(Exposure,),
        tag_field="type",
        tag="exposure",
        frozen=True,
        forbid_unknown_fields=True,
        kw_only=True,
    )


def _features(columns: dict[str, pa.DataType]) -> Any:
    """Features of the spec by type; others may be there and are not looked at.

    Plain values cannot form cycles, so the garbage collector need not visit them.
    """
    fields = [
        (
            f"f_{name}",
            Union[str, int, bool, None] if kind == pa.string() else Union[float, bool, None],
            msgspec.field(name=name, default=None),
        )
        for name, kind in columns.items()
    ]
    return msgspec.defstruct("Features", fields, frozen=True, kw_only=True, gc=False)
