"""Methods about slots, blockhashes and the node itself."""

from typing import Any

from solders.pubkey import Pubkey

from simulators.solana import errors, params
from simulators.solana.ledger import BLOCKHASH_SLOTS
from simulators.solana.slots import SLOTS_PER_EPOCH
from simulators.solana.view import API_VERSION, View, in_context

BLOCKS_MAX = 500_000
FEATURE_SET = 1


def get_health(view: View) -> Any:
    """Whether the node keeps up."""
    if view.lag_slots:
        raise errors.node_behind(view.lag_slots)
    return "ok"


def get_version(view: View) -> Any:
    """Of the software."""
    return {"feature-set": FEATURE_SET, "solana-core": API_VERSION}


def get_genesis_hash(view: View) -> Any:
    """Which cluster this is."""
    return view.genesis_hash


def get_identity(view: View) -> Any:
    """The node's key."""
    return {"identity": str(_identity(view))}


def get_slot(view: View, config: object = None) -> Any:
    """The newest slot."""
    return _slot(view, config)


def get_block_height(view: View, config: object = None) -> Any:
    """How many blocks there are: every slot has one."""
    return _slot(view, config)


def get_transaction_count(view: View, config: object = None) -> Any:
    """How many transactions have landed."""
    return view.ledger.storage.count_up_to(_slot(view, config))


def get_epoch_info(view: View, config: object = None) -> Any:
    """Where in which epoch."""
    slot = _slot(view, config)
    return {
        "absoluteSlot": slot,
        "blockHeight": slot,
        "epoch": slot // SLOTS_PER_EPOCH,
        "slotIndex": slot % SLOTS_PER_EPOCH,
        "slotsInEpoch": SLOTS_PER_EPOCH,
        "transactionCount": view.ledger.storage.count_up_to(slot),
    }


def get_epoch_schedule(view: View) -> Any:
    """How long epochs are."""
    return {
        "firstNormalEpoch": 0,
        "firstNormalSlot": 0,
        "leaderScheduleSlotOffset": SLOTS_PER_EPOCH,
        "slotsPerEpoch": SLOTS_PER_EPOCH,
        "warmup": False,
    }


def get_slot_leader(view: View, config: object = None) -> Any:
    """Who makes the newest slot: always this node."""
    _slot(view, config)
    return str(_identity(view))


def get_cluster_nodes(view: View) -> Any:
    """There is one."""
    return [
        {
            "pubkey": str(_identity(view)),
            "gossip": None,
            "tpu": None,
            "rpc": None,
            "version": API_VERSION,
            "featureSet": FEATURE_SET,
            "shredVersion": 0,
        }
    ]


def get_latest_blockhash(view: View, config: object = None) -> Any:
    """The newest blockhash, and until which height it may be used."""
    slot = _slot(view, config)
    return in_context(slot, latest_blockhash(view, slot))


def latest_blockhash(view: View, slot: int) -> dict[str, Any]:
    """A slot's blockhash, as answers have it."""
    return {"blockhash": str(view.ledger.blockhashes.of(slot)), "lastValidBlockHeight": slot + BLOCKHASH_SLOTS}


def is_blockhash_valid(view: View, blockhash: object, config: object = None) -> Any:
    """Whether a transaction with it could land."""
    wanted, slot = params.blockhash(blockhash), _slot(view, config)
    return in_context(slot, view.ledger.has_valid_blockhash(wanted, slot))


def get_recent_prioritization_fees(view: View, addresses: object = None) -> Any:
    """Nobody competes for this node's blocks."""
    for each in params.listing(addresses) if addresses is not None else ():
        params.pubkey(each)
    newest = view.levels.processed
    first = max(view.first_slot, newest - BLOCKHASH_SLOTS + 1)
    return [{"prioritizationFee": 0, "slot": slot} for slot in range(first, newest + 1)]


def get_first_available_block(view: View) -> Any:
    """The oldest block that the node has."""
    return view.first_slot


def get_block_time(view: View, slot: object) -> Any:
    """When a block was made, seconds since 1970."""
    number = params.u64(slot)
    if number < view.first_slot:
        raise errors.block_cleaned_up(number, view.first_slot)
    if number > view.levels.confirmed:
        raise errors.block_not_available(number)
    return block_time(view, number)


def block_time(view: View, slot: int) -> int:
    """When a slot began, seconds since 1970: what Clock said in it."""
    return view.ledger.began_unix_ms(slot) // 1000


def get_blocks(view: View, first: object, last: object = None, config: object = None) -> Any:
    """The slots of a range that have blocks: all that there are."""
    if isinstance(last, dict) and config is None:
        last, config = None, last
    newest = view.levels.slot_at(params.confirmed(params.mapping(config)))
    start, end = params.u64(first), newest if last is None else min(newest, params.u64(last))
    if end - start > BLOCKS_MAX:
        raise errors.invalid_params(f"Slot range too large; max {BLOCKS_MAX}")
    return list(range(max(start, view.first_slot), end + 1))


def get_blocks_with_limit(view: View, first: object, limit: object, config: object = None) -> Any:
    """So many slots with blocks from one on."""
    newest = view.levels.slot_at(params.confirmed(params.mapping(config)))
    start, count = params.u64(first), params.u64(limit, "usize")
    if count > BLOCKS_MAX:
        raise errors.invalid_params(f"Limit too large; max {BLOCKS_MAX}")
    start = max(start, view.first_slot)
    return list(range(start, min(newest + 1, start + count)))


def _slot(view: View, config: object) -> int:
    return view.slot_for(params.reading(params.mapping(config)))


def _identity(view: View) -> Pubkey:
    return Pubkey.find_program_address([b"node"], view.ledger.faucet.pubkey())[0]
