"""Who hears what: sessions by channel, events to channels, notifications to outboxes."""

from dea_daemon.simvenue.deribit.call import Market
from dea_daemon.simvenue.deribit.channels import PERIOD_NS, Channel, Topic, topics
from dea_daemon.simvenue.deribit.directory import is_raw, open_channel
from dea_daemon.simvenue.deribit.errors import ApiError, invalid
from dea_daemon.simvenue.deribit.session import Json, Session, encode
from dea_daemon.simvenue.faults import FaultPlan
from dea_daemon.simvenue.words import VenueEvent

REQUEST_MAX = 500  # channels in one request, as at the venue
CHANNELS_MAX = 5_000  # of one session: our own bound
GARBAGE = b'{"jsonrpc":"2.0","method":"subscription","params":{"channel":"book.'
_Key = tuple[str, str]  # channel name, account ("" for public channels)


class Hub:
    """Encodes a notification once, however many listen."""

    def __init__(self, market: Market, faults: FaultPlan) -> None:
        self._market, self._faults = market, faults
        self._channels: dict[_Key, tuple[Channel, dict[Session, None]]] = {}
        self._listening: dict[Topic, list[_Key]] = {}  # topic → channels
        self._due_ns = 0

    def subscribe(self, session: Session, names: list[str], *, private: bool) -> list[str]:
        """The channels now heard of those asked for: wrong ones are left out, as the venue does.

        Raw channels need a key, and without one the whole request is refused; so is one with too many.
        """
        if len(names) > REQUEST_MAX:
            raise invalid("channels", f"max length is {REQUEST_MAX}")
        if not session.grant and any(is_raw(name) and not name.startswith("user.") for name in names):
            raise ApiError(13778)
        heard = [name for name in names if self._join(session, name, private=private)]
        if len(self._of(session)) > CHANNELS_MAX:
            self.unsubscribe(session, heard)
            raise ApiError(10028)
        return heard

    def _join(self, session: Session, name: str, *, private: bool) -> bool:
        account = session.account if name.startswith("user.") else ""
        if name.startswith("user.") and not (private and account):
            return False
        key = (name, account)
        if key not in self._channels:
            channel = open_channel(name, self._market, account)
            if channel is None:
                return False
            self._channels[key] = (channel, {})
            for about in channel.topics:
                self._listening.setdefault(about, []).append(key)
        channel, sessions = self._channels[key]
        if session not in sessions:
            self._say(key, channel.drain())  # the others first: the newcomer begins where they are
            sessions[session] = None
            for data in channel.first():
                self._tell(session, name, _frame(name, data))
        return True

    def unsubscribe(self, session: Session, names: list[str] | None = None) -> list[str]:
        """Leave these channels, or all; the ones that were left."""
        left = [key for key in self._of(session) if names is None or key[0] in names]
        for key in left:
            channel, sessions = self._channels[key]
            del sessions[session]
            if not sessions:
                del self._channels[key]
                for about in channel.topics:
                    self._listening[about].remove(key)
        return [name for name, _ in left]

    def leave_private(self, session: Session) -> None:
        """Hear no more of the account."""
        self.unsubscribe(session, [name for name, account in self._of(session) if account])

    def _of(self, session: Session) -> list[_Key]:
        return [key for key, (_, sessions) in self._channels.items() if session in sessions]

    def publish(self, events: list[VenueEvent], now_ns: int) -> None:
        """Feed the events to the channels; raw ones speak, and the others when their 100 ms are over."""
        touched: dict[_Key, None] = {}
        for event in events:
            for about in topics(event):
                for key in self._listening.get(about, ()):
                    channel, _ = self._channels[key]
                    channel.absorb(event)
                    if channel.raw:
                        touched[key] = None
        if now_ns >= self._due_ns:
            self._due_ns = (now_ns // PERIOD_NS + 1) * PERIOD_NS
            touched |= {key: None for key, (channel, _) in self._channels.items() if not channel.raw}
        for key in touched:
            self._say(key, self._channels[key][0].drain())

    def _say(self, key: _Key, said: list[Json]) -> None:
        name, _ = key
        for data in said:
            frame = _frame(name, data)
            for session in self._channels[key][1]:
                self._tell(session, name, frame)

    def _tell(self, session: Session, name: str, frame: bytes) -> None:
        match self._faults.on_message(name):
            case "gap" | "silent":
                return
            case "garbage":
                session.post(GARBAGE)
            case "close":
                session.closing = "fault"
        session.post(frame)


def _frame(name: str, data: Json) -> bytes:
    return encode({"jsonrpc": "2.0", "method": "subscription", "params": {"channel": name, "data": data}})
