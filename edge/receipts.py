"""Whether a receipt may be believed, and so whether anything may be forgotten because of it. Pure."""

from collections.abc import Callable

from protocol.committed import Committed

BELIEVED = "believed"
STALE = "receipt_stale"
OTHER_EPOCH = "receipt_other_epoch"
"""Of the key before: retained by the broker until the hub has the first seal of this one."""
HUB_IS_AHEAD = "receipt_hub_is_ahead"
"""The hub has seals, or a key, that this journal never made: it is an older copy. Sealing on would fork the chain."""
HASH_DIFFERS = "receipt_hash_differs"
"""The hub has another seal under our number. Nothing is forgotten until a person has looked."""


def judge_receipt(
    receipt: Committed,
    *,
    key_epoch: int,
    last_sequence: int,
    confirmed_sequence: int,
    seal_hash_of: Callable[[int], bytes | None],
) -> str:
    """BELIEVED, or the reason why nothing may be forgotten because of this receipt."""
    if receipt.key_epoch > key_epoch:
        return HUB_IS_AHEAD
    if receipt.key_epoch < key_epoch:
        return OTHER_EPOCH
    highest = receipt.ranges[-1][1] if receipt.ranges else receipt.contiguous_sequence
    if highest > last_sequence:
        return HUB_IS_AHEAD
    if receipt.contiguous_sequence < confirmed_sequence:
        return STALE
    if receipt.contiguous_sequence and seal_hash_of(receipt.contiguous_sequence) != receipt.contiguous_seal_hash:
        return HASH_DIFFERS
    return BELIEVED
