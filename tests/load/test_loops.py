"""When requests are sent, and what is recorded of them."""

import asyncio

import numpy as np

from tfopt.load.loops import closed_loop, open_loop
from tfopt.load.senders import CONNECTION_ERROR


class Recorded(list[tuple[float, float, float, str]]):
    def __call__(self, due: float, sent: float, answered: float, code: str, said: bytes) -> None:
        self.append((due, sent, answered, code))


class Delayed:
    """A sender whose answers take a while."""

    def __init__(self, seconds: float, code: str = "200", log: list[int] | None = None) -> None:
        self.seconds, self.code, self.log, self.busy, self.closed = seconds, code, log, False, False

    async def send(self, index: int) -> tuple[str, bytes]:
        assert not self.busy, "one request at a time"
        self.busy = True
        if self.log is not None:
            self.log.append(index)
        await asyncio.sleep(self.seconds)
        self.busy = False
        return self.code, b""

    async def close(self) -> None:
        self.closed = True


def test_a_client_waits_for_its_answer() -> None:
    recorded, sent = Recorded(), list[int]()
    asyncio.run(closed_loop([Delayed(0.02, log=sent) for _ in range(3)], 0.2, recorded))
    assert 3 <= len(recorded) <= 33
    assert sorted(sent) == list(range(len(sent))), "clients take requests in turns"
    assert all(due == begin and answered - begin >= 0.019 for due, begin, answered, _ in recorded)


def test_a_client_sends_one_request_at_least() -> None:
    recorded = Recorded()
    asyncio.run(closed_loop([Delayed(0.0)], 1e-9, recorded))
    assert len(recorded) == 1


def test_a_client_that_cannot_connect_does_not_spin() -> None:
    recorded = Recorded()
    asyncio.run(closed_loop([Delayed(0.0, CONNECTION_ERROR)], 0.1, recorded))
    assert len(recorded) <= 11


def test_requests_are_sent_when_they_are_due() -> None:
    recorded, arrivals, sent = Recorded(), np.arange(40) * 0.005, list[int]()
    made: list[Delayed] = []

    def another() -> Delayed:
        made.append(Delayed(0.03, log=sent))
        return made[-1]

    asyncio.run(open_loop(another, arrivals, recorded, max_connections=100))
    assert sent == list(range(40))
    due = np.array(sorted(record[0] for record in recorded))
    np.testing.assert_allclose(due - due[0], arrivals, atol=1e-9)
    assert all(begin >= due_at - 1e-4 for due_at, begin, _, _ in recorded), "never early"
    # Answers take six times the time between requests: nobody waits for them.
    assert 2 <= len(made) <= 40
    assert all(one.closed for one in made)


def test_waiting_for_a_connection_counts() -> None:
    recorded = Recorded()
    asyncio.run(open_loop(lambda: Delayed(0.05), np.zeros(4), recorded, max_connections=1))
    latencies = sorted(answered - due for due, _, answered, _ in recorded)
    assert all(latency >= 0.049 * (place + 1) for place, latency in enumerate(latencies))


def test_no_arrivals_are_no_requests() -> None:
    recorded = Recorded()
    asyncio.run(open_loop(lambda: Delayed(0.0), np.empty(0), recorded, max_connections=1))
    assert recorded == []
