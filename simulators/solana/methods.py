"""All methods of the node, by their names, and how a call of one is answered."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from simulators.solana import errors, rpc_accounts, rpc_history, rpc_sending, rpc_slots, rpc_tokens
from simulators.solana.view import View

METHODS: Mapping[str, Callable[..., Any]] = {
    "getAccountInfo": rpc_accounts.get_account_info,
    "getBalance": rpc_accounts.get_balance,
    "getBlock": rpc_history.get_block,
    "getBlockHeight": rpc_slots.get_block_height,
    "getBlockTime": rpc_slots.get_block_time,
    "getBlocks": rpc_slots.get_blocks,
    "getBlocksWithLimit": rpc_slots.get_blocks_with_limit,
    "getClusterNodes": rpc_slots.get_cluster_nodes,
    "getEpochInfo": rpc_slots.get_epoch_info,
    "getEpochSchedule": rpc_slots.get_epoch_schedule,
    "getFeeForMessage": rpc_sending.get_fee_for_message,
    "getFirstAvailableBlock": rpc_slots.get_first_available_block,
    "getGenesisHash": rpc_slots.get_genesis_hash,
    "getHealth": rpc_slots.get_health,
    "getIdentity": rpc_slots.get_identity,
    "getLatestBlockhash": rpc_slots.get_latest_blockhash,
    "getMinimumBalanceForRentExemption": rpc_accounts.get_minimum_balance_for_rent_exemption,
    "getMultipleAccounts": rpc_accounts.get_multiple_accounts,
    "getProgramAccounts": rpc_accounts.get_program_accounts,
    "getRecentPrioritizationFees": rpc_slots.get_recent_prioritization_fees,
    "getSignatureStatuses": rpc_history.get_signature_statuses,
    "getSignaturesForAddress": rpc_history.get_signatures_for_address,
    "getSlot": rpc_slots.get_slot,
    "getSlotLeader": rpc_slots.get_slot_leader,
    "getTokenAccountBalance": rpc_tokens.get_token_account_balance,
    "getTokenAccountsByDelegate": rpc_tokens.get_token_accounts_by_delegate,
    "getTokenAccountsByOwner": rpc_tokens.get_token_accounts_by_owner,
    "getTokenLargestAccounts": rpc_tokens.get_token_largest_accounts,
    "getTokenSupply": rpc_tokens.get_token_supply,
    "getTransaction": rpc_history.get_transaction,
    "getTransactionCount": rpc_slots.get_transaction_count,
    "getVersion": rpc_slots.get_version,
    "isBlockhashValid": rpc_slots.is_blockhash_valid,
    "minimumLedgerSlot": rpc_slots.get_first_available_block,
    "requestAirdrop": rpc_sending.request_airdrop,
    "sendTransaction": rpc_sending.send_transaction,
    "simulateTransaction": rpc_sending.simulate_transaction,
}


def call(view: View, method: str, given: Any) -> Any:
    """The result of a method. Raises RpcError, and what `view.land` raises."""
    function = METHODS.get(method)
    if function is None:
        raise errors.method_not_found()
    if given is None:
        given = []
    if not isinstance(given, list):
        raise errors.invalid_params("`params` should be an array")
    _check_count(function, len(given))
    return function(view, *given)


def _check_count(function: Callable[..., Any], count: int) -> None:
    parameters = list(inspect.signature(function).parameters.values())[1:]
    needed = sum(each.default is inspect.Parameter.empty for each in parameters)
    if count < needed:
        raise errors.invalid_params(f"`params` should have at least {needed} argument(s)")
    if count > len(parameters):
        expected = (
            f"Expected from {needed} to {len(parameters)} parameters." if parameters else "No parameters were expected"
        )
        raise errors.invalid_params(f"Invalid parameters: {expected}", f'"Got: {count}"')
