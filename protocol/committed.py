"""The receipt: what the hub has stored durably, so that the meter may forget it.

    MessagePack [key_epoch, contiguous_sequence, seal hash of it | nil, [[first, last], …]]

Everything up to the contiguous sequence is stored, and so are the ranges beyond it. A broker's acknowledgement says
nothing of the kind: a killed broker loses messages that it acknowledged.
"""

from protocol import msgpack
from protocol.errors import ProtocolError
from protocol.limits import COMMITTED_RANGES_MAX, KEY_EPOCH_MAX, SEQUENCE_MAX
from protocol.seal import HASH_BYTES


class Committed:
    """All of 1 … `contiguous_sequence`, and the inclusive `ranges` beyond it, ascending, are stored.

    `contiguous_seal_hash` is the hash of the seal with that sequence; None while nothing is contiguous.
    """

    def __init__(
        self,
        key_epoch: int,
        contiguous_sequence: int,
        contiguous_seal_hash: "bytes | None",
        ranges: "list[tuple[int, int]]",
    ) -> None:
        self.key_epoch = key_epoch
        self.contiguous_sequence = contiguous_sequence
        self.contiguous_seal_hash = contiguous_seal_hash
        self.ranges = ranges

    def covers(self, sequence: int) -> bool:
        """Whether this receipt says that the seal is stored."""
        if sequence <= self.contiguous_sequence:
            return True
        for first, last in self.ranges:
            if first <= sequence <= last:
                return True
        return False


def encode_committed(receipt: Committed) -> bytes:
    """Encode a receipt; of more than COMMITTED_RANGES_MAX ranges the first ones are named."""
    named = [[first, last] for first, last in receipt.ranges[:COMMITTED_RANGES_MAX]]
    return msgpack.pack([receipt.key_epoch, receipt.contiguous_sequence, receipt.contiguous_seal_hash, named])


def decode_committed(data: bytes) -> Committed:
    """The inverse. Raises ProtocolError and nothing else, whatever the bytes."""
    fields = msgpack.unpack(data)
    if not isinstance(fields, list) or len(fields) != 4:
        raise ProtocolError("committed_shape", "not an array of four")
    epoch, contiguous, contiguous_hash, ranges = fields
    if not isinstance(epoch, int) or not 1 <= epoch <= KEY_EPOCH_MAX:
        raise ProtocolError("committed_epoch")
    if not isinstance(contiguous, int) or not 0 <= contiguous <= SEQUENCE_MAX:
        raise ProtocolError("committed_sequence")
    if contiguous == 0:
        if contiguous_hash is not None:
            raise ProtocolError("committed_hash", "a hash of nothing")
    elif not isinstance(contiguous_hash, bytes) or len(contiguous_hash) != HASH_BYTES:
        raise ProtocolError("committed_hash", "a hash has %d bytes" % HASH_BYTES)
    if not isinstance(ranges, list) or len(ranges) > COMMITTED_RANGES_MAX:
        raise ProtocolError("committed_ranges")
    checked: "list[tuple[int, int]]" = []
    before = contiguous
    for pair in ranges:
        if not isinstance(pair, list) or len(pair) != 2:
            raise ProtocolError("committed_ranges")
        first, last = pair
        if not isinstance(first, int) or not isinstance(last, int):
            raise ProtocolError("committed_ranges")
        if not before < first <= last <= SEQUENCE_MAX:
            raise ProtocolError("committed_ranges", "ranges ascend and do not touch")
        checked.append((first, last))
        before = last
    return Committed(epoch, contiguous, contiguous_hash, checked)
