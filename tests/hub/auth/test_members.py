"""Who takes part: what a member is told of itself, what others may know of it, and what admins decide about it."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from sqlalchemy import text

from hub.auth import members_service
from hub.auth.members_store import EMAIL
from hub.db import transaction
from hub.permissions import Role

WALLET = bytes(range(32))
OTHER_WALLET = bytes(range(1, 33))
_keys = itertools.count(1)


def _post(client, path, body):
    return client.post(path, json=body, headers={"Idempotency-Key": f"members-{next(_keys)}"})


def _refused(answer, status, code):
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text


def _change(server, member_id, what, **body):
    return server.post(f"/members/{member_id}/{what}", {"reason": "the assembly said so", **body})


def _give(server, member_id, role):
    return _change(server, member_id, "roles/give", role=role)


def _take(server, member_id, role):
    return _change(server, member_id, "roles/take", role=role)


def _audit(server, member_id):
    with server.engine.connect() as connection:
        rows = connection.execute(
            text("SELECT actor, action, detail FROM audit_log WHERE subject = :subject ORDER BY audit_id"),
            {"subject": f"member:{member_id}"},
        )
        return [(row.actor, row.action, row.detail) for row in rows]


def _link(server, member_id, kind, value, public_key=None):
    with transaction(server.engine) as connection:
        members_service.add_identity(connection, member_id, kind, value, public_key, "test", datetime.now(UTC))


@pytest.fixture
def ada(server):
    return server.member(member_type=Role.PROSUMER, wallet=WALLET, name="Ada Lovelace")


@pytest.fixture
def owned(server, new_meter):
    meter = new_meter("ada-roof")
    server.register(meter, enrolment=meter.enrolment(owner=WALLET).hex())
    return meter


def test_a_member_is_told_who_it_is_and_what_it_may(server, ada, owned):
    _link(server, ada.member_id, EMAIL, "ada@example.org")
    with server.signed_in(ada.member_id) as client:
        me = client.get("/me").json()
    assert (me["member_id"], me["type"], me["name"], me["state"]) == (
        str(ada.member_id),
        "prosumer",
        "Ada Lovelace",
        "active",
    )
    assert me["roles"] == []
    assert [(each["chain"], each["public_key"]) for each in me["wallets"]] == [("solana", WALLET.hex())]
    assert me["contact"] == {"email": "ada@example.org", "phone": None, "postal_address": None}
    assert me["meters"] == 1
    assert me["permissions"]["meters.read"] == "own"
    assert "meters.govern" not in me["permissions"]


def test_a_member_changes_what_it_says_of_itself_and_the_audit_log_does_not_repeat_it(server, ada):
    profile = {"name": "Ada King", "phone": "+44 20 7946 0000", "postal_address": "12 St James's Square\nLondon"}
    with server.signed_in(ada.member_id) as client:
        me = _post(client, "/me", profile).json()
        assert me["name"] == "Ada King"
        assert me["contact"] == {"email": None, "phone": profile["phone"], "postal_address": profile["postal_address"]}
        assert _post(client, "/me", profile | {"phone": None}).json()["contact"]["phone"] is None
        assert client.get("/me").json()["name"] == "Ada King"
    changes = [(actor, detail) for actor, action, detail in _audit(server, ada.member_id) if action == "member.change"]
    assert changes == [
        (f"member:{ada.member_id}", {"fields": ["name", "phone", "postal_address"]}),
        (f"member:{ada.member_id}", {"fields": ["phone"]}),
    ]
    with server.engine.connect() as connection:
        kept = connection.execute(text("SELECT response_body FROM idempotency_keys")).scalars().all()
    assert all(b"7946" not in bytes(body) and b"Square" not in bytes(body) for body in kept)


@pytest.mark.parametrize(
    "change",
    [
        {"name": ""},
        {"name": " Ada"},
        {"name": "Ada\nKing"},
        {"name": "Ada\u202eKing"},
        {"name": "x" * 101},
        {"name": None},
        {"phone": "call me"},
        {"phone": "+" + "1" * 40},
        {"postal_address": ""},
        {"postal_address": "a\x00b"},
        {"type": "consumer"},
        {"state": "active"},
        {"roles": ["admin"]},
    ],
)
def test_a_profile_is_a_name_a_phone_number_and_an_address_and_nothing_else(server, ada, change):
    with server.signed_in(ada.member_id) as client:
        answer = _post(client, "/me", {"name": "Ada", "phone": None, "postal_address": None} | change)
        _refused(answer, 422, "malformed_input")
        assert client.get("/me").json()["name"] == "Ada Lovelace"


def test_an_api_key_is_told_nothing_of_its_members_account(server, ada):
    with server.acting(ada) as client:
        _refused(client.get("/me"), 403, "forbidden")
        _refused(_post(client, "/me", {"name": "X", "phone": None, "postal_address": None}), 403, "forbidden")


def test_members_are_listed_by_when_they_came_page_by_page_and_by_what_they_are(server, ada):
    operator = server.member(Role.OPERATOR, name="Oswald 100%")
    auditor = server.member(Role.AUDITOR, Role.INVESTOR, name="Audrey")
    _change(server, auditor.member_id, "suspend")

    def names(**query):
        return [each["name"] for each in server.client.get("/members", params=query).json()["members"]]

    assert names() == ["Admin", "Ada Lovelace", "Oswald 100%", "Audrey"]
    assert names(role="operator") == ["Oswald 100%"]
    assert names(role="investor") == ["Audrey"]
    assert names(type="prosumer") == ["Ada Lovelace"]
    assert names(type="consumer", state="active") == ["Admin", "Oswald 100%"]
    assert names(type="prosumer", role="operator") == []
    assert names(state="suspended") == ["Audrey"]
    assert names(text="LOVE") == ["Ada Lovelace"]
    assert names(text="0%") == ["Oswald 100%"]
    assert names(text="_") == []
    assert names(wallet=WALLET.hex()) == ["Ada Lovelace"]
    assert names(wallet=OTHER_WALLET.hex()) == []
    first = server.client.get("/members", params={"limit": 3}).json()
    second = server.client.get("/members", params={"limit": 3, "cursor": first["next_cursor"]}).json()
    assert first["next_cursor"] == str(operator.member_id)
    assert [each["name"] for each in second["members"]] == ["Audrey"]
    assert second["next_cursor"] is None
    _refused(server.client.get("/members", params={"cursor": str(uuid4())}), 422, "malformed_input")


def test_a_list_of_members_tells_nobody_how_to_reach_them(server, ada):
    _link(server, ada.member_id, EMAIL, "ada@example.org")
    listed = server.client.get("/members").text
    assert "ada@example.org" not in listed
    assert "phone" not in listed


def test_contact_data_is_shown_to_whoever_may_see_it_and_to_no_key_without_that_scope(server, ada):
    _link(server, ada.member_id, EMAIL, "ada@example.org")
    path = f"/members/{ada.member_id}"
    for role in (Role.OPERATOR, Role.AUDITOR, Role.ADMIN):
        member = server.member(role)
        with server.acting(member) as client:
            assert client.get(path).json()["contact"]["email"] == "ada@example.org"
        with server.engine.begin() as connection:
            connection.execute(
                text("UPDATE api_keys SET scopes = '{members.read}' WHERE member_id = :member_id"),
                {"member_id": member.member_id},
            )
        with server.acting(member) as client:
            assert client.get(path).json()["contact"] is None
    with server.acting(ada) as client:
        _refused(client.get(path), 403, "forbidden")


def test_a_member_that_is_not_there_is_told_to_those_who_may_ask(server):
    for path in (f"/members/{uuid4()}", "/members/"):
        assert server.client.get(path).status_code == 404
    _refused(server.client.get(f"/members/{uuid4()}"), 404, "member_not_found")
    for what in ("suspend", "reinstate"):
        _refused(_change(server, uuid4(), what), 404, "member_not_found")
    _refused(_give(server, uuid4(), "auditor"), 404, "member_not_found")
    _refused(_take(server, uuid4(), "auditor"), 404, "member_not_found")


def test_a_role_counts_from_the_next_request_whatever_the_token_says(server, ada):
    with server.signed_in(ada.member_id) as client:
        _refused(client.get("/fleet"), 403, "forbidden")
        assert _give(server, ada.member_id, "operator").json() == {
            "member_id": str(ada.member_id),
            "roles": ["operator"],
        }
        assert client.get("/fleet").status_code == 200
        assert _take(server, ada.member_id, "operator").json()["roles"] == []
        _refused(client.get("/fleet"), 403, "forbidden")
    acts = [(actor, action, detail) for actor, action, detail in _audit(server, ada.member_id) if "role" in action]
    assert acts == [
        (server.admin, "member.give_role", {"role": "operator", "reason": "the assembly said so"}),
        (server.admin, "member.take_role", {"role": "operator", "reason": "the assembly said so"}),
    ]


def test_a_role_is_given_once_and_taken_once(server, ada):
    assert _give(server, ada.member_id, "auditor").status_code == 200
    _refused(_give(server, ada.member_id, "auditor"), 409, "role_unchanged")
    assert _take(server, ada.member_id, "auditor").status_code == 200
    _refused(_take(server, ada.member_id, "auditor"), 409, "role_unchanged")
    assert len([1 for _, action, _ in _audit(server, ada.member_id) if "role" in action]) == 2


@pytest.mark.parametrize("role", ["prosumer", "consumer", "member", "", "ADMIN"])
def test_a_type_is_no_role_to_be_given(server, ada, role):
    _refused(_give(server, ada.member_id, role), 422, "malformed_input")


def test_nobody_gives_a_role_to_himself_or_suspends_himself(server):
    admin = server.member(Role.ADMIN)
    with server.acting(admin) as client:
        body = {"reason": "I should", "role": "asset_manager"}
        _refused(_post(client, f"/members/{admin.member_id}/roles/give", body), 403, "not_over_oneself")
        _refused(_post(client, f"/members/{admin.member_id}/suspend", {"reason": "x"}), 403, "not_over_oneself")
        assert _post(client, f"/members/{admin.member_id}/roles/take", body | {"role": "admin"}).json()["roles"] == []
        _refused(client.get("/members"), 403, "forbidden")
        _refused(_post(client, f"/members/{admin.member_id}/roles/give", body | {"role": "admin"}), 403, "forbidden")


def test_the_last_admin_stays(server):
    [first] = server.client.get("/members", params={"role": "admin"}).json()["members"]
    _refused(_take(server, first["member_id"], "admin"), 409, "last_admin")
    second = server.member(Role.ADMIN)
    with server.acting(second) as client:
        assert _post(client, f"/members/{first['member_id']}/suspend", {"reason": "x"}).status_code == 200
        # the suspended one is an admin still, but none that could act
        body = {"reason": "x", "role": "admin"}
        _refused(_post(client, f"/members/{second.member_id}/roles/take", body), 409, "last_admin")


@pytest.mark.parametrize("act", ["take", "suspend", "one each"])
def test_of_two_admins_who_put_each_other_out_at_once_one_is_left(server, act):
    """The bootstrapped one is out first, so that the two are the last two. A barrier makes them really meet."""
    [first] = server.client.get("/members", params={"role": "admin"}).json()["members"]
    two = [server.member(Role.ADMIN), server.member(Role.ADMIN)]
    with server.acting(two[0]) as client:
        assert _post(client, f"/members/{first['member_id']}/suspend", {"reason": "x"}).status_code == 200
    together = threading.Barrier(2)

    def put_out(number):
        with server.acting(two[number]) as client:
            suspends = act == "suspend" or (act == "one each" and number == 0)
            path = f"/members/{two[1 - number].member_id}/{'suspend' if suspends else 'roles/take'}"
            body = {"reason": "x"} if suspends else {"reason": "x", "role": "admin"}
            together.wait(10)
            return _post(client, path, body)

    with ThreadPoolExecutor(2) as threads:
        answers = list(threads.map(put_out, (0, 1)))
    # whoever is second is no admin any more, suspended, or the last: each of these refuses
    assert sorted(answer.status_code for answer in answers)[0] == 200
    assert sorted(answer.status_code for answer in answers)[1] in (401, 403, 409)
    with server.engine.connect() as connection:
        assert len(members_service.members_with_role(connection, [Role.ADMIN])) == 1


def test_a_suspended_member_is_out_at_once_by_every_way_and_back_when_reinstated(server, ada):
    with server.signed_in(ada.member_id) as by_session, server.acting(ada) as by_key:
        assert (by_session.get("/me").status_code, by_key.get("/meters").status_code) == (200, 200)
        assert _change(server, ada.member_id, "suspend").json() == {
            "member_id": str(ada.member_id),
            "state": "suspended",
        }
        _refused(by_session.get("/me"), 401, "unauthorized")
        _refused(by_key.get("/meters"), 401, "unauthorized")
        _refused(_change(server, ada.member_id, "suspend"), 409, "member_not_active")
        assert _change(server, ada.member_id, "reinstate").json()["state"] == "active"
        _refused(_change(server, ada.member_id, "reinstate"), 409, "member_not_suspended")
        assert by_key.get("/meters").status_code == 200
        _refused(by_session.get("/me"), 401, "unauthorized")
    acts = [action for _, action, _ in _audit(server, ada.member_id)]
    assert [act for act in acts if act in ("member.suspend", "session.end", "member.reinstate")] == [
        "member.suspend",
        "session.end",
        "member.reinstate",
    ]


def test_the_meters_of_a_suspended_member_go_on(server, ada, owned):
    _change(server, ada.member_id, "suspend")
    message = owned.seal([(owned.valid_from_unix_s + 60, 0, 0)])
    assert server.post_seal(owned, message).json()["state"] == "accepted"


def test_what_becomes_of_a_member_is_announced_when_it_is_committed(server, ada):
    with server.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        driver = connection.connection.driver_connection
        driver.execute("LISTEN commonwatt_sessions")
        _give(server, ada.member_id, "operator")
        _take(server, ada.member_id, "operator")
        _change(server, ada.member_id, "suspend")
        heard = [notice.payload for notice in driver.notifies(timeout=10, stop_after=3)]
    assert heard == [str(ada.member_id)] * 3


def test_a_member_sees_its_own_meters_and_no_others(server, ada, owned, new_meter):
    server.register(new_meter("somebodys-roof"))
    with server.acting(ada) as client:
        assert [meter["meter_id"] for meter in client.get("/meters").json()["meters"]] == ["ada-roof"]
        assert client.get("/meters/ada-roof").status_code == 200
        for path in ("/meters/somebodys-roof", "/meters/no-such-roof", "/meters/%00", "/meters/ADA-ROOF"):
            _refused(client.get(path), 404, "meter_not_found")
        assert client.get("/meters", params={"owner": OTHER_WALLET.hex()}).json()["meters"] == []
        assert client.get("/meters", params={"owner": bytes(32).hex()}).json()["meters"] == []
    by_owner = server.client.get("/meters", params={"owner": WALLET.hex()}).json()["meters"]
    assert [meter["meter_id"] for meter in by_owner] == ["ada-roof"]
    assert len(server.client.get("/meters").json()["meters"]) == 2


def test_a_members_meters_come_in_pages_of_its_own(server, ada, new_meter):
    for number in range(3):
        for meter, owner in ((new_meter(f"ada-{number}"), WALLET), (new_meter(f"bob-{number}"), OTHER_WALLET)):
            server.register(meter, enrolment=meter.enrolment(owner=owner).hex())
    with server.acting(ada) as client:
        first = client.get("/meters", params={"limit": 2}).json()
        second = client.get("/meters", params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert [meter["meter_id"] for page in (first, second) for meter in page["meters"]] == ["ada-0", "ada-1", "ada-2"]
    assert (first["next_cursor"], second["next_cursor"]) == ("ada-1", None)


def test_a_meter_whose_owner_is_linked_later_is_seen_at_once(server, owned):
    bob = server.member(name="Bob")
    with server.acting(bob) as client:
        assert client.get("/meters").json()["meters"] == []
        _refused(client.get("/meters/ada-roof"), 404, "meter_not_found")
        _link(server, bob.member_id, "solana", "a wallet of Bob's", WALLET)
        assert [meter["meter_id"] for meter in client.get("/meters").json()["meters"]] == ["ada-roof"]
        assert client.get("/meters/ada-roof/latest").status_code == 200
    assert server.client.get(f"/members/{bob.member_id}").json()["meters"] == 1


def test_the_meters_of_an_owner_are_found_by_an_index(server):
    with server.engine.connect() as connection:
        connection.execute(text("SET LOCAL enable_seqscan = off"))
        plan = connection.execute(
            text("EXPLAIN SELECT * FROM meters WHERE owner IN ('\\x00', '\\x01') AND meter_id > '' ORDER BY meter_id")
        )
        assert "meters_owner_idx" in "\n".join(plan.scalars())
