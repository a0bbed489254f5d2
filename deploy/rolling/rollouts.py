"""A rollout from its plan to its end: load, switch, drain, unload."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import msgspec

from contracts.reading import ContractError
from deploy.rolling import plans
from deploy.rolling.changes import Change, forget, pending
from deploy.rolling.loading import (
    Install,
    Say,
    ensure_loaded,
    ensure_loaded_in_a_hurry,
    loaded_in_vain,
)
from deploy.rolling.locking import SWITCH_WAIT_S, locked, work_if_free
from deploy.rolling.replicas import HASTY_UNLOAD_S, Fleet, Replica, ReplicaError, failures
from deploy.rolling.situation import Places, Situation, look, look_in_a_hurry
from deploy.rolling.switching import HalfMadeError, finish_pending, switch
from training.command import Refused

Plan = Callable[[Situation], Change]


@dataclass
class Rollout:
    """What the commands have in common.

    Attributes:
        drain_s: time for clients to read a new routing and to end what they ask, before unloading.
        keep: so many earlier champions stay loaded.
        wait_s: for another rollout to end.
    """

    places: Places
    fleet: Fleet
    install: Install
    say: Say
    drain_s: float = 5.0
    keep: int = 1
    wait_s: float = 60.0

    def run(self, plan: Plan) -> Change:
        """Start, ramp or promote: load everywhere, switch, drain, unload. Resumes what was killed.

        Raises:
            ContractError: what the command was given, or what lies there, is wrong.
            Refused: a check said no; nothing was switched.
        """
        with locked(self.places.routing, "work", self.wait_s):
            with self._switching():
                change = plan(look(self.places))
            ready: set[str] = set()
            while True:
                with self._switching():
                    # Planned again: a rollback may have come between.
                    now = look(self.places)
                    change = plan(now)
                    routing = change.routing or now.base()
                    if ready.issuperset(routing.releases):
                        self._switch(change)
                        break
                missing = [name for name in routing.releases if name not in ready]
                ensure_loaded(self.fleet, self.places.store, missing, self.install, self.say)
                ready.update(missing)
            self._retire()
            return change

    def stop(self, name: str, reason: str = "") -> Change:
        """Roll an experiment back: its units go to the champion at once. Asks no replica."""
        with work_if_free(self.places.routing) as alone:
            with locked(self.places.routing, "switch", SWITCH_WAIT_S):
                unfinished = self._finish_or_take_over()
                change = plans.plan_stop(look_in_a_hurry(self.places, name), name, reason)
                self._switch(_with_edits(change, unfinished))
            self._retire_if(alone)
            return change

    def back(self, to: str | None, reason: str) -> Change:
        """Take an earlier champion back.

        Args:
            to: the champion to go back to; without it the one before, or the nearest before it
                that can be served.
        """
        with work_if_free(self.places.routing) as alone:
            with locked(self.places.routing, "switch", SWITCH_WAIT_S):
                interrupted = self._interrupted_rollback(alone)
                unfinished = self._finish_or_take_over()
                if interrupted is not None and to in (None, interrupted):
                    self.say(f"the rollback to {interrupted} that was interrupted is finished")
                    change = Change(command="rollback")
                else:
                    change = self._plan_back(to, reason, unfinished)
                    self._switch(_with_edits(change, unfinished), keep_note=alone)
            self._retire_if(alone)
            return change

    def _plan_back(self, to: str | None, reason: str, unfinished: Change | None) -> Change:
        now = look_in_a_hurry(self.places)
        move = unfinished.champion if unfinished else None
        targets: tuple[str, ...]
        if move is not None and move.before is not None and move.before == now.champion:
            targets = (move.before,)  # a promotion, and the record has not followed yet
        else:
            targets = plans.earlier_champions(now, to)
        refused: list[str] = []
        for target in targets:
            try:
                self.places.store.manifest(target)
                ensure_loaded_in_a_hurry(self.fleet, self.places.store, target, self.say)
            except (ContractError, Refused) as error:
                refused.append(str(error))
                continue
            for words in refused:
                self.say(f"warning: passed over: {words}")
            return plans.plan_back(now, target, reason)
        raise Refused("no earlier champion can be served: " + "; ".join(refused))

    def _interrupted_rollback(self, alone: bool) -> str | None:
        """The champion that a rollback was going back to when it was killed, if that was so."""
        try:
            change = pending(self.places.routing)
        except ContractError:
            return None
        if change is None or change.champion is None or not change.champion.back:
            return None
        # Who holds the `work` lock is not killed but draining.
        return change.champion.to if change.stage == "switch" or alone else None

    @contextmanager
    def _switching(self) -> Iterator[None]:
        with locked(self.places.routing, "switch", SWITCH_WAIT_S):
            self._finish()
            yield

    def _finish_or_take_over(self) -> Change | None:
        """Finish what was interrupted; what of it cannot be, a rollback takes over."""
        try:
            self._finish()
        except HalfMadeError as error:
            self.say(f"warning: {error}")
            return pending(self.places.routing)
        except ContractError as error:
            self.say(f"warning: {error}")
        return None

    def _finish(self) -> None:
        done = finish_pending(self.places)
        if done is not None:
            what = f"{done.command} {done.name}".strip()
            self.say(f"a {what} that was interrupted is finished")

    def _switch(self, change: Change, keep_note: bool = False) -> None:
        if change.is_nothing:
            self.say("nothing to switch")
            return
        for told in switch(self.places, change, keep_note):
            self.say(f"warning: {told}")
        self.say(described(change))

    def _retire_if(self, alone: bool) -> None:
        if alone:
            self._retire()
        else:
            self.say("another rollout is at work; it unloads what is not needed any more")

    def _retire(self) -> None:
        """Unload what nobody is sent to any more, after a time to drain. Hold ``work``.

        Nothing that goes wrong here harms anybody: it is said, and the next rollout tries again.
        """
        try:
            self._unload_superfluous()
        except ContractError as error:
            self.say(f"warning: nothing is unloaded: {error}")

    def _unload_superfluous(self) -> None:
        # Replicas are asked without the lock, for one that hangs must not hold a rollback up.
        loaded = self.fleet.occupied()
        if self._superfluous(loaded):
            self.say(f"draining for {self.drain_s:g} s")
            time.sleep(self.drain_s)
            loaded = self.fleet.occupied()
        for words in failures(loaded):
            self.say(f"warning: not asked what it could unload: {words}")
        with locked(self.places.routing, "switch", SWITCH_WAIT_S):
            # Decided again: a rollback may have come between.
            gone = self._superfluous(loaded)
            failed = self._each_of(gone, lambda replica, name: replica.unload(name, HASTY_UNLOAD_S))
            note = pending(self.places.routing)
            if note is not None and note.stage == "retire":
                forget(self.places.routing)
        gone = {address: names for address, names in gone.items() if address not in failed}
        self._each_of(gone, lambda replica, name: replica.wait_unloaded(name))
        for name in sorted({name for names in gone.values() for name in names}):
            self.say(f"{name} is unloaded")

    def _each_of(
        self, names: dict[str, tuple[str, ...]], do: Callable[[Replica, str], None]
    ) -> set[str]:
        """``do`` of each name on its replica; the addresses where that failed, which is said."""

        def all_of(replica: Replica) -> None:
            for name in names.get(replica.address, ()):
                do(replica, name)

        answers = self.fleet.each(all_of)
        for words in failures(answers):
            self.say(f"warning: not unloaded: {words}")
        return {one for one, answer in answers.items() if isinstance(answer, ReplicaError)}

    def _superfluous(
        self, loaded: Mapping[str, tuple[str, ...] | ReplicaError]
    ) -> dict[str, tuple[str, ...]]:
        now = look(self.places)
        if now.record is None or now.in_force is None:
            return {}
        experiments = now.experiments.values()
        return loaded_in_vain(loaded, now.in_force, now.record, experiments, self.keep)


def _with_edits(change: Change, unfinished: Change | None) -> Change:
    """A rollback together with what an earlier change could not write down."""
    if unfinished is None:
        return change
    return msgspec.structs.replace(change, edits=(*unfinished.edits, *change.edits))


def described(change: Change) -> str:
    """What a change does, in a line."""
    told = []
    if change.champion is not None:
        told.append(f"champion {change.champion.before or 'none'} -> {change.champion.to}")
    for one in change.edits:
        weights = ", ".join(f"{arm} {weight:g}" for arm, weight in one.weights.items())
        told.append(f"experiment {one.name} {one.state}" + (f" ({weights})" if weights else ""))
    if change.routing is not None:
        told.append(f"clients are sent to {', '.join(change.routing.releases)}")
    return "; ".join(told) or "nothing to change"
