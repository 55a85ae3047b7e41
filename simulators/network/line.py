"""What a bad line does to each packet. Pure: a seed decides, and the relay carries it out."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from simulators.network.framing import again, is_publication, packet_identifier, payload_start

PUBACK = 0x40


@dataclass(frozen=True)
class Badness:
    """How bad the line is: the chance, for each packet, that it is the one. Delays in seconds.

    `swallowed`: the sender of an MQTT PUBLISH gets its acknowledgement, and nobody gets the message.
    """

    cut: float = 0.0
    slow: float = 0.0
    delay_s: float = 0.0
    repeated: float = 0.0
    reordered: float = 0.0
    damaged: float = 0.0
    swallowed: float = 0.0


GOOD = Badness()


@dataclass
class Passage:
    """What becomes of one packet: wait, then send these on, answer the sender with those, and maybe cut."""

    delay_s: float = 0.0
    forward: list[bytes] = field(default_factory=list)
    answer: bytes = b""
    cut: bool = False


class Line:
    """One direction of one connection; `badness` says how bad it is by now.

    With `mqtt` only publications are repeated, held back, damaged or swallowed; otherwise any packet may be.
    """

    def __init__(self, badness: Callable[[], Badness], rng: random.Random, *, mqtt: bool) -> None:
        self._badness = badness
        self._rng = rng
        self._mqtt = mqtt
        self._held: bytes | None = None
        self.counts: dict[str, int] = {}

    def pass_on(self, packet: bytes) -> Passage:
        """Decide about the next packet."""
        bad, passage = self._badness(), Passage()
        if self._happens("cut", bad.cut):
            passage.cut = True
            return passage
        if self._happens("slow", bad.slow):
            passage.delay_s = self._rng.uniform(0, bad.delay_s)
        if self._mqtt and not is_publication(packet):
            passage.forward = [packet]
            return passage
        if self._mqtt and self._happens("swallowed", bad.swallowed):
            passage.answer = bytes([PUBACK, 2]) + packet_identifier(packet)
            return passage
        if self._happens("damaged", bad.damaged):
            packet = self._damage(packet)
        if self._held is None and self._happens("reordered", bad.reordered):
            self._held = packet
            return passage
        passage.forward = [packet]
        if self._happens("repeated", bad.repeated):
            passage.forward.append(again(packet) if self._mqtt else packet)
        passage.forward += self.release()
        return passage

    def release(self) -> list[bytes]:
        """What was held back, if anything: the relay asks for it when nothing follows."""
        held, self._held = self._held, None
        return [] if held is None else [held]

    def _damage(self, packet: bytes) -> bytes:
        first = payload_start(packet) + 1 if self._mqtt else 0  # behind the (empty) properties: the broker reads those
        if first >= len(packet):
            return packet
        damaged = bytearray(packet)
        damaged[self._rng.randrange(first, len(packet))] ^= 1 << self._rng.randrange(8)
        return bytes(damaged)

    def _happens(self, what: str, chance: float) -> bool:
        if not chance or self._rng.random() >= chance:
            return False
        self.counts[what] = self.counts.get(what, 0) + 1
        return True
