"""Methods that take transactions: send, simulate, ask for the fee, and the faucet."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from solders.compute_budget import set_compute_unit_limit
from solders.hash import Hash
from solders.message import Message, MessageV0, from_bytes_versioned
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.system_program import TransferParams, transfer
from solders.transaction import VersionedTransaction

from simulators.solana import accounts, errors, messages, params, records
from simulators.solana.error_texts import error_text
from simulators.solana.errors import PREFLIGHT_FAILURE, RpcError
from simulators.solana.messages import Keys
from simulators.solana.rpc_slots import latest_blockhash
from simulators.solana.runtime import Simulated
from simulators.solana.transactions import parsed_inner
from simulators.solana.view import Reading, View, in_context

SIMULATED_ACCOUNT_ENCODINGS = ("base64", "base64+zstd", "jsonParsed")
AIRDROP_COMPUTE_UNITS = 1_000
AIRDROPS_TOLD_APART = 100_000


@dataclass(frozen=True)
class Trial:
    """What a node at one slot makes of a transaction; without a run if it did not come to that."""

    err: Any
    slot: int
    keys: Keys | None = None
    run: Simulated | None = None


def send_transaction(view: View, encoded: object, config: object = None) -> Any:
    """Take a transaction in, after trying it unless that is not wanted; its signature."""
    settings = params.mapping(config)
    transaction, wire = _read(encoded, settings)
    wanted = params.commitment(settings.get("preflightCommitment"))
    slot = view.slot_for(Reading(wanted, params.find_u64(settings, "minContextSlot")))
    params.find_u64(settings, "maxRetries")
    if not params.boolean(settings, "skipPreflight"):
        _verify(transaction)
        trial = _try(view, transaction, slot, verify=True)
        if trial.err is not None:
            message = f"Transaction simulation failed: {error_text(trial.err)}"
            raise RpcError(PREFLIGHT_FAILURE, message, _result(view, trial))
    view.land(wire, transaction)
    return str(transaction.signatures[0])


def simulate_transaction(view: View, encoded: object, config: object = None) -> Any:
    """What would become of a transaction."""
    settings = params.mapping(config)
    transaction, _ = _read(encoded, settings)
    slot = view.slot_for(params.reading(settings))
    verify = params.boolean(settings, "sigVerify")
    replacement = None
    if params.boolean(settings, "replaceRecentBlockhash"):
        if verify:
            raise errors.invalid_params("sigVerify may not be used with replaceRecentBlockhash")
        replacement = latest_blockhash(view, slot)
        transaction = _with_blockhash(transaction, Hash.from_string(replacement["blockhash"]))
    if verify:
        _verify(transaction)
    trial = _try(view, transaction, slot, verify=verify)
    result = _result(view, trial)
    result["replacementBlockhash"] = replacement
    if params.boolean(settings, "innerInstructions") and trial.run is not None and trial.keys is not None:
        names = records.addresses(trial.keys.all)
        result["innerInstructions"] = parsed_inner(records.inner_instructions(trial.run.meta), names)
    if settings.get("accounts") is not None:
        result["accounts"] = _accounts(view, trial, params.mapping(settings["accounts"]), transaction)
    return in_context(slot, result)


def get_fee_for_message(view: View, encoded: object, config: object = None) -> Any:
    """What a message costs, lamports, or null if it is too old; what precompiles verify is counted too."""
    slot = view.slot_for(params.reading(params.mapping(config)))
    raw = messages.decode(params.text(encoded), "base64", messages.MESSAGE_TYPE_NAME)
    try:
        message = from_bytes_versioned(raw)
    except ValueError as error:
        text = f"failed to deserialize {messages.MESSAGE_TYPE_NAME}: {error}"
        raise errors.invalid_params(text) from error
    if not isinstance(message, Message | MessageV0):
        raise errors.invalid_params("invalid transaction: Transaction version is unsupported")
    unsigned = [Signature.default()] * message.header.num_required_signatures
    transaction = VersionedTransaction.populate(message, unsigned)
    ledger = view.ledger
    if not ledger.has_valid_blockhash(message.recent_blockhash, slot) and not ledger.find_usable_nonce(transaction):
        return in_context(slot, None)
    return in_context(slot, ledger.simulate(transaction, slot, verify=False)[1].meta.fee())


def request_airdrop(view: View, address: object, lamports: object, config: object = None) -> Any:
    """Give somebody lamports that nobody had; the signature of the transaction that does."""
    settings = params.mapping(config)
    recipient, amount = params.pubkey(address), params.u64(lamports)
    params.commitment(settings.get("commitment"))
    if not view.faucet:
        raise errors.invalid_request()
    ledger = view.ledger
    blockhash = ledger.blockhashes.of(ledger.slot)
    if settings.get("recentBlockhash") is not None:
        blockhash = params.blockhash(settings["recentBlockhash"])
    faucet = ledger.faucet
    give = TransferParams(from_pubkey=faucet.pubkey(), to_pubkey=recipient, lamports=amount)
    told_apart = ledger.storage.newest_number() % AIRDROPS_TOLD_APART
    instructions = [set_compute_unit_limit(AIRDROP_COMPUTE_UNITS + told_apart), transfer(give)]
    message = Message.new_with_blockhash(instructions, faucet.pubkey(), blockhash)
    transaction = VersionedTransaction(message, [faucet])
    view.land(bytes(transaction), transaction)
    return str(transaction.signatures[0])


def _read(encoded: object, settings: Mapping[str, Any]) -> tuple[VersionedTransaction, bytes]:
    encoding = params.one_of(settings.get("encoding"), ("base58", "base64"), "base58")
    wire = messages.decode(params.text(encoded), encoding)
    return messages.read_transaction(wire), wire


def _verify(transaction: VersionedTransaction) -> None:
    if not all(transaction.verify_with_results()):
        raise errors.signature_verification_failure()


def _try(view: View, transaction: VersionedTransaction, slot: int, *, verify: bool) -> Trial:
    refusal = view.ledger.find_refusal(transaction, slot)
    if refusal is not None:
        return Trial(refusal, slot)
    keys, run = view.ledger.simulate(transaction, slot, verify=verify)
    return Trial(run.err, slot, keys, run)


def _with_blockhash(transaction: VersionedTransaction, blockhash: Hash) -> VersionedTransaction:
    message = transaction.message
    replaced: Message | MessageV0
    if isinstance(message, Message):
        header = message.header
        replaced = Message.new_with_compiled_instructions(
            header.num_required_signatures,
            header.num_readonly_signed_accounts,
            header.num_readonly_unsigned_accounts,
            message.account_keys,
            blockhash,
            message.instructions,
        )
    else:
        assert isinstance(message, MessageV0), "other versions have been refused"
        replaced = MessageV0(
            message.header, message.account_keys, blockhash, message.instructions, message.address_table_lookups
        )
    return VersionedTransaction.populate(replaced, transaction.signatures)


def _result(view: View, trial: Trial) -> dict[str, Any]:
    """As a node answers a simulation or a refused preflight, without what was not asked for."""
    result: dict[str, Any] = {
        "err": trial.err,
        "logs": [],
        "accounts": None,
        "unitsConsumed": 0,
        "loadedAccountsDataSize": 0,
        "returnData": None,
        "innerInstructions": None,
        "replacementBlockhash": None,
        "fee": None,
        "preBalances": None,
        "postBalances": None,
        "preTokenBalances": None,
        "postTokenBalances": None,
        "loadedAddresses": {"readonly": [], "writable": []},
    }
    if trial.run is None or trial.keys is None:
        return result
    meta, keys = trial.run.meta, trial.keys
    account_of = view.accounts_at(trial.slot)
    lamports, tokens = records.balances(keys.all, account_of)
    loaded = [account for key in set(keys.all) if (account := account_of(key)) is not None]
    return {
        **result,
        "logs": meta.logs(),
        "unitsConsumed": meta.compute_units_consumed(),
        "loadedAccountsDataSize": sum(len(account.data) for account in loaded),
        "returnData": records.return_data(meta),
        "fee": meta.fee(),
        "preBalances": lamports,
        "preTokenBalances": tokens,
        **_afterwards(trial.run, keys, account_of),
        "loadedAddresses": {
            "readonly": records.addresses(keys.loaded_readonly),
            "writable": records.addresses(keys.loaded_writable),
        },
    }


def _afterwards(run: Simulated, keys: Keys, account_of: messages.AccountOf) -> dict[str, Any]:
    if run.err is not None:
        return {}
    lamports, tokens = records.balances(keys.all, lambda key: run.accounts.get(key) or account_of(key))
    return {"postBalances": lamports, "postTokenBalances": tokens}


def _accounts(
    view: View, trial: Trial, wanted: Mapping[str, Any], transaction: VersionedTransaction
) -> list[dict[str, Any] | None]:
    encoding = params.one_of(wanted.get("encoding"), accounts.ENCODINGS, "base64")
    if encoding not in SIMULATED_ACCOUNT_ENCODINGS:
        raise errors.invalid_params("base58 encoding not supported")
    addresses: list[Pubkey] = [params.pubkey(each) for each in params.listing(wanted.get("addresses"))]
    most = len(trial.keys.all) if trial.keys is not None else len(transaction.message.account_keys)
    if len(addresses) > most:
        raise errors.invalid_params(f"Too many accounts provided; max {most}")
    if trial.err is not None:
        return [None] * len(addresses)
    after = trial.run.accounts if trial.run is not None else {}
    account_of = view.accounts_at(trial.slot)
    found = [(address, after.get(address) or account_of(address)) for address in addresses]
    return [
        accounts.account_json(address, account, encoding, None, account_of)
        if account is not None and account.lamports
        else None
        for address, account in found
    ]
