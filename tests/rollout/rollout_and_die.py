"""Run a rollout command in processes that are killed. Not a test itself.

    python rollout_and_die.py KIND TEMPLATE FOLDER ADDRESS LOADED COMMAND...

For k = 1, 2, ... FOLDER is made afresh from TEMPLATE, the Triton at ADDRESS is brought to serve
LOADED (r0001,r0002), and a forked child runs COMMAND and sends itself SIGKILL when it is about to
do its k-th operation: of KIND files a change of a file; of KIND calls a load or unload of Triton,
before it is sent and while it is under way. The last child finds fewer than k. After each, prints a
line of JSON with what is to be seen, and again after COMMAND was repeated by a process that lives.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from contracts.experiments import read_experiments
from contracts.reading import read_json
from contracts.routing import Routing
from deploy import rollout
from deploy.rolling.replicas import Replica
from training.release import champion_record
from training.release.store import ReleaseStore

CHANGES = {"os.mkdir", "os.rename", "os.rmdir", "os.remove"}


def main() -> None:
    kind, template, folder, address, loaded = sys.argv[1:6]
    template, folder = Path(template), Path(folder)
    words = [*sys.argv[6:], *options(folder, address)]
    operation, alive = 1, False
    known: dict[str, tuple[Any, Any]] = {}  # what one state leads to need not be seen twice
    while not alive:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(template, folder)
        if kind == "calls" or operation == 1:  # what dies at files has loaded or unloaded nothing
            in_child(lambda: load_only(folder, address, set(loaded.split(","))))
        alive = in_child(lambda k=operation: run(folder, words, kind, k)) == 0
        state = fingerprint(folder, address if kind == "calls" else None)
        if state not in known:
            seen = shown(folder, address)
            in_child(lambda: run(folder, words))
            known[state] = seen, shown(folder, address)
        seen, repeated = known[state]
        told = {"operation": operation, "killed": not alive, "seen": seen, "repeated": repeated}
        print(json.dumps(told), flush=True)
        operation += 1


def fingerprint(folder: Path, address: str | None) -> str:
    """The same for the same files and, where a Triton is given, the same releases loaded."""
    files = {
        str(path): path.read_bytes().hex()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith(".lock") and "r0" not in str(path)
    }
    loaded = answer_of_child(lambda: Replica(address).loaded()) if address else ()
    return json.dumps([files, loaded])


def answer_of_child(work: Callable[[], Any]) -> Any:
    read, write = os.pipe()
    in_child(lambda: os.write(write, json.dumps(work()).encode()))
    answer = json.loads(os.read(read, 65536))
    os.close(read)
    os.close(write)
    return answer


def in_child(work: Callable[[], Any]) -> int:
    """Do it in a fork, for gRPC must not be used before one; 0 if it ended, -9 if it was killed."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        return -os.WTERMSIG(status)
    if os.WEXITSTATUS(status):
        raise SystemExit("a command that was not killed failed")
    return 0


def run(folder: Path, words: list[str], kind: str = "", operation: int = 0) -> None:
    """Run the command; dies at its operation, or never (0)."""
    if kind == "files":
        watch_files(str(folder), counter(operation))
    elif kind == "calls":
        watch_calls(counter(operation))
    # One time for all, so that states compare.
    rollout._now = lambda: datetime(2026, 3, 1, tzinfo=timezone.utc)  # type: ignore[assignment]
    champion_record._now = lambda: "2026-03-01T00:00:00+00:00"
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        code = rollout.app(words, standalone_mode=False)
    if code:
        raise SystemExit(f"the command ended with exit code {code}")


def counter(operation: int) -> Callable[[bool], None]:
    seen = 0

    def count(under_way: bool = False) -> None:
        nonlocal seen
        seen += 1
        if seen != operation:
            return
        if under_way:
            threading.Thread(target=die, args=(0.001,), daemon=True).start()
        else:
            die()

    return count


def die(after_s: float = 0.0) -> None:
    time.sleep(after_s)
    os.kill(os.getpid(), signal.SIGKILL)


def watch_files(folder: str, count: Callable[[bool], None]) -> None:
    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if not writes or folder not in str(path):
                return
        elif event not in CHANGES or folder not in str(arguments[0]):
            return
        count(False)

    sync = os.fsync
    os.fsync = lambda file: (count(False), sync(file))[1]  # type: ignore[assignment]
    sys.addaudithook(audit)


def watch_calls(count: Callable[[bool], None]) -> None:
    def watched(name: str) -> Any:
        call = getattr(Replica, name)

        def counted(self: Replica, *given: Any) -> Any:
            count(False)
            count(True)
            return call(self, *given)

        return counted

    for name in ("send_load", "send_unload"):
        setattr(Replica, name, watched(name))


def load_only(folder: Path, address: str, names: set[str]) -> None:
    replica, store = Replica(address), ReleaseStore(folder / "releases")
    for name in set(replica.loaded()) - names:
        replica.unload(name)
        replica.wait_unloaded(name)
    for name in names:
        replica.load(name, store.manifest(name))


def options(folder: Path, address: str) -> list[str]:
    told = ["--experiments", folder / "experiments", "--releases", folder / "releases"]
    told += ["--routing", folder / "routing.json", "--replica", address, "--drain", 0]
    return [str(one) for one in told]


def shown(folder: Path, address: str) -> dict[str, Any]:
    """What clients read, what is written down, and what the replica answers for."""
    routing = read_json(folder / "routing.json", Routing)
    record = ReleaseStore(folder / "releases").record()
    experiments = read_experiments(folder / "experiments")

    def ask() -> Any:
        replica = Replica(address)
        silent = [name for name in routing.releases if replica.failure(name) is not None]
        return replica.loaded(), silent

    loaded, silent = answer_of_child(ask)
    histories = (folder / "experiments").glob("history/*.json")
    return {
        "champion": routing.champion,
        "undo": (folder / "undo.json").exists()
        and read_json(folder / "undo.json", Routing).champion,
        "routing": {one.name: [arm.weight for arm in one.arms] for one in routing.experiments},
        "record": [change.release for change in record.changes],
        "experiments": {
            name: [one.state, [arm.weight for arm in one.arms]] for name, one in experiments.items()
        },
        "stages": {
            path.stem: [one["weights"] for one in json.loads(path.read_text())["stages"]]
            for path in histories
        },
        "loaded": sorted(loaded),
        "silent": silent,
        "left": sorted(
            path.name
            for path in (*folder.iterdir(), *(folder / "experiments").rglob(".*"))
            if path.name.startswith(".") and not path.name.endswith(".lock")
        ),
    }


if __name__ == "__main__":
    main()
