"""Every method takes what it should, and refuses the rest in the words of a node."""

from __future__ import annotations

import pytest
from solders.hash import Hash
from solders.signature import Signature

from simulators.solana import methods
from simulators.solana.errors import RpcError
from simulators.solana.methods import METHODS
from simulators.solana.view import View
from tests.simulators.solana.desk import (
    INVALID_PARAMS,
    NOBODY,
    PROCESSED,
    TOKEN_2022,
    Desk,
)
from tests.simulators.solana.ledger_at_hand import SOL


@pytest.fixture
def desk(tmp_path):
    opened = Desk(tmp_path)
    yield opened
    opened.ledger.close()


ARGUMENTS = {
    "getAccountInfo": [NOBODY],
    "getBalance": [NOBODY],
    "getBlock": [1],
    "getBlockTime": [1],
    "getBlocks": [1],
    "getBlocksWithLimit": [1, 3],
    "getMinimumBalanceForRentExemption": [0],
    "getMultipleAccounts": [[NOBODY]],
    "getProgramAccounts": [NOBODY],
    "getSignatureStatuses": [[]],
    "getSignaturesForAddress": [NOBODY],
    "getTokenAccountsByOwner": [NOBODY, {"programId": str(TOKEN_2022)}],
    "getTokenAccountsByDelegate": [NOBODY, {"programId": str(TOKEN_2022)}],
    "getTransaction": [str(Signature.default())],
    "isBlockhashValid": [str(Hash.default())],
    "requestAirdrop": [NOBODY, SOL],
}
REFUSED_WITHOUT_MORE = {
    "getFeeForMessage",
    "getTokenAccountBalance",
    "getTokenLargestAccounts",
    "getTokenSupply",
    "sendTransaction",
    "simulateTransaction",
}


@pytest.mark.parametrize("method", sorted(set(METHODS) - REFUSED_WITHOUT_MORE))
def test_every_method_answers_on_a_young_ledger(desk, method):
    desk.ask(method, *ARGUMENTS.get(method, []))


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_counts_its_parameters(desk, method):
    code, message = desk.refused(method, *[None] * 9)
    assert (code, message.split(":")[0]) == (INVALID_PARAMS, "Invalid parameters")
    if method in ARGUMENTS:
        needed = 2 if len(ARGUMENTS[method]) == 2 else 1
        expected = (INVALID_PARAMS, f"`params` should have at least {needed} argument(s)")
        assert desk.refused(method) == expected


def test_an_unknown_method_and_named_parameters_are_refused(desk):
    assert desk.refused("getMoney") == (-32601, "Method not found")
    view = View(desk.ledger, lambda *_: None)
    with pytest.raises(RpcError, match="should be an array"):
        methods.call(view, "getSlot", {"commitment": "processed"})


@pytest.mark.parametrize(
    ("method", "params", "message"),
    [
        ("getBalance", [1], "Invalid params: invalid type: integer `1`, expected a string."),
        ("getBalance", ["0"], "Invalid param: Invalid"),
        ("getBalance", ["1111"], "Invalid param: WrongSize"),
        ("getBalance", [NOBODY, 7], "Invalid params: invalid type: integer `7`, expected a map."),
        (
            "getBalance",
            [NOBODY, {"commitment": "sure"}],
            "Invalid params: unknown variant `sure`, expected one of `processed`, `confirmed`, `finalized`.",
        ),
        ("getBalance", [NOBODY, {"minContextSlot": -1}], "Invalid params: invalid value: integer `-1`, expected u64."),
        ("getBlock", ["1"], 'Invalid params: invalid type: string "1", expected u64.'),
        ("getBlock", [1, PROCESSED], "Method does not support commitment below `confirmed`"),
        ("getBlocks", [0, 1, PROCESSED], "Method does not support commitment below `confirmed`"),
        (
            "getTransaction",
            [str(Signature.default()), PROCESSED],
            "Method does not support commitment below `confirmed`",
        ),
        ("getTransaction", [NOBODY], "Invalid param: WrongSize"),
        ("getSignatureStatuses", [[NOBODY] * 257], "Too many inputs provided; max 256"),
        ("getSignaturesForAddress", [NOBODY, {"limit": 1001}], "Invalid limit; max 1000"),
        ("getSignaturesForAddress", [NOBODY, {"limit": 0}], "Invalid limit; max 1000"),
        ("getMultipleAccounts", [[NOBODY] * 101], "Too many inputs provided; max 100"),
        ("getMultipleAccounts", [NOBODY], f'Invalid params: invalid type: string "{NOBODY}", expected a sequence.'),
        ("getProgramAccounts", [NOBODY, {"filters": [{"dataSize": 1}] * 5}], "Too many filters provided; max 4"),
        (
            "getProgramAccounts",
            [NOBODY, {"filters": [{"memcmp": {"offset": 0}}]}],
            "Invalid params: missing field `bytes`.",
        ),
        (
            "getProgramAccounts",
            [NOBODY, {"filters": [{"owner": 1}]}],
            "Invalid params: unknown variant `owner`, expected one of `dataSize`, `memcmp`, `tokenAccountState`.",
        ),
        ("getTokenAccountBalance", [NOBODY], "Invalid param: could not find account"),
        ("getTokenSupply", [NOBODY], "Invalid param: could not find mint"),
        ("getTokenLargestAccounts", [NOBODY], "Invalid param: could not find mint"),
        ("getTokenAccountsByOwner", [NOBODY, {"programId": NOBODY}], "Invalid param: unrecognized Token program id"),
        ("getTokenAccountsByOwner", [NOBODY, {"mint": NOBODY}], "Invalid param: could not find mint"),
        ("getFeeForMessage", ["AQ=="], "failed to deserialize solana_message::versions::VersionedMessage"),
        ("sendTransaction", ["x", {"encoding": "hex"}], "Invalid params: unknown variant `hex`"),
        ("sendTransaction", ["!", {"encoding": "base64"}], "invalid base64 encoding"),
        ("sendTransaction", ["0"], "invalid base58 encoding"),
        ("sendTransaction", ["AQ==", {"encoding": "base64"}], "failed to deserialize solana_transaction::versioned::"),
        (
            "simulateTransaction",
            ["AQ==", {"encoding": "base64"}],
            "failed to deserialize solana_transaction::versioned::",
        ),
    ],
)
def test_what_is_no_parameter_is_refused_in_the_words_of_a_node(desk, method, params, message):
    code, said = desk.refused(method, *params)
    assert code == INVALID_PARAMS
    assert said.startswith(message)
