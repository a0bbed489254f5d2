"""The routing: what may run beside what, and what a client must have loaded."""

from __future__ import annotations

import pytest

from contracts.experiments import Arm, Exploration
from contracts.reading import canonical_json, decode_json
from contracts.routing import Routing, compile_routing
from tests.contracts.made_experiments import experiment

SAME = (
    Arm(name="control", release="champion", weight=0.5),
    Arm(name="treatment", release="champion", weight=0.5),
)
WARM = (
    SAME[0],
    Arm(name="warm", release="champion", weight=0.5, exploration=Exploration(share=0.1)),
)


def test_compiled_is_what_runs_in_the_order_of_names() -> None:
    made = compile_routing(
        "r0001",
        [
            experiment("b", surfaces=("home",)),
            experiment("draft", state="draft"),
            experiment("a", surfaces=("search",)),
            experiment("over", state="stopped"),
        ],
    )
    assert [one.name for one in made.experiments] == ["a", "b"]
    assert made.releases == ("r0001", "r0002")
    assert decode_json(canonical_json(made), Routing, "file") == made


def test_every_release_that_may_be_asked_is_named() -> None:
    arms = tuple(
        Arm(name=f"a{n}", release=f"r000{n}", weight=0.25, ceiling=None) for n in (7, 3, 9, 5)
    )
    assert compile_routing("r0001", [experiment(arms=arms)]).releases == (
        "r0001", "r0003", "r0005", "r0007", "r0009",
    )  # fmt: skip


def test_only_running_experiments_are_routed() -> None:
    with pytest.raises(ValueError, match="experiment one is draft; allowed: running"):
        Routing(champion="r0001", experiments=(experiment(state="draft"),))


@pytest.mark.parametrize("champion", ["", "champion", "r1", "r0001 "])
def test_the_champion_is_a_release(champion: str) -> None:
    with pytest.raises(ValueError, match=r"champion .*; allowed: r and at least four digits"):
        compile_routing(champion, [])


REFUSED = {
    "one layer, everywhere": ({}, {}, "a and b both run in layer ranking on all surfaces"),
    "one layer, one shared": (
        {"surfaces": ("home", "feed")},
        {"surfaces": ("feed", "search")},
        "a and b both run in layer ranking on surface feed",
    ),
    "one layer, one everywhere": ({"surfaces": ("home",)}, {}, "on surface home"),
    "one layer of two A/A tests": (
        {"arms": SAME, "aa": True}, {"arms": SAME, "aa": True}, "in layer ranking"
    ),
    "release in two layers": (
        {"layer": "x"}, {"layer": "y"}, "a and b both decide the release on all surfaces"
    ),
    "exploration in two layers": (
        {"layer": "x", "arms": WARM}, {"layer": "y", "arms": WARM}, "both decide the exploration"
    ),
    "salt, though apart": (
        {"surfaces": ("home",), "salt": "s"},
        {"surfaces": ("feed",), "salt": "s"},
        "a and b have the same salt s",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_two_that_contradict_are_refused_with_both_names(name: str) -> None:
    one, other, words = REFUSED[name]
    with pytest.raises(ValueError, match=words):
        compile_routing("r0001", [experiment("b", **other), experiment("a", **one)])


ALLOWED = {
    "one layer on surfaces apart": ({"surfaces": ("home",)}, {"surfaces": ("feed",)}),
    "release and exploration": ({"layer": "x"}, {"layer": "y", "arms": WARM}),
    "release and an A/A test": ({"layer": "x"}, {"layer": "y", "arms": SAME, "aa": True}),
    "two that do not both run": ({}, {"state": "stopped"}),
}


@pytest.mark.parametrize("name", ALLOWED)
def test_two_that_do_not_contradict_may_run(name: str) -> None:
    one, other = ALLOWED[name]
    compile_routing("r0001", [experiment("a", **one), experiment("b", **other)])


def test_the_same_experiment_twice() -> None:
    with pytest.raises(ValueError, match="experiment a is given twice"):
        compile_routing("r0001", [experiment("a"), experiment("a")])


def test_labels_of_a_surface_fit_into_an_exposure() -> None:
    """``Exposure.arm`` holds 256 characters; what does not fit would lose every exposure."""

    def layers(count: int, length: int) -> Routing:
        arms = tuple(Arm(name=name * length, release="champion", weight=0.5) for name in ("c", "t"))
        return compile_routing(
            "r0001",
            [
                experiment(
                    f"e{n}" + "x" * (length - 2), layer=f"l{n}", salt=f"s{n}", arms=arms, aa=True
                )
                for n in range(count)
            ],
        )

    layers(2, 63)  # 2 * (63 + 1 + 63) + 1 = 255
    with pytest.raises(ValueError, match=r"come to 259 characters; allowed: 256"):
        layers(2, 64)
