"""What a wallet has on the chain, asked of a node by JSON-RPC: its SOL, and its GRID by the program's own Config."""

from __future__ import annotations

import base64
from typing import Any, Final

import httpx
from solders.pubkey import Pubkey

from commonwatt.hub_client import CommandError, address_of
from commonwatt.wallet_transaction import TOKEN_2022, config_address, grid_address

TIMEOUT_S: Final = 20.0
SOL_DECIMALS, GRID_DECIMALS = 9, 9
_CONFIG_TAG: Final = b"CWCF"
_GRID_MINT_AT: Final = 176
_TOKEN_OWNER_AT, _TOKEN_AMOUNT_AT, _TOKEN_BYTES_MIN = 32, 64, 165


class Node:
    """A node of the chain. Every method raises CommandError."""

    def __init__(self, url: str) -> None:
        self._url = str(address_of(url))

    def lamports_of(self, address: Pubkey) -> int:
        """The SOL of an account, in lamports; none if it does not exist."""
        lamports = self._call("getBalance", str(address)).get("value")
        if not isinstance(lamports, int):
            raise CommandError("node", f"{self._url} tells no balance")
        return lamports

    def grid_mint(self, program: Pubkey) -> Pubkey:
        """Which token is this program's GRID."""
        owner, data = self._account(config_address(program))
        if owner != program or not data.startswith(_CONFIG_TAG) or len(data) < _GRID_MINT_AT + 32:
            raise CommandError("program_unknown", f"{program} is no energy program on this chain, or is not set up")
        return Pubkey(data[_GRID_MINT_AT : _GRID_MINT_AT + 32])

    def grid_units_of(self, wallet: Pubkey, mint: Pubkey) -> int | None:
        """The GRID of a wallet, in units of 10⁻⁹; None if it has no account for it yet."""
        owner, data = self._account(grid_address(wallet, mint))
        if owner is None:
            return None
        ours = bytes(mint) + bytes(wallet)
        if owner != TOKEN_2022 or len(data) < _TOKEN_BYTES_MIN or data[: len(ours)] != ours:
            raise CommandError("node", "what lies at the address of your GRID account is none")
        return int.from_bytes(data[_TOKEN_AMOUNT_AT : _TOKEN_AMOUNT_AT + 8], "little")

    def _account(self, address: Pubkey) -> tuple[Pubkey | None, bytes]:
        answer = self._call("getAccountInfo", str(address), {"encoding": "base64"})
        try:
            value = answer["value"]
            if value is None:
                return None, b""
            return Pubkey.from_string(value["owner"]), base64.b64decode(value["data"][0], validate=True)
        except (LookupError, TypeError, ValueError) as fault:
            raise CommandError("node", f"{self._url} tells of an account what no node does") from fault

    def _call(self, method: str, *parameters: object) -> dict[str, Any]:
        finalized: dict[str, object] = {"commitment": "finalized"}
        options = parameters[1] if len(parameters) > 1 else {}
        assert isinstance(options, dict)
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": [parameters[0], {**options, **finalized}]}
        try:
            answer = httpx.post(self._url, json=body, timeout=TIMEOUT_S).json()
        except (httpx.HTTPError, ValueError) as fault:
            raise CommandError("node", f"{self._url}: {fault or type(fault).__name__}") from fault
        if not isinstance(answer, dict) or not isinstance(answer.get("result"), dict):
            raise CommandError("node", f"{self._url} refused {method}")
        return dict(answer["result"])


def decimal(units: int, decimals: int) -> str:
    """An amount as people read it, exact: 1500000000 units of 9 decimals are 1.5."""
    whole, part = divmod(units, 10**decimals)
    return f"{whole}.{part:0{decimals}}".rstrip("0").rstrip(".")
