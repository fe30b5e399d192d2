"""What folding one event asks for besides the state it changed."""

from dea_daemon.domain.commands import Aside, CancelOrder, QueryAccount, Resubscribe
from dea_daemon.domain.decisions import Note


class Effects:
    """Collected by one fold: never a new order, only a resubscription, a cancel, a question, a wake-up.

    One instance serves a run; `clear` before each event.
    """

    __slots__ = ("commands", "notes", "wake")

    def __init__(self) -> None:
        self.commands: list[Resubscribe | CancelOrder | QueryAccount | Aside] = []
        self.notes: list[Note] = []
        self.wake = ""

    def clear(self) -> None:
        if self.commands or self.notes or self.wake:
            self.commands, self.notes, self.wake = [], [], ""

    def note(self, event: str, **fields: str | int | float | bool) -> None:
        self.notes.append(Note(event, fields))
