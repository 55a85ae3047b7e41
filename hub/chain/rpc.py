"""One node of the chain, asked through solana-py. What it answers is checked for its shape and believed no further.

Every method raises ChainAway, ChainRefuses or ChainAnswersNonsense and nothing else. The node's address is in no
message and in no traceback: a provider's key may be in its path or query.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self, TypeVar
from urllib.parse import urlsplit

import base58
from pydantic import TypeAdapter, ValidationError
from solana.exceptions import SolanaRpcException
from solana.rpc.async_api import AsyncClient
from solana.rpc.jsonrpc import JsonRpcRequest, SolanaJsonRpcError
from solders.pubkey import Pubkey

from hub.chain.program_errors import TransactionFault, parse_fault
from hub.chain.rpc_answers import (
    At,
    EpochInfo,
    Key,
    KeyedAccount,
    LandedTransaction,
    LatestBlockhash,
    Level,
    NodeAccount,
    Number,
    SignatureOfAddress,
    SignatureStatus,
    Simulated,
)
from hub.chain.rpc_answers import Signature as SignatureAnswer
from hub.errors import ChainAnswersNonsense, ChainAway, ChainLags, ChainRefuses

REQUEST_TIMEOUT_S: Final = 5.0
SCAN_TIMEOUT_S: Final = 60.0
"""For getProgramAccounts, which reads them all."""
STATUSES_MAX: Final = 256
ACCOUNTS_MAX: Final = 100
SIGNATURES_MAX: Final = 1_000
"""What a node answers at most at once, by its own rules."""
REASON_LENGTH_MAX: Final = 300
BLOCKS_AHEAD_MAX: Final = 20_000
"""So far ahead of what is finalized a slot or a block height may be: some hours without finality. What is further is
made up, and would, once believed, be later than everything that follows."""

PREFLIGHT_REFUSED: Final = -32002
MIN_CONTEXT_SLOT_NOT_REACHED: Final = -32016

T = TypeVar("T")


@dataclass(frozen=True)
class Blockhash:
    """What a transaction names to be valid until a block height; `slot` is when the node gave it."""

    hash: bytes
    last_valid_block_height: int
    slot: int


@dataclass(frozen=True)
class Finalized:
    """How far the chain is final."""

    slot: int
    block_height: int


@dataclass(frozen=True)
class Status:
    """What became of a transaction so far."""

    slot: int
    level: Level
    fault: TransactionFault | None


@dataclass(frozen=True)
class Statuses:
    """Of the signatures asked for, in their order, as the node saw them at `slot`; None: it knows of none."""

    slot: int
    found: tuple[Status | None, ...]


@dataclass(frozen=True)
class Simulation:
    """What would come of a transaction."""

    fault: TransactionFault | None
    logs: tuple[str, ...]
    compute_units: int


@dataclass(frozen=True)
class Landed:
    """A transaction in a block, with the logs of what it did."""

    signature: bytes
    slot: int
    block_time_unix_s: int | None
    fault: TransactionFault | None
    logs: tuple[str, ...]
    fee_lamports: int


class PreflightRefused(Exception):
    """The node simulated the transaction instead of sending it, and this came of it."""

    def __init__(self, fault: TransactionFault, logs: Sequence[str]) -> None:
        super().__init__(str(fault))
        self.fault = fault
        self.logs = tuple(logs)


class Node:
    """A node, by its JSON-RPC address. An `async with` block closes its connections."""

    def __init__(self, rpc_url: str, timeout_s: float = REQUEST_TIMEOUT_S) -> None:
        self.host = urlsplit(rpc_url).hostname or ""
        """All of the address that may be shown."""
        self._timeout_s = timeout_s
        self._client = AsyncClient(rpc_url, timeout=SCAN_TIMEOUT_S, http2=False, max_transport_retries=0)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.close()

    async def genesis_hash(self) -> bytes:
        """The hash that the chain began with: which chain it is."""
        return await self._ask("getGenesisHash", [], TypeAdapter(Key))

    async def latest_blockhash(self) -> Blockhash:
        """At confirmed: newer than finalized, and as good as never taken back."""
        answer = await self._ask("getLatestBlockhash", [{"commitment": "confirmed"}], TypeAdapter(At[LatestBlockhash]))
        return Blockhash(answer.value.blockhash, answer.value.last_valid_block_height, answer.context.slot)

    async def finalized(self) -> Finalized:
        """Slot and block height that nothing can take back."""
        answer = await self._ask("getEpochInfo", [{"commitment": "finalized"}], TypeAdapter(EpochInfo))
        return Finalized(answer.slot, answer.block_height)

    async def first_available_block(self) -> int:
        """The first slot whose transactions this node still knows."""
        return await self._ask("getFirstAvailableBlock", [], TypeAdapter(Number))

    async def statuses(self, signatures: Sequence[bytes]) -> Statuses:
        """What the node's whole history knows of these transactions; at most STATUSES_MAX."""
        assert 0 < len(signatures) <= STATUSES_MAX
        encoded = [base58.b58encode(each).decode() for each in signatures]
        answer = await self._ask(
            "getSignatureStatuses",
            [encoded, {"searchTransactionHistory": True}],
            TypeAdapter(At[list[SignatureStatus | None]]),
        )
        if len(answer.value) != len(signatures):
            raise ChainAnswersNonsense(f"getSignatureStatuses: {len(answer.value)} answers to {len(signatures)}")
        slot = answer.context.slot
        if any(each is not None and each.slot > slot for each in answer.value):
            raise ChainAnswersNonsense(f"getSignatureStatuses: of a later slot than {slot}, which it answers for")
        return Statuses(slot, tuple(_status(each) for each in answer.value))

    async def lamports(self, address: Pubkey, level: Level = "confirmed") -> int:
        """The balance of an account; 0 if there is none."""
        answer = await self._ask("getBalance", [str(address), {"commitment": level}], TypeAdapter(At[Number]))
        return answer.value

    async def rent_lamports(self, data_bytes: int) -> int:
        """What an account of this size must hold to be kept for ever."""
        return await self._ask("getMinimumBalanceForRentExemption", [data_bytes], TypeAdapter(Number))

    async def find_account(self, address: Pubkey, level: Level = "finalized") -> NodeAccount | None:
        """The account at this address."""
        config = {"encoding": "base64", "commitment": level}
        answer = await self._ask("getAccountInfo", [str(address), config], TypeAdapter(At[NodeAccount | None]))
        return answer.value

    async def find_accounts(
        self, addresses: Sequence[Pubkey], level: Level = "finalized"
    ) -> tuple[int, list[NodeAccount | None]]:
        """The accounts at these addresses (at most ACCOUNTS_MAX), all as of the slot that comes with them."""
        assert 0 < len(addresses) <= ACCOUNTS_MAX
        config = {"encoding": "base64", "commitment": level}
        keys = [str(each) for each in addresses]
        answer = await self._ask("getMultipleAccounts", [keys, config], TypeAdapter(At[list[NodeAccount | None]]))
        if len(answer.value) != len(addresses):
            raise ChainAnswersNonsense(f"getMultipleAccounts: {len(answer.value)} answers to {len(addresses)}")
        return answer.context.slot, answer.value

    async def program_accounts(self, program_id: Pubkey) -> tuple[int, list[KeyedAccount]]:
        """All accounts of a program at finalized, as of the slot that comes with them."""
        config = {"encoding": "base64", "commitment": "finalized", "withContext": True}
        shape = TypeAdapter(At[list[KeyedAccount]])
        answer = await self._ask("getProgramAccounts", [str(program_id), config], shape, SCAN_TIMEOUT_S)
        return answer.context.slot, answer.value

    async def signatures_of(
        self, address: Pubkey, before: bytes | None = None, until: bytes | None = None, limit: int = SIGNATURES_MAX
    ) -> list[SignatureOfAddress]:
        """Finalized transactions that touched an address, the newest first: those before `before` and after `until`."""
        config: dict[str, object] = {"commitment": "finalized", "limit": limit}
        if before is not None:
            config["before"] = base58.b58encode(before).decode()
        if until is not None:
            config["until"] = base58.b58encode(until).decode()
        return await self._ask("getSignaturesForAddress", [str(address), config], TypeAdapter(list[SignatureOfAddress]))

    async def find_transaction(self, signature: bytes) -> Landed | None:
        """A finalized transaction with its logs; None if this node knows of none."""
        config = {"encoding": "base64", "commitment": "finalized", "maxSupportedTransactionVersion": 0}
        encoded = base58.b58encode(signature).decode()
        answer = await self._ask("getTransaction", [encoded, config], TypeAdapter(LandedTransaction | None))
        if answer is None:
            return None
        fault = _fault("getTransaction", answer.meta.err)
        logs = tuple(answer.meta.logs or ())
        return Landed(signature, answer.slot, answer.block_time, fault, logs, answer.meta.fee)

    async def simulate(self, transaction: bytes, min_context_slot: int) -> Simulation:
        """What would come of a transaction at confirmed; its signatures may be missing. Raises ChainLags too, if the
        node has not come to that slot."""
        config = {
            "encoding": "base64",
            "commitment": "confirmed",
            "sigVerify": False,
            "minContextSlot": min_context_slot,
        }
        encoded = base64.b64encode(transaction).decode()
        answer = await self._ask("simulateTransaction", [encoded, config], TypeAdapter(At[Simulated]))
        fault = _fault("simulateTransaction", answer.value.err)
        return Simulation(fault, tuple(answer.value.logs or ()), answer.value.compute_units or 0)

    async def send(self, transaction: bytes, min_context_slot: int | None = None) -> None:
        """Hand a signed transaction to the chain, after a simulation at confirmed.

        Raises PreflightRefused too, and ChainLags if the node has not come to that slot: what it would refuse proves
        nothing. The node itself tries no further: that is ours.
        """
        config: dict[str, object] = {"encoding": "base64", "preflightCommitment": "confirmed", "maxRetries": 0}
        if min_context_slot is not None:
            config["minContextSlot"] = min_context_slot
        encoded = base64.b64encode(transaction).decode()
        await self._ask("sendTransaction", [encoded, config], TypeAdapter(SignatureAnswer))

    async def _ask(self, method: str, params: list[object], shape: TypeAdapter[T], timeout_s: float | None = None) -> T:
        try:
            async with asyncio.timeout(timeout_s or self._timeout_s):
                raw = await self._client.send_rpc_request(JsonRpcRequest(method=method, params=params), Any)
        except TimeoutError:
            raise ChainAway(f"{method}: no answer within {timeout_s or self._timeout_s:g} s") from None
        except SolanaJsonRpcError as fault:
            raise _refusal(method, fault) from None
        except SolanaRpcException as fault:
            raise _transport_fault(method, fault) from None
        except (ValidationError, UnicodeDecodeError, RecursionError):
            raise ChainAnswersNonsense(f"{method}: not an answer of JSON-RPC") from None
        try:
            return shape.validate_python(raw, strict=True)
        except ValidationError as fault:
            first = fault.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise ChainAnswersNonsense(f"{method}: {where} {first['msg']}") from None


def _transport_fault(method: str, fault: SolanaRpcException) -> Exception:
    """An answer that is no 200 is a refusal; no answer is silence. The cause's own text may have the address."""
    status = getattr(getattr(fault.__cause__, "response", None), "status_code", None)
    if isinstance(status, int):
        return ChainRefuses(f"{method}: HTTP {status}")
    return ChainAway(f"{method}: {type(fault.__cause__).__name__}")


def _refusal(method: str, fault: SolanaJsonRpcError) -> Exception:
    if fault.code == PREFLIGHT_REFUSED and isinstance(fault.data, Mapping):
        logs = fault.data.get("logs")
        refused = _fault(method, fault.data.get("err"))
        if refused is not None:
            lines = [line for line in logs if isinstance(line, str)] if isinstance(logs, list) else []
            return PreflightRefused(refused, lines)
    reason = "".join(letter if letter.isprintable() else " " for letter in fault.message[:REASON_LENGTH_MAX])
    if fault.code == MIN_CONTEXT_SLOT_NOT_REACHED:
        return ChainLags(f"{method}: {reason}")
    return ChainRefuses(f"{method}: {fault.code} {reason}")


def _fault(method: str, err: object) -> TransactionFault | None:
    try:
        return None if err is None else parse_fault(err)
    except ValueError as fault:
        raise ChainAnswersNonsense(f"{method}: {fault}") from None


def _status(answer: SignatureStatus | None) -> Status | None:
    if answer is None:
        return None
    # nodes leave it out of what they dug out of their history, and then count no confirmations either
    level = answer.level or ("finalized" if answer.confirmations is None else "processed")
    return Status(answer.slot, level, _fault("getSignatureStatuses", answer.err))
