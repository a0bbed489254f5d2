"""Hypothesis strategies for specs, requests and slates."""

from __future__ import annotations

from hypothesis import strategies as st

from contracts.features import Categorical, Dense, FeatureGroup, FeatureSpec, FeedbackKind
from contracts.slates import Candidate, Feedback, RerankRequest, Scalar, Slate

NAMES = ("alpha", "beta", "gamma", "delta")
VOCABULARY = ("red", "7", "true", "", "ü")

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
categories = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 9),
    st.integers(-(2**80), 2**80),
    st.sampled_from(VOCABULARY),
    text,
)
numbers = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(0, 2**70),
    st.floats(min_value=0, allow_nan=False, allow_infinity=False),
)


@st.composite
def groups(draw: st.DrawFn, identity: str) -> FeatureGroup:
    """A feature group; the side's identity may be among its categories."""
    names = draw(st.permutations(NAMES))
    split = draw(st.integers(0, len(names)))
    chosen = list(names[: draw(st.integers(0, split))])
    if draw(st.booleans()):
        chosen.append(identity)
    categorical = tuple(
        Categorical(name=name, width=4, vocabulary=VOCABULARY)
        if draw(st.booleans())
        else Categorical(name=name, width=4, buckets=draw(st.integers(1, 10**8)))
        for name in chosen
    )
    dense = tuple(
        Dense(
            name=name,
            transform=draw(st.sampled_from(("identity", "log1p"))),
            mean=draw(st.floats(-100, 100)),
            std=draw(st.floats(0.01, 100)),
        )
        for name in names[split : draw(st.integers(split, len(names)))]
    )
    if identity == "item" and draw(st.booleans()):
        dense += (Dense(name="score", mean=0.5, std=0.25),)
    return FeatureGroup(categorical=categorical, dense=dense)


@st.composite
def specs(draw: st.DrawFn) -> FeatureSpec:
    return FeatureSpec(
        user=draw(groups("user")),
        item=draw(groups("item")),
        list_size=draw(st.integers(1, 10)),
        candidate_buckets=draw(st.sampled_from(((4, 8), (1, 2, 16), (7,)))),
        feedback=(
            FeedbackKind(kind="click", type="binary"),
            FeedbackKind(kind="watch", type="continuous"),
        ),
        utility="click",
    )


@st.composite
def features(draw: st.DrawFn, group: FeatureGroup) -> dict[str, Scalar]:
    """Raw values of a group; some are missing, and one that no spec knows may be there."""
    values: dict[str, Scalar] = {}
    for feature in (*group.categorical, *group.dense):
        if feature.name not in ("item", "user", "score") and draw(st.integers(0, 4)):
            values[feature.name] = draw(categories if isinstance(feature, Categorical) else numbers)
    if draw(st.booleans()):
        values["not_in_the_spec"] = 1.5
    return values


@st.composite
def candidates(draw: st.DrawFn, spec: FeatureSpec) -> Candidate:
    return Candidate(
        item=draw(text),
        score=draw(st.one_of(st.none(), st.floats(0, 1))),
        features=draw(features(spec.item)),
    )


@st.composite
def requests(draw: st.DrawFn, spec: FeatureSpec) -> RerankRequest:
    size = draw(st.integers(1, min(7, spec.max_candidates)))
    return RerankRequest(
        request_id=draw(text),
        user=draw(text),
        candidates=tuple(draw(candidates(spec)) for _ in range(size)),
        user_features=draw(features(spec.user)),
    )


@st.composite
def slates(draw: st.DrawFn, spec: FeatureSpec) -> Slate:
    request = draw(requests(spec))
    order = draw(st.permutations(range(len(request.candidates))))
    exposed = tuple(order[: draw(st.integers(0, len(order)))])
    feedback = tuple(
        Feedback(
            position=position,
            kind=kind.kind,
            value=draw(st.floats(0, 1e6)),
            time=draw(st.integers(0, 2**53)),
        )
        for kind in spec.feedback
        for position in range(len(exposed))
        if draw(st.booleans())
    )
    known = draw(st.booleans())
    return Slate(
        request_id=request.request_id,
        user=request.user,
        time=draw(st.integers(0, 2**53)),
        candidates=request.candidates,
        exposed=exposed,
        user_features=request.user_features,
        surface=draw(text),
        release=draw(st.sampled_from(("", "r0001"))),
        arm=draw(st.sampled_from(("", "a"))),
        log_prob=tuple(draw(st.floats(-50, 0)) for _ in exposed) if known else None,
        temperature=draw(st.floats(0, 2)),
        seed=draw(st.integers(-(2**63), 2**63 - 1)),
        feedback=feedback,
    )
