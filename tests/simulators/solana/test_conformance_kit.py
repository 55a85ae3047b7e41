"""@solana/kit and @solana-program/system, unmodified, find on the simulated cluster what they find on a real one."""

from __future__ import annotations

import pytest

from tests.simulators.solana.conformance.clients import told

SOL = 10**9
SCRIPT = "kit.mjs"
PREFLIGHT = "SOLANA_ERROR__JSON_RPC__SERVER_ERROR_SEND_TRANSACTION_PREFLIGHT_FAILURE"


@pytest.fixture(scope="module")
def money(solana_cluster):
    return told(SCRIPT, "money", solana_cluster)


@pytest.fixture(scope="module")
def tables_and_nonces(solana_cluster):
    return told(SCRIPT, "tables_and_nonces", solana_cluster)


def test_money_is_airdropped_sent_and_confirmed(money):
    assert money["version"]["solana-core"].count(".") == 2
    assert money["health"] == "ok"
    assert money["epoch"]["slotsInEpoch"] == "432000"
    assert money["airdropped"] == str(10 * SOL)
    assert money["simulated"]["err"] is None
    limiting = 150  # compute units of the instruction that sets the limit
    assert money["estimated"]["computeUnitLimit"] == int(money["simulated"]["unitsConsumed"]) + limiting
    assert money["status"]["err"] is None
    assert money["status"]["confirmationStatus"] in {"confirmed", "finalized"}
    assert money["paid"] == str(SOL)
    assert money["left"] == str(9 * SOL - 5_000)
    assert (money["fee"], money["rent"]) == ("5000", "2039280")


def test_a_transaction_that_is_sent_again_is_not_executed_again(money):
    assert money["resent"]["name"] == PREFLIGHT
    assert money["resent"]["cause"] == "SOLANA_ERROR__TRANSACTION_ERROR__ALREADY_PROCESSED"
    assert money["resent_unchecked"] == money["signature"]
    assert money["paid_after_resending"] == str(SOL)


def test_a_transaction_is_found_in_every_encoding_and_in_its_block(money):
    version, err, fee, logs = money["transaction"]
    assert (str(version), err, fee) == ("0", None, "5000")
    assert logs == money["simulated"]["logs"]
    assert money["transaction_bytes"] is True
    payer, friend = money["people"]
    transfer, memo = money["transaction_parsed"]
    assert transfer["type"] == "transfer"
    assert transfer["info"] == {"source": payer, "destination": friend, "lamports": str(SOL)}
    assert memo == "from kit"
    keys = money["transaction_accounts"]
    assert keys[0] == {"pubkey": payer, "signer": True, "writable": True, "source": "transaction"}
    assert money["block"] == [True, True, True]


def test_the_history_of_an_address_is_paged_from_its_newest_transaction_back(money):
    assert money["history"] == [["[4] four", True], ["[5] three", True], ["[3] two", True], ["[8] from kit", True]]
    assert money["page"] == ["[5] three", "[3] two"]
    assert money["accounts"] == [[True, str(SOL + 3)], [False, None]]
    assert money["nobody"] is None


def test_a_transaction_that_would_fail_is_kits_own_error_with_the_programs_number_and_logs(money):
    assert money["too_much"]["name"] == PREFLIGHT
    assert money["too_much"]["cause"] == "SOLANA_ERROR__INSTRUCTION_ERROR__CUSTOM"
    assert str(money["too_much"]["code"]) == "1"
    assert any("insufficient lamports" in line for line in money["too_much"]["logs"])
    assert money["too_long"]["name"] == PREFLIGHT
    forged = "SOLANA_ERROR__JSON_RPC__SERVER_ERROR_TRANSACTION_SIGNATURE_VERIFICATION_FAILURE"
    assert money["forged"]["name"] == forged
    assert money["priced_fee"] == str(5_000 + 50_000)


def test_a_mint_of_token_2022_and_an_account_of_it_are_shown_parsed_and_found_by_filters(solana_cluster):
    heard = told(SCRIPT, "tokens", solana_cluster)
    amount = {"amount": str(11 * SOL), "decimals": 9, "uiAmount": 11, "uiAmountString": "11"}
    mint, account = heard["mint"], heard["account"]
    assert (mint["mintAuthority"], mint["supply"], mint["decimals"]) == (heard["payer"], str(11 * SOL), 9)
    assert mint["extensions"] == [{"extension": "permanentDelegate", "state": {"delegate": heard["payer"]}}]
    assert (account["mint"], account["owner"]) == (heard["mint_address"], heard["payer"])
    assert (account["state"], account["tokenAmount"]) == ("initialized", amount)
    assert heard["balance"] == amount
    assert heard["supply"] == amount
    assert heard["owned"] == [True]
    assert heard["filtered"] == [[True, "165"]]
    assert heard["filtered_mints"] == [[True, "mint"]]


def test_every_kind_of_subscription_is_told_what_it_asked_for(solana_cluster):
    heard = told(SCRIPT, "subscriptions", solana_cluster)
    assert heard["slot_is_that_of_the_transaction"] == [True] * 5
    assert heard["account"] == [str(SOL)]
    assert heard["account_finalized"] == [str(SOL)]
    assert any("heard" in line for line in heard["logs"])
    assert heard["logs_with_votes"] is None
    assert heard["mentioned"] == [True]
    assert heard["signature"] == [{"err": None}]
    assert heard["signature_received"] == ["receivedSignature", {"err": None}]
    assert heard["program"] == str(SOL)
    assert heard["slots"] == [True, True, True]
    assert heard["roots"] is True
    assert heard["updates"] == ["completed", "createdBank", "optimisticConfirmation", "root"]
    assert heard["blocks"] == [[True, True]]
    assert heard["already_confirmed"] == [{"err": None}]
    assert heard["mistaken"]["name"] == "SOLANA_ERROR__JSON_RPC__INVALID_PARAMS"


def test_a_lookup_table_is_made_and_lets_a_transaction_name_twenty_accounts(tables_and_nonces):
    assert tables_and_nonces["table"] is True
    assert tables_and_nonces["v0_bytes"] < 700
    assert tables_and_nonces["v0_paid"] is True


def test_a_durable_nonce_is_used_once_and_kit_says_so_when_it_is_gone(tables_and_nonces):
    assert tables_and_nonces["nonce_authority"] is True
    assert tables_and_nonces["nonce_advanced"] is True
    assert tables_and_nonces["nonce_used_twice"]["solana"] is True


def test_a_program_is_written_deployed_and_called_through_the_upgradeable_loader(solana_cluster):
    heard = told(SCRIPT, "programs", solana_cluster)
    assert heard["writes"] == [True, True]
    assert heard["program"] == [True, True]
    assert heard["logs"][0] == "Program OURS invoke [1]"
    assert heard["logs"][-1] == "Program OURS success"
