"""How many requests a server is given at a time, found with the real requests while they are answered.

Too few and the device waits for the host (8 in flight cost 13 % on two cores, 16-32 nothing; a GPU wants hundreds);
too many and the key-value cache overflows and work is thrown away. So the bound starts small and is doubled for as
long as that makes the server faster. Pure: time and answers are told to it.
"""

FIRST = 16
GAIN = 1.05
"""A doubling that gives less than 5 % more tokens a second was not worth it."""
ROUNDS = 4
SECONDS = 2.0
"""A window is at least so many times the bound of answers, and so long."""
STARVED = 0.25
"""A window in which more of the answers came while nothing else waited shows the supply's speed, not the server's."""


class Limit:
    """The bound on one server's requests in flight: `value`, settled at once when it is given (`fixed`).

    The first `value` answers after a change were asked for under the old bound and do not count. A kind of work not
    seen before (chunks after doc scores) starts the search again from where it stands.
    """

    def __init__(self, fixed: int | None, most: int):
        self.value = fixed if fixed is not None else min(FIRST, most)
        self.settled = fixed is not None
        self._fixed = fixed is not None
        self._most = most
        self._kinds: set[str] = set()
        self._speed = 0.0
        self._before = self.value
        self._restart()

    def answered(self, tokens: int, kind: str, others_wait: bool, now: float) -> None:
        """An answer over `tokens` tokens (prompt and output) has come at `now` (seconds)."""
        if self._fixed:
            return
        if kind not in self._kinds:
            self._kinds.add(kind)
            self.settled = False
            self._speed = 0.0
            self._restart()
        if self.settled:
            return
        self._answers += 1
        self._starved += not others_wait
        if self._answers <= self.value:
            self._start = now
            return
        self._tokens += tokens
        if self._answers > (1 + ROUNDS) * self.value and now - self._start >= SECONDS:
            if self._starved <= STARVED * self._answers:
                self._judge(self._tokens / (now - self._start))
            self._restart()

    def _judge(self, speed: float) -> None:
        if speed <= GAIN * self._speed:
            # the smaller bound does as well and leaves more of the cache free
            self.value = self._before
            self.settled = True
        elif self.value >= self._most:
            self.settled = True
        else:
            self._before, self._speed = self.value, speed
            self.value = min(2 * self.value, self._most)

    def _restart(self) -> None:
        self._answers = self._starved = 0
        self._tokens = 0
        self._start = 0.0
