"""Advertisements that only the array's nodes can make: an HMAC behind the message, worth nothing when replayed.

VRRPv3 has no authentication (RFC 9568 §9). The trailer stands behind the message, where its length field and checksum
do not reach, so that a packet capture still reads the message; a router that does not know the trailer refuses it.

Layout: ``magic (4) | key (4) | incarnation (8) | sequence (8) | sent, ms (8) | HMAC-SHA256 (32)``, over the sender's
address, the message and the trailer before it.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Sequence

from lbarray.failover.packet import BadAdvertisement
from lbarray.sequences import SequenceWindow
from lbarray.values import Address

__all__ = ["MAX_SKEW_S", "TRAILER_OCTETS", "Authenticator"]

_MAGIC = b"LBV1"
_HEAD = struct.Struct("!4s4sQQQ")
TRAILER_OCTETS = _HEAD.size + 32
#: Advertisements that came in another order than they were sent in are still heard this far back.
WINDOW = 64
#: How far clocks of the array may differ, in seconds: only a sender's first advertisement is held against the clock.
MAX_SKEW_S = 60.0


class _Key:
    def __init__(self, secret: bytes, array_name: str) -> None:
        self.octets = hmac.digest(b"lbarray vrrp " + array_name.encode(), secret.strip(), "sha256")
        self.id = hashlib.sha256(b"id" + self.octets).digest()[:4]

    def sign(self, octets: bytes) -> bytes:
        return hmac.digest(self.octets, octets, "sha256")


class Authenticator:
    """Signs what this node says and verifies what others say, for all virtual routers of one address family.

    :param secrets: the key to sign with first, then others whose signatures are accepted: rotation.
    :param incarnation: grows with each start of this node: nanoseconds since the epoch.
    """

    def __init__(self, *, secrets: Sequence[bytes], array_name: str, incarnation: int) -> None:
        keys = [_Key(secret, array_name) for secret in secrets]
        self._signing = keys[0]
        self._keys = {key.id: key for key in keys}
        self._incarnation = incarnation
        self._sequence = 0
        self._windows: dict[Address, tuple[int, SequenceWindow]] = {}

    def sign(self, message: bytes, source: Address, wall_clock: float) -> bytes:
        """The message with its trailer."""
        self._sequence += 1
        key = self._signing
        head = _HEAD.pack(_MAGIC, key.id, self._incarnation, self._sequence, int(wall_clock * 1000))
        return message + head + key.sign(source.packed + message + head)

    def verify(self, octets: bytes, source: Address, wall_clock: float) -> bytes:
        """The message without its trailer.

        :raises BadAdvertisement: unsigned, signed with another key, replayed, or from another time.
        """
        message, trailer = octets[:-TRAILER_OCTETS], octets[-TRAILER_OCTETS:]
        if len(trailer) < TRAILER_OCTETS or not trailer.startswith(_MAGIC):
            raise BadAdvertisement("unsigned", f"advertisement from {source} without a signature")
        _, key_id, incarnation, sequence, sent_ms = _HEAD.unpack_from(trailer)
        key = self._keys.get(key_id)
        head = trailer[: _HEAD.size]
        if key is None or not hmac.compare_digest(key.sign(source.packed + message + head), trailer[_HEAD.size :]):
            raise BadAdvertisement("wrong_key", f"advertisement from {source} that is signed with another key")
        known, window = self._windows.get(source, (-1, SequenceWindow(WINDOW)))
        if incarnation > known:
            skew = sent_ms / 1000 - wall_clock
            if abs(skew) > MAX_SKEW_S:
                raise BadAdvertisement(
                    "wrong_time",
                    f"advertisement from {source} that is {skew:+.0f} s off our clock: an old recording, or the "
                    "clocks differ (timedatectl)",
                )
            window = SequenceWindow(WINDOW)
            self._windows[source] = (incarnation, window)
        if incarnation < known or not window.admit(sequence):
            raise BadAdvertisement("replayed", f"advertisement from {source} that was there before")
        return message
