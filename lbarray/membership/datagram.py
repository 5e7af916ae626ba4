"""Datagrams between the nodes of one array: sealed, and worth nothing to whoever recorded them.

Layout: ``magic (4) | kind (1) | incarnation (8) | sequence (8) | milliseconds since the epoch (8) | length of name (1)
| name | sealed body``. AES-256-GCM (RFC 5116) hides the body and signs everything. Each life of a node has its own key,
derived from the array's shared secret and name, the node's name and its incarnation (HMAC-SHA256, as RFC 5869
extracts); the sequence is the nonce, so that none is ever used twice under one key.
"""

from __future__ import annotations

import enum
import hmac
import struct
from collections.abc import Sequence

import attrs
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from lbarray.errors import Unreadable
from lbarray.sequences import SequenceWindow

__all__ = ["LONGEST", "BadDatagram", "DatagramCodec", "Kind", "ReplayGuard", "Stamp"]

MAGIC = b"LBA2"
#: Octets of a datagram: what an Ethernet frame carries without fragments, over IPv6 too.
LONGEST = 1452
_FIXED = struct.Struct("!4sBQQQB")
_TAG = 16


class Kind(enum.IntEnum):
    """What a datagram is: a heartbeat, the last one, or a message of the array's channel."""

    ALIVE = 1
    LEAVING = 2
    MESSAGE = 3


class BadDatagram(Unreadable):
    """A datagram that is not a fresh one of this array. ``why`` is its counter's label."""

    reason = "heartbeat"


@attrs.frozen
class Stamp:
    """Who sent a datagram, and when.

    :ivar incarnation: start of the sender's daemon, nanoseconds since the epoch.
    :ivar sequence: grows with each datagram of one incarnation.
    :ivar sent_at: the sender's clock, seconds since the epoch.
    """

    kind: Kind
    sender: str
    incarnation: int
    sequence: int
    sent_at: float


class DatagramCodec:
    """Seals and opens.

    :param secret: the shared key; surrounding white space does not count.
    :param array_name: arrays that share a key by accident still do not mix.
    :param accepted: other keys whose datagrams are opened, while the key is being replaced.
    """

    def __init__(self, *, secret: bytes, array_name: str, accepted: Sequence[bytes] = ()) -> None:
        purpose = b"lbarray datagrams " + array_name.encode()
        self._keys = [hmac.digest(purpose, each.strip(), "sha256") for each in (secret, *accepted)]
        self._ciphers: dict[str, tuple[int, AESGCM]] = {}
        self._own: dict[str, tuple[int, AESGCM]] = {}

    @staticmethod
    def _cipher(key: bytes, sender: bytes, incarnation: int) -> AESGCM:
        return AESGCM(hmac.digest(key, incarnation.to_bytes(8, "big") + sender, "sha256"))

    def seal(self, stamp: Stamp, body: bytes) -> bytes:
        """The datagram.

        :raises ValueError: it would be longer than ``LONGEST``.
        """
        name = stamp.sender.encode()
        head = (
            _FIXED.pack(MAGIC, stamp.kind, stamp.incarnation, stamp.sequence, round(stamp.sent_at * 1000), len(name))
            + name
        )
        if len(head) + len(body) + _TAG > LONGEST:
            raise ValueError(f"{len(body)} octets do not fit into a datagram of {LONGEST}")
        incarnation, cipher = self._own.get(stamp.sender, (-1, None))
        if cipher is None or incarnation != stamp.incarnation:
            cipher = self._cipher(self._keys[0], name, stamp.incarnation)
            self._own[stamp.sender] = (stamp.incarnation, cipher)
        return head + cipher.encrypt(_nonce(stamp.sequence), body, head)

    def open(self, datagram: bytes) -> tuple[Stamp, bytes]:
        """Who sent it, and the body.

        :raises BadDatagram: not ours, or not sealed with our key.
        """
        if not _FIXED.size + _TAG <= len(datagram) <= LONGEST or not datagram.startswith(MAGIC):
            raise BadDatagram("no_heartbeat", f"{len(datagram)} octets that are no datagram of this version")
        _, kind, incarnation, sequence, sent_ms, length = _FIXED.unpack_from(datagram)
        head = datagram[: _FIXED.size + length]
        name = head[_FIXED.size :]
        try:
            sender = name.decode()
        except UnicodeDecodeError:
            raise BadDatagram("no_heartbeat", "a datagram whose sender's name is no text") from None
        known, cipher = self._ciphers.get(sender, (-1, None))
        sealed = datagram[len(head) :]
        if cipher is not None and known == incarnation:
            body = _opened(cipher, sequence, sealed, head)
        else:
            ciphers = [self._cipher(key, name, incarnation) for key in self._keys]
            cipher, body = next(
                ((each, found) for each in ciphers if (found := _opened(each, sequence, sealed, head)) is not None),
                (None, None),
            )
        if cipher is None or body is None:
            raise BadDatagram("wrong_key", "a datagram that is sealed with another key")
        # Only now: whoever invents senders shall not fill our memory.
        self._ciphers[sender] = (incarnation, cipher)
        try:
            return Stamp(Kind(kind), sender, incarnation, sequence, sent_ms / 1000), body
        except ValueError:
            raise BadDatagram("no_heartbeat", f"a sealed datagram of kind {kind}, which this version lacks") from None


def _opened(cipher: AESGCM, sequence: int, sealed: bytes, head: bytes) -> bytes | None:
    try:
        return cipher.decrypt(_nonce(sequence), sealed, head)
    except InvalidTag:
        return None


def _nonce(sequence: int) -> bytes:
    return sequence.to_bytes(12, "big")


@attrs.define
class _Seen:
    incarnation: int
    window: SequenceWindow
    heartbeat: int = 0


class ReplayGuard:
    """Lets each datagram pass once, and none from the past.

    A sender's incarnation never goes back. Within one, datagrams may overtake each other by up to ``WINDOW``
    (RFC 4303, §3.4.3); heartbeats only go forward, so that an old one never takes back what a newer one said.
    A node which restarted knows of nobody yet and would let an old recording of a dead node in; so datagrams must
    also be fresh by the wall clock, within ``max_skew_s``: clocks of an array need not agree better than that.
    """

    WINDOW = 1024

    def __init__(self, max_skew_s: float = 60.0) -> None:
        self._max_skew_s = max_skew_s
        self._seen: dict[str, _Seen] = {}

    def admit(self, stamp: Stamp, wall_clock: float) -> None:
        """:raises BadDatagram: replayed, too late, or from another time."""
        name = stamp.sender
        skew = stamp.sent_at - wall_clock
        if abs(skew) > self._max_skew_s:
            raise BadDatagram(
                "wrong_time",
                f"a datagram of node {name} that is {skew:+.0f} s off our clock: an old recording, "
                "or the clocks differ (timedatectl)",
            )
        seen = self._seen.get(name)
        if seen is None or stamp.incarnation > seen.incarnation:
            seen = _Seen(stamp.incarnation, SequenceWindow(self.WINDOW))
        overtaken = stamp.kind is not Kind.MESSAGE and stamp.sequence <= seen.heartbeat
        if stamp.incarnation < seen.incarnation or overtaken or not seen.window.admit(stamp.sequence):
            raise BadDatagram("replayed", f"a datagram of node {name} that was there before")
        if stamp.kind is not Kind.MESSAGE:
            seen.heartbeat = stamp.sequence
        self._seen[name] = seen
