"""The folder of releases as one thing: what is there, who is the champion, what came from what.

    releases/
      r0001/ r0002/ ...     releases; see training/release/publishing.py. They never change
      champion.json         contracts.champion.ChampionFile
      .pruned/r0003.json    the manifest of a release that was pruned: lineage goes through it
      .publish.lock         held by who changes the folder; remembers the last name given out

Reading takes no lock: whatever has its name is complete. A change is made by one at a time, and a
crash leaves it made or not made.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from contracts.champion import ChampionChange, ChampionFile
from contracts.reading import ContractError
from contracts.releases import CHECKPOINT, ReleaseManifest, file_sha256
from training.release import catalog, champion_record
from training.release.catalog import DamagedError
from training.release.lineage import Ancestor, lineage
from training.release.pruning import PrunePlan, plan_pruning, prune

__all__ = ["Ancestor", "DamagedError", "PrunePlan", "ReleaseStore"]


class ReleaseStore:
    """Releases in a folder.

    Every method raises ContractError, with what to do, where a release or the record of champions
    is not there; DamagedError, which is one, where a release is not what its manifest says; and
    those that change something PublishError, where the folder cannot be changed.

    Args:
        folder: of releases; may be missing until something is published.
        wait_s: seconds to wait for another publisher.
    """

    def __init__(self, folder: Path, wait_s: float = 60.0) -> None:
        self.folder = folder
        self.wait_s = wait_s

    def names(self) -> tuple[str, ...]:
        """The releases, oldest first."""
        return catalog.release_names(self.folder)

    def path(self, name: str) -> Path:
        """The folder of a release."""
        return catalog.release_path(self.folder, name)

    def manifest(self, name: str) -> ReleaseManifest:
        """The manifest of a release; its files are not read."""
        return catalog.read_manifest(self.folder, name)

    def verify(self, name: str) -> ReleaseManifest:
        """The manifest of a release, after every file has been checked against it."""
        return catalog.verify(self.folder, name)

    def checkpoint(self, name: str) -> Path:
        """The checkpoint that a release was made from, its hash checked.

        Raises:
            ContractError: the release was published without one, as the first releases were: it
                can be served, but nothing can be trained from it.
        """
        manifest = self.manifest(name)
        path = self.path(name) / CHECKPOINT
        if CHECKPOINT not in manifest.files:
            raise ContractError(
                f"{path.parent}: published without its checkpoint; it can be served, but not "
                "refreshed from: export its checkpoint again (training/export.py), publish that, "
                "and make it the champion"
            )
        if not path.is_file() or file_sha256(path) != manifest.files[CHECKPOINT]:
            raise DamagedError(
                f"{path}: missing or altered; "
                f"see {champion_record.command(self.folder, f'verify {name}')}"
            )
        return path

    def record(self) -> ChampionFile:
        """Every change of the champion; the releases in it are not looked at."""
        return champion_record.read_record(self.folder)

    def champion(self) -> str:
        """The champion, its files verified."""
        name = self.record().release
        try:
            self.verify(name)
        except ContractError as error:
            kind = DamagedError if isinstance(error, DamagedError) else ContractError
            back = champion_record.command(self.folder, "rollback --reason ...")
            other = champion_record.command(self.folder, "champion rNNNN")
            raise kind(
                f"the champion {name} cannot be used: {error}; go back to the champion before it: "
                f"{back}; or name another: {other}"
            ) from error
        return name

    def set_champion(self, name: str, reason: str = "", expected: str | None = None) -> bool:
        """Verify a release and make it the champion.

        Args:
            expected: change nothing where another one has become the champion meanwhile.

        Returns:
            Whether the champion was changed; not where ``name`` was the champion already.
        """
        with champion_record.changing(self.folder, self.wait_s):
            return champion_record.set_champion(self.folder, name, reason, expected)

    def rollback(self, reason: str = "") -> str:
        """Take back the champion before this one, or the nearest before that is whole.

        Returns:
            Its name. A second rollback goes further back, never forth.
        """
        return self.roll_back(reason).release

    def roll_back(self, reason: str = "") -> ChampionChange:
        """``rollback``, with what was noted: the reason also says which release was passed over."""
        with champion_record.changing(self.folder, self.wait_s):
            return champion_record.roll_back(self.folder, reason)

    def lineage(self, name: str) -> list[Ancestor]:
        """A release and its ancestors, the anchor last."""
        return lineage(self.folder, name)

    def plan_pruning(self, keep: int, protected: Collection[str] = ()) -> PrunePlan:
        """What ``prune`` would delete and what it would keep for which reason."""
        return plan_pruning(self.folder, keep, protected)

    def prune(self, keep: int, protected: Collection[str] = ()) -> PrunePlan:
        """Delete all but the newest ``keep`` releases and those that something needs.

        Kept in any case: the champion, the champion that a rollback would take back, ``protected``,
        and the anchor of each release that stays. The manifests of the pruned stay for the lineage.
        """
        with champion_record.changing(self.folder, self.wait_s) as lock:
            return prune(self.folder, lock, keep, protected)
