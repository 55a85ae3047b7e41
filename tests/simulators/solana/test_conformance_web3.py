"""@solana/web3.js 1.x and @solana/spl-token, unmodified, find on the simulated cluster what they find on a real one."""

from __future__ import annotations

import pytest

from tests.simulators.solana.conformance.clients import told

SOL = 10**9
GRID = 10**9
SCRIPT = "web3.mjs"
SYSTEM = "1" * 32
ALREADY_PROCESSED = "This transaction has already been processed"
EXTENSIONS_PROGRAM = "TokenzQdBNbLqP5VEhdkAS6EPFLC1PHnBqCXEpPxuEb"


@pytest.fixture(scope="module")
def money(solana_cluster):
    return told(SCRIPT, "money", solana_cluster)


@pytest.fixture(scope="module")
def tokens(solana_cluster):
    return told(SCRIPT, "tokens", solana_cluster)


@pytest.fixture(scope="module")
def tables_and_nonces(solana_cluster):
    return told(SCRIPT, "tables_and_nonces", solana_cluster)


def test_money_is_airdropped_sent_and_confirmed_over_the_websocket_on_the_next_port(money):
    assert money["version"]["solana-core"].count(".") == 2
    assert len(money["genesis"]) > 40
    assert money["slot"] > 0
    assert money["epoch"]["slotsInEpoch"] == 432_000
    assert money["airdropped"] == 10 * SOL
    assert money["fee"] == 5_000
    assert money["confirmed"] == {"err": None}
    assert money["status"]["err"] is None
    assert money["status"]["confirmationStatus"] in {"confirmed", "finalized"}
    assert money["paid"] == SOL
    assert money["left"] == 9 * SOL - 5_000
    assert money["rent"] == 2_039_280
    assert money["blockhash_valid"] is True


def test_a_transaction_that_is_sent_again_is_not_executed_again(money):
    assert money["resent"]["type"] == "SendTransactionError"
    assert ALREADY_PROCESSED in money["resent"]["message"]
    assert money["resent_unchecked"] == money["signature"]
    assert money["paid_after_resending"] == SOL


def test_a_transaction_is_found_with_its_fee_balances_and_logs_and_in_its_block(money):
    found = money["transaction"]
    assert found["version"] == "legacy"
    assert found["meta"]["err"] is None
    assert found["meta"]["fee"] == 5_000
    assert found["meta"]["preBalances"][:2] == [10 * SOL, 0]
    assert found["meta"]["postBalances"][:2] == [9 * SOL - 5_000, SOL]
    assert found["meta"]["computeUnitsConsumed"] == money["simulated"]["unitsConsumed"]
    assert found["meta"]["logMessages"] == money["simulated"]["logs"]
    assert found["meta"]["logMessages"][0] == f"Program {SYSTEM} invoke [1]"
    assert money["transaction_has_block_time"] is True
    assert money["block"] == {"parentSlot": found["slot"] - 1, "holds": True}
    assert money["blocks"] is True
    assert money["block_time"] is True
    assert money["parsed_block"] is True
    assert money["block_signatures"] is True


def test_what_else_the_client_can_ask_is_answered_in_its_terms(money):
    others = {"count": True, "first": True, "oldest": True, "leader": True, "schedule": 432_000, "prices": True}
    assert money["others"] == others


def test_a_parsed_transaction_says_who_paid_whom_and_what_the_memo_was(money):
    message = money["parsed_transaction"]
    transfer, memo = message["instructions"]
    assert transfer["program"] == "system"
    assert transfer["parsed"]["type"] == "transfer"
    assert transfer["parsed"]["info"]["lamports"] == SOL
    assert memo["program"] == "spl-memo"
    assert memo["parsed"] == "one"
    payer, friend = message["accountKeys"][:2]
    assert transfer["parsed"]["info"] == {"source": payer["pubkey"], "destination": friend["pubkey"], "lamports": SOL}
    assert (payer["signer"], payer["writable"], payer["source"]) == (True, True, "transaction")
    assert (friend["signer"], friend["writable"]) == (False, True)


def test_the_history_of_an_address_is_paged_from_its_newest_transaction_back(money):
    assert money["history"] == ["[4] four", "[5] three", "[3] two", "[3] one", None]
    assert money["pages"] == [2, 2, 1]
    assert money["since"] == ["[4] four", "[5] three", "[3] two"]


def test_several_accounts_are_read_at_once_and_one_that_is_not_there_is_null(money):
    assert money["accounts"] == [{"lamports": SOL, "owner": SYSTEM, "bytes": 0}, None]


def test_a_transaction_that_would_fail_is_refused_by_preflight_with_its_logs(money):
    assert money["too_much"]["type"] == "SendTransactionError"
    assert "custom program error: 0x1" in money["too_much"]["message"]
    assert any("insufficient lamports" in line for line in money["too_much"]["logs"])
    assert money["too_long"]["type"] == "SendTransactionError"
    assert any(
        "exceeded CUs meter" in line or "Computational budget exceeded" in line for line in money["too_long"]["logs"]
    )
    assert "signature verification failure" in money["forged"]["message"]
    assert "too large" in money["too_big"]["message"]


def test_a_simulation_without_signatures_shows_accounts_as_they_would_be_and_changes_nothing(money):
    simulated = money["simulated_unsigned"]
    assert simulated["err"] is None
    assert simulated["accounts"][0]["lamports"] == 2 * SOL
    assert set(simulated["replacementBlockhash"]) == {"blockhash", "lastValidBlockHeight"}
    assert money["paid_after_simulating"] == SOL


def test_a_price_for_compute_units_is_charged_with_the_fee(money):
    assert money["priced_fee"] == 5_000 + 50_000


def test_a_mint_of_token_2022_has_its_extensions_and_its_name(tokens):
    assert tokens["mint"] == {"decimals": 9, "supply": "0", "freezer": True}
    extensions = ["DefaultAccountState", "PermanentDelegate", "MetadataPointer", "MintCloseAuthority", "TokenMetadata"]
    assert tokens["mint_extensions"] == extensions
    metadata = tokens["metadata"]
    assert (metadata["name"], metadata["symbol"], metadata["uri"]) == ("GRID of a test", "GRID", "about:blank")
    assert metadata["additionalMetadata"] == [["unit", "1 kWh"]]


def test_a_parsed_mint_shows_its_authorities_and_extensions(tokens):
    payer, mint, data = tokens["payer"], tokens["mint_address"], tokens["parsed_mint"]
    assert data["program"] == "spl-token-2022"
    assert data["parsed"]["type"] == "mint"
    info = data["parsed"]["info"]
    assert (info["decimals"], info["supply"], info["isInitialized"]) == (9, "0", True)
    assert (info["mintAuthority"], info["freezeAuthority"]) == (payer, payer)
    named = {each["extension"]: each["state"] for each in info["extensions"]}
    assert named == {
        "defaultAccountState": {"accountState": "frozen"},
        "permanentDelegate": {"delegate": payer},
        "metadataPointer": {"authority": payer, "metadataAddress": mint},
        "mintCloseAuthority": {"closeAuthority": payer},
        "tokenMetadata": {
            "updateAuthority": payer,
            "mint": mint,
            "name": "GRID of a test",
            "symbol": "GRID",
            "uri": "about:blank",
            "additionalMetadata": [["unit", "1 kWh"]],
        },
    }


def test_a_frozen_account_takes_no_tokens_and_the_logs_say_why(tokens):
    assert tokens["born_frozen"] is True
    assert tokens["frozen"]["type"] == "SendTransactionError"
    assert "custom program error: 0x11" in tokens["frozen"]["message"]
    assert any("Account is frozen" in line for line in tokens["frozen"]["logs"])


def test_a_thawed_account_takes_them_and_balance_supply_and_owner_agree(tokens):
    amount = {"amount": str(11_500_000_000), "decimals": 9, "uiAmount": 11.5, "uiAmountString": "11.5"}
    assert tokens["balance"] == amount
    assert tokens["supply"] == amount
    assert tokens["largest"] == [[True, amount["amount"]]]
    assert tokens["accounts_by_mint"] == [True]
    (data,) = tokens["parsed_accounts"]
    assert data["program"] == "spl-token-2022"
    info = data["parsed"]["info"]
    assert (info["mint"], info["owner"]) == (tokens["mint_address"], tokens["holder"])
    assert (info["tokenAmount"], info["state"], info["isNative"]) == (amount, "initialized", False)
    assert info["extensions"] == [{"extension": "immutableOwner"}]


def test_a_parsed_minting_says_to_which_account_and_meta_says_how_the_balance_changed(tokens):
    (minting,) = tokens["minting"]
    assert minting == {
        "type": "mintTo",
        "info": {
            "mint": tokens["mint_address"],
            "account": tokens["account"],
            "amount": "11500000000",
            "mintAuthority": tokens["payer"],
        },
    }
    before, after = tokens["token_balances"]
    assert [each["uiTokenAmount"]["amount"] for each in before] == ["0"]
    (balance,) = after
    assert balance["uiTokenAmount"]["amount"] == "11500000000"
    assert (balance["owner"], balance["programId"]) == (tokens["holder"], EXTENSIONS_PROGRAM)


def test_the_older_token_program_works_beside_it_and_accounts_are_found_by_filters(tokens):
    assert tokens["old_balance"] == {
        "amount": "1234567",
        "decimals": 6,
        "uiAmount": 1.234567,
        "uiAmountString": "1.234567",
    }
    assert tokens["filtered"] == ["0", "1234567"]
    assert tokens["filtered_one"] == [[True, "0"]]


def test_every_kind_of_subscription_is_told_what_it_asked_for_and_nothing_else(solana_cluster):
    heard = told(SCRIPT, "subscriptions", solana_cluster)
    assert heard["signature"] == {"err": None}
    assert heard["received"] == "received"
    assert heard["already_processed"] == {"err": None}
    assert heard["account"] == [SOL, 2 * SOL, 3 * SOL]
    assert heard["account_slots_rise"] is True
    assert heard["finalized"] == 3 * SOL
    assert heard["program"] == [[True, 100]]
    assert heard["logs_of_all"] == [True, True, True]
    assert heard["mentioned"] == [[True, None, 4]]
    assert all(distance >= 1 for distance in heard["slots"])
    assert heard["slot_after_root"] is True
    assert heard["roots_rise"] is True
    assert {"completed", "createdBank", "optimisticConfirmation", "root"} <= set(heard["updates"])
    assert heard["given_up"] == 0


def test_a_lookup_table_is_made_extended_and_lets_a_transaction_name_twenty_accounts(tables_and_nonces):
    assert tables_and_nonces["table"] == {"addresses": 20, "active": True, "authority": True}
    assert tables_and_nonces["table_extended_in"] is True
    assert tables_and_nonces["parsed_table"] == 20
    assert tables_and_nonces["v0_bytes"] < 700
    assert tables_and_nonces["v0"] == {"err": None}
    assert tables_and_nonces["v0_paid"] is True
    assert tables_and_nonces["v0_loaded"] == [0, 20, 0]
    assert tables_and_nonces["v0_sources"] == 20
    assert tables_and_nonces["mentioned_by_table"] == [True]
    assert "Transaction version (0) is not supported" in tables_and_nonces["v0_not_understood"]["message"]


def test_a_durable_nonce_lets_a_transaction_wait_and_is_used_up_even_by_a_failure(tables_and_nonces):
    assert tables_and_nonces["nonce_parsed"] is True
    assert tables_and_nonces["nonce_used"] == [True, True, True]
    assert tables_and_nonces["nonce_used_twice"]["type"] == "SendTransactionError"
    assert tables_and_nonces["nonce_failed"] == {"InstructionError": [1, {"Custom": 1}]}
    assert tables_and_nonces["nonce_advanced_by_failure"] is True


def test_a_program_is_written_deployed_and_called_through_the_upgradeable_loader(solana_cluster):
    heard = told(SCRIPT, "programs", solana_cluster)
    assert heard["writes"] == [True, True]
    assert heard["buffer"] == ["buffer", True]
    assert heard["program"] == [True, True]
    assert heard["program_data"] is True
    assert heard["logs"][0] == "Program OURS invoke [1]"
    assert heard["logs"][-1] == "Program OURS success"
    assert any("by our own" in line for line in heard["logs"])
