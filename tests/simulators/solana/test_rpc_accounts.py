"""What methods answer about accounts and tokens."""

from __future__ import annotations

import base64

import pytest
from solders import system_program as system
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair

from simulators.solana.accounts import zstd_frame
from tests.simulators.solana.desk import (
    CONFIRMED,
    NOBODY,
    PROCESSED,
    TOKEN_2022,
    Desk,
)
from tests.simulators.solana.ledger_at_hand import SOL

MINT_BYTES, TOKEN_ACCOUNT_BYTES = 82, 165


@pytest.fixture
def desk(tmp_path):
    opened = Desk(tmp_path)
    yield opened
    opened.ledger.close()


def test_an_account_is_shown_in_the_encoding_that_is_wanted(desk):
    ada = desk.rich()
    account, data = Keypair(), bytes(200)
    create = system.CreateAccountParams(
        from_pubkey=ada.pubkey(), to_pubkey=account.pubkey(), lamports=SOL, space=len(data), owner=TOKEN_2022
    )
    assert desk.do(system.create_account(create), by=ada, also=(account,)).err is None
    address = str(account.pubkey())

    def shown(**config):
        return desk.ask("getAccountInfo", address, {**PROCESSED, **config})["value"]["data"]

    assert desk.refused("getAccountInfo", address, PROCESSED) == (
        -32600,
        "Encoded binary (base 58) data should be less than 128 bytes, please use Base64 encoding.",
    )
    assert shown(dataSlice={"offset": 0, "length": 3}) == "111"
    assert shown(encoding="base58", dataSlice={"offset": 198, "length": 9}) == ["11", "base58"]
    assert shown(encoding="base64") == [base64.b64encode(data).decode(), "base64"]
    assert shown(encoding="jsonParsed") == shown(encoding="base64"), "it is no token account yet"
    assert base64.b64decode(shown(encoding="base64+zstd")[0]) == zstd_frame(data)
    assert desk.ask("getMultipleAccounts", [address, NOBODY], PROCESSED)["value"][1] is None
    found = desk.ask("getProgramAccounts", str(TOKEN_2022), {**PROCESSED, "encoding": "base64", "withContext": True})
    assert [each["pubkey"] for each in found["value"]] == [address]


def _token(desk, ada, units):
    """A mint with nine decimals, and ada's account with this much."""
    mint, account = Keypair(), Keypair()
    rent = desk.ask("getMinimumBalanceForRentExemption", TOKEN_ACCOUNT_BYTES)

    def create(which, size):
        return system.create_account(
            system.CreateAccountParams(
                from_pubkey=ada.pubkey(), to_pubkey=which.pubkey(), lamports=rent, space=size, owner=TOKEN_2022
            )
        )

    def act(data, *accounts):
        metas = [AccountMeta(address, signs, writes) for address, signs, writes in accounts]
        return Instruction(TOKEN_2022, data, metas)

    landed = desk.do(
        create(mint, MINT_BYTES),
        act(bytes([20, 9]) + bytes(ada.pubkey()) + b"\0", (mint.pubkey(), False, True)),
        create(account, TOKEN_ACCOUNT_BYTES),
        act(b"\x12" + bytes(ada.pubkey()), (account.pubkey(), False, True), (mint.pubkey(), False, False)),
        act(
            b"\7" + units.to_bytes(8, "little"),
            (mint.pubkey(), False, True),
            (account.pubkey(), False, True),
            (ada.pubkey(), True, False),
        ),
        by=ada,
        also=(mint, account),
    )
    assert landed.err is None
    return str(mint.pubkey()), str(account.pubkey()), landed


def test_tokens_are_counted_by_account_by_mint_and_by_owner(desk):
    ada = desk.rich()
    mint, account, landed = _token(desk, ada, 11_500_000_000)
    amount = {"amount": "11500000000", "decimals": 9, "uiAmount": 11.5, "uiAmountString": "11.5"}
    assert desk.ask("getTokenAccountBalance", account, PROCESSED)["value"] == amount
    assert desk.ask("getTokenSupply", mint, PROCESSED)["value"] == amount
    assert desk.ask("getTokenLargestAccounts", mint, PROCESSED)["value"] == [{"address": account, **amount}]
    owner = str(ada.pubkey())
    for which in ({"mint": mint}, {"programId": str(TOKEN_2022)}):
        parsed = {**PROCESSED, "encoding": "jsonParsed"}
        [found] = desk.ask("getTokenAccountsByOwner", owner, which, parsed)["value"]
        assert found["pubkey"] == account
        assert found["account"]["data"]["parsed"]["info"]["tokenAmount"] == amount
    assert desk.ask("getTokenAccountsByOwner", NOBODY, {"mint": mint}, PROCESSED)["value"] == []
    by_mint = [{"memcmp": {"offset": 0, "bytes": mint}}, {"dataSize": TOKEN_ACCOUNT_BYTES}, "tokenAccountState"]
    config = {**PROCESSED, "filters": by_mint, "dataSlice": {"offset": 64, "length": 8}, "encoding": "base64"}
    [found] = desk.ask("getProgramAccounts", str(TOKEN_2022), config)
    assert base64.b64decode(found["account"]["data"][0]) == (11_500_000_000).to_bytes(8, "little")
    assert desk.refused("getTokenAccountBalance", mint, PROCESSED)[1] == "Invalid param: not a Token account"
    assert desk.refused("getTokenSupply", account, PROCESSED)[1] == "Invalid param: not a Token mint"
    desk.pass_slots(1)
    meta = desk.ask("getTransaction", landed.signature, CONFIRMED)["meta"]
    assert meta["preTokenBalances"] == []
    assert [each["uiTokenAmount"] for each in meta["postTokenBalances"]] == [amount]
    assert desk.ask("getTokenAccountsByOwner", owner, {"programId": str(TOKEN_2022)})["value"] == [], "not final yet"
