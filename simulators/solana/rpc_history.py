"""Methods about what has landed: statuses, transactions, blocks, what mentions an account."""

from typing import Any

from solders.signature import Signature
from solders.transaction import VersionedTransaction

from simulators.solana import errors, params
from simulators.solana.messages import landed_keys, message_of
from simulators.solana.rpc_slots import block_time
from simulators.solana.storage import Landed
from simulators.solana.transactions import ENCODINGS, account_keys_json, memo_of, transaction_json
from simulators.solana.view import STATUS_CACHE_SLOTS, View, in_context

STATUSES_MAX = 256
SIGNATURES_MAX = 1_000
DETAILS = ("full", "accounts", "signatures", "none")


def get_signature_statuses(view: View, signatures: object, config: object = None) -> Any:
    """How far each has got; null for what the node does not know."""
    given = params.listing(signatures)
    if len(given) > STATUSES_MAX:
        raise errors.invalid_params(f"Too many inputs provided; max {STATUSES_MAX}")
    search = params.boolean(params.mapping(config), "searchTransactionHistory")
    known = [params.signature(each) for each in given]
    return in_context(view.levels.processed, [_status(view, bytes(each), search=search) for each in known])


def _status(view: View, signature: bytes, *, search: bool) -> dict[str, Any] | None:
    landed = view.find_landed(signature, "processed")
    if landed is None:
        return None
    age = view.levels.processed - landed.slot
    commitment = view.levels.commitment_of(landed.slot)
    if not search and age >= STATUS_CACHE_SLOTS:
        return None
    err = landed.record["err"]
    return {
        "slot": landed.slot,
        "confirmations": None if commitment == "finalized" else age,
        "err": err,
        "status": landed.record["status"],
        "confirmationStatus": commitment,
    }


def get_signatures_for_address(view: View, address: object, config: object = None) -> Any:
    """What mentions an account, newest first."""
    key, settings = params.pubkey(address), params.mapping(config)
    limit = params.find_u64(settings, "limit")
    limit = SIGNATURES_MAX if limit is None else limit
    if not 1 <= limit <= SIGNATURES_MAX:
        raise errors.invalid_params(f"Invalid limit; max {SIGNATURES_MAX}")
    commitment = params.confirmed(settings)
    view.slot_for(params.reading(settings))
    before = after = None
    if settings.get("before") is not None:
        found = view.find_landed(bytes(params.signature(settings["before"])), commitment)
        if found is None:
            return []
        before = found.number
    if settings.get("until") is not None:
        found = view.find_landed(bytes(params.signature(settings["until"])), commitment)
        after = found.number if found is not None else None
    slots = (view.first_slot, view.levels.slot_at(commitment))
    return [
        {
            "signature": str(Signature.from_bytes(landed.signature)),
            "slot": landed.slot,
            "err": landed.record["err"],
            "memo": memo_of(VersionedTransaction.from_bytes(landed.wire)),
            "blockTime": block_time(view, landed.slot),
            "confirmationStatus": view.levels.commitment_of(landed.slot),
        }
        for landed in view.ledger.storage.mentioning(bytes(key), slots, before, after, limit)
    ]


def get_transaction(view: View, signature: object, config: object = None) -> Any:
    """A transaction, or null."""
    wanted = params.signature(signature)
    settings = {"encoding": config} if isinstance(config, str) else params.mapping(config)
    encoding = params.one_of(settings.get("encoding"), ENCODINGS, "json")
    landed = view.find_landed(bytes(wanted), params.confirmed(settings))
    if landed is None:
        return None
    shown = transaction_json(landed, encoding, params.find_u64(settings, "maxSupportedTransactionVersion"))
    return {"slot": landed.slot, "blockTime": block_time(view, landed.slot), **shown}


def get_block(view: View, slot: object, config: object = None) -> Any:
    """A block and, as much as is wanted, its transactions."""
    number = params.u64(slot)
    settings = {"encoding": config} if isinstance(config, str) else params.mapping(config)
    encoding = params.one_of(settings.get("encoding"), ENCODINGS, "json")
    details = params.one_of(settings.get("transactionDetails"), DETAILS, "full")
    version_max = params.find_u64(settings, "maxSupportedTransactionVersion")
    commitment = params.confirmed(settings)
    if number < view.first_slot:
        raise errors.block_cleaned_up(number, view.first_slot)
    if number > view.levels.slot_at(commitment):
        raise errors.block_not_available(number)
    block: dict[str, Any] = {
        "blockhash": str(view.ledger.blockhashes.of(number)),
        "previousBlockhash": str(view.ledger.blockhashes.of(max(0, number - 1))),
        "parentSlot": max(0, number - 1),
        "blockHeight": number,
        "blockTime": block_time(view, number),
    }
    landed = view.ledger.storage.landed_in(number) if details != "none" else []
    if details == "signatures":
        block["signatures"] = [str(Signature.from_bytes(each.signature)) for each in landed]
    elif details == "full":
        block["transactions"] = [transaction_json(each, encoding, version_max) for each in landed]
    elif details == "accounts":
        block["transactions"] = [_accounts_only(each, version_max) for each in landed]
    if params.boolean(settings, "rewards", default=True):
        block["rewards"] = []
    return block


def _accounts_only(landed: Landed, version_max: int | None) -> dict[str, Any]:
    whole = transaction_json(landed, "json", version_max)
    transaction = VersionedTransaction.from_bytes(landed.wire)
    keys = landed_keys(message_of(transaction), landed.record["loadedAddresses"])
    kept = ("err", "status", "fee", "preBalances", "postBalances", "preTokenBalances", "postTokenBalances")
    return {
        **whole,
        "transaction": {
            "signatures": whole["transaction"]["signatures"],
            "accountKeys": account_keys_json(keys, transaction.message.header.num_required_signatures),
        },
        "meta": {name: landed.record[name] for name in kept},
    }
