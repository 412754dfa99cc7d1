"""Which block of a step a task does next.

Leased: every task begins with its own share, every n-th block, and goes on with what others have not begun or have
abandoned, so that a slow or lost node costs the block in its hands and not a shard. Static: its own share and no more.
A lease only saves double work; what makes a block's products unique is that they are published once.
"""

from collections import deque
from collections.abc import Callable, Sequence

from prox_hpc.corpus.read import Block
from prox_hpc.leases import Leases


class Claims:
    """Hands out the blocks that are not `done`, each to one task at a time.

    leases: None for static assignment. what: tells leases of one kind of work on a block from those of another.
    own: the blocks of this task's share. blocks: all that it may do, its own share first.
    """

    def __init__(
        self,
        blocks: Sequence[Block],
        index: int,
        tasks: int,
        leases: Leases | None,
        done: Callable[[Block], bool],
        what: str = "",
    ):
        self._done, self._leases, self._what = done, leases, what
        self.own = list(blocks[index::tasks]) if index < tasks else []
        self._own = {block.index for block in self.own}
        # begins where the next task's share does, so that thieves do not all stand at one block
        start = (index + 1) % max(1, len(blocks))
        others = [block for block in [*blocks[start:], *blocks[:start]] if block.index not in self._own]
        self.blocks = self.own if leases is None else [*self.own, *others]
        self._left = deque(self.blocks)

    def take(self) -> Block | None:
        """A block to do now; None when the others are done, failed or in living hands."""
        for _ in range(len(self._left)):
            block = self._left.popleft()
            if self._done(block):
                continue
            if self._leases is None:
                return block
            if not self._leases.take(self._name(block)):
                self._left.append(block)
                continue
            if not self._done(block):  # it may have been finished between the look and the lease
                return block
            self.release(block)
        return None

    def put_back(self, block: Block) -> None:
        """The block is not begun after all and comes next; it stays in this task's hands."""
        self._left.appendleft(block)

    def release(self, block: Block) -> None:
        """The block is finished or given up."""
        if self._leases is not None:
            self._leases.release(self._name(block))

    @property
    def own_left(self) -> int:
        """Blocks of the task's own share that it has not looked at yet."""
        return sum(block.index in self._own for block in tuple(self._left))  # a thread may be in `take`

    @property
    def pending(self) -> bool:
        """Whether blocks are left to do, here or in others' hands."""
        return not all(self._done(block) for block in tuple(self._left))

    def _name(self, block: Block) -> str:
        return f"{block.index:05d}{self._what}"
