"""Which version is undone to, and which done again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from letta_memory.domain.block_history.revisions import redone, undone


class Model:
    """An editor as everybody knows it: what was undone is forgotten with the next write."""

    def __init__(self) -> None:
        self.done, self.undone = [1], []

    def write(self, version: int) -> None:
        self.done.append(version)
        self.undone.clear()

    def undo(self) -> int:
        if len(self.done) == 1:
            return 0
        self.undone.append(self.done.pop())
        return self.done[-1]

    def redo(self) -> int:
        if not self.undone:
            return 0
        self.done.append(self.undone.pop())
        return self.done[-1]


@given(st.lists(st.sampled_from("wwuuur"), max_size=60))
def test_undoing_is_what_an_editor_does(keys):
    model, head, moves = Model(), 1, {}
    for key in keys:
        if key == "w":
            head += 1
            model.write(head)
            continue
        wanted = model.undo() if key == "u" else model.redo()
        assert (undone if key == "u" else redone)(head, moves) == wanted
        if wanted:
            head += 1
            moves[head] = wanted
