"""Load on a Triton from a process of its own: requests at random times, or by callers who wait.

Run by ``benchmarks/load_stage.py``, which writes a stage as a JSON line to standard input and reads
its outcome as one from standard output. The messages were built and serialised before and are sent
as they are, so that the generator takes little of the processor that the server needs too.

Open loop: times to send are drawn before (a Poisson process), and a latency runs from that time,
not from the moment of sending. A server that falls behind, or a generator that does, is seen as
late; callers who wait for each other's answers would hide it (coordinated omission).
"""

from __future__ import annotations

import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import grpc
import msgspec

_METHOD = "/inference.GRPCInferenceService/ModelInfer"
#: At most so many requests of a process are under way; those beyond it are late, and counted so.
MOST_UNDER_WAY = 2_000
_LARGEST = 1 << 30


class Stage(msgspec.Struct, kw_only=True, frozen=True):
    """What one process is to do.

    Attributes:
        url: Triton's gRPC address, on this machine.
        messages: a file of serialised requests, MessagePack; they are sent in turn.
        rate: requests per second of an open loop; 0 for a closed one.
        callers: of a closed loop, each of which waits for its answer before it asks again.
        seconds: for how long requests are sent.
        timeout_s: a request without an answer by then has failed.
        seed: of the arrivals.
        connect_s: how long the server may take to be reached; then it counts as unavailable.
    """

    url: str
    messages: str
    rate: float
    callers: int
    seconds: float
    timeout_s: float
    seed: int
    connect_s: float = 30.0


class Outcome(msgspec.Struct, kw_only=True, frozen=True):
    """What became of them.

    Attributes:
        latencies_ms: of the answered requests.
        failed: requests without an answer, by gRPC status.
        wall_s: from the first time to send to the last answer.
        cpu_s: processor time of this process.
        late_p99_ms: how long after its time a request was sent (open loop).
    """

    latencies_ms: list[float]
    failed: dict[str, int]
    wall_s: float
    cpu_s: float
    late_p99_ms: float


class Sender:
    """Sends messages and notes how long they took."""

    def __init__(self, channel: grpc.Channel, messages: Sequence[bytes], timeout_s: float) -> None:
        self._call = channel.unary_unary(_METHOD)  # bytes in, bytes out
        self._messages, self._timeout_s = messages, timeout_s
        self._number = 0
        self._free = threading.Semaphore(MOST_UNDER_WAY)
        self._idle = threading.Condition()
        self._under_way = 0
        self.latencies_ms: list[float] = []
        self.failed: Counter[str] = Counter()

    def send(self, intended: float, then: threading.Semaphore | None = None) -> None:
        """Ask once; the answer's latency runs from ``intended``. ``then`` is released after it."""
        self._free.acquire()
        with self._idle:
            self._under_way += 1
        message = self._messages[self._number % len(self._messages)]
        self._number += 1
        future = self._call.future(message, timeout=self._timeout_s)
        future.add_done_callback(lambda done: self._note(done, intended, then))

    def wait(self) -> None:
        """Until nothing is under way; each request ends by its time-out at the latest."""
        with self._idle:
            if not self._idle.wait_for(lambda: not self._under_way, self._timeout_s + 10):
                raise RuntimeError(f"{self._under_way} requests did not end by their time-out")

    def _note(self, done: grpc.Future, intended: float, then: threading.Semaphore | None) -> None:
        ended, code = time.perf_counter(), done.code()
        with self._idle:
            if code is grpc.StatusCode.OK:
                self.latencies_ms.append(1000 * (ended - intended))
            else:
                self.failed[code.name] += 1
            self._under_way -= 1
            if not self._under_way:
                self._idle.notify()
        self._free.release()
        if then is not None:
            then.release()


def open_loop(sender: Sender, rate: float, seconds: float, seed: int) -> list[float]:
    """Send at the times of a Poisson process; returns by how much each was sent too late, in s."""
    draw = random.Random(seed)
    late = []
    begin = time.perf_counter()
    due = begin + draw.expovariate(rate)
    while due < begin + seconds:
        wait = due - time.perf_counter()
        if wait > 0:
            time.sleep(wait)
        late.append(time.perf_counter() - due)
        sender.send(due)
        due += draw.expovariate(rate)
    sender.wait()
    return late


def closed_loop(sender: Sender, callers: int, seconds: float) -> None:
    """Keep ``callers`` requests under way."""
    free = threading.Semaphore(callers)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        if free.acquire(timeout=1.0):
            sender.send(time.perf_counter(), then=free)
    sender.wait()


def run(stage: Stage) -> Outcome:
    """Do what a stage says."""
    messages = msgspec.msgpack.decode(Path(stage.messages).read_bytes(), type=list[bytes])
    with grpc.insecure_channel(
        stage.url,
        [
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.max_send_message_length", _LARGEST),
            ("grpc.max_receive_message_length", _LARGEST),
        ],
    ) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=stage.connect_s)
        except grpc.FutureTimeoutError:
            return Outcome(
                latencies_ms=[],
                failed={grpc.StatusCode.UNAVAILABLE.name: 1},
                wall_s=stage.connect_s,
                cpu_s=0.0,
                late_p99_ms=0.0,
            )
        sender = Sender(channel, messages, stage.timeout_s)
        begin, cpu = time.perf_counter(), time.process_time()
        late = [0.0]
        if stage.rate:
            late += open_loop(sender, stage.rate, stage.seconds, stage.seed)
        else:
            closed_loop(sender, stage.callers, stage.seconds)
        wall_s, cpu_s = time.perf_counter() - begin, time.process_time() - cpu
    late.sort()
    return Outcome(
        latencies_ms=sender.latencies_ms,
        failed=dict(sender.failed),
        wall_s=wall_s,
        cpu_s=cpu_s,
        late_p99_ms=1000 * late[int(0.99 * (len(late) - 1))],
    )


def main() -> None:
    """One stage for each line of standard input, until it ends."""
    for line in sys.stdin.buffer:
        outcome = run(msgspec.json.decode(line, type=Stage))
        sys.stdout.buffer.write(msgspec.json.encode(outcome) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
