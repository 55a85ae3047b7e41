"""A walk over every POST of the hub: each is done once by whoever may, for tests that hold something of all of them."""

from __future__ import annotations

import base64
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol
from uuid import UUID

import base58
import httpx

from hub.api_types import iso
from hub.auth import members_service
from hub.db import transaction
from hub.notifications import service as notifications
from hub.permissions import Permission, Role
from hub.readings import service as readings
from hub.readings.rules import Policy
from hub.signatures import SigningKey
from tests.hub.auth.mailing import BETTER, GOOD, Office, somebody
from tests.hub.auth.signing_wallet import SigningWallet
from tests.hub.conftest import TestMeter
from tests.hub.minting.holding import hold_minting
from tests.hub.registry.chained import Chained
from tests.hub.test_keys_api import request_of, rotation_of

DAY_S = 86_400
NEW_KEY = SigningKey(b"a new key for the roof, 32 bytes")

Body = Mapping[str, Any] | bytes | None


class Do(Protocol):
    """Does one POST and gives its answer. `other` is a body, or `other_path` a path, that is another request."""

    def __call__(
        self,
        route: str,
        client: httpx.Client,
        body: Body = None,
        *,
        path: str | None = None,
        other: Body = None,
        other_path: str | None = None,
    ) -> httpx.Response: ...


@dataclass
class Walk:
    """The way over all routes. `secrets` are all that was told on it and that nobody may find in the database."""

    office: Office
    do: Do
    secrets: set[str] = field(default_factory=set)

    def go(self) -> None:
        """From one end to the other."""
        self.secrets |= {GOOD, BETTER}
        self._meters()
        self._quarantine()
        self._members()
        wallet, tokens = self._wallets()
        self._sessions(wallet, tokens)
        self._email()
        self._notifications()
        self._registrations()

    @property
    def _admin(self) -> httpx.Client:
        return self.office.server.client

    @property
    def _nobody(self) -> httpx.Client:
        return self.office.server.anonymous

    def _client(self, tokens: Mapping[str, Any]) -> httpx.Client:
        self.secrets |= {tokens["access_token"], tokens["refresh_token"]}
        headers = {"Authorization": f"Bearer {tokens['access_token']}"}
        return httpx.Client(base_url=self.office.server.url, headers=headers, timeout=60)

    def _meter(self, meter_id: str, key: int, ago_s: int = DAY_S) -> TestMeter:
        start_unix_s, domain = (int(time.time()) - ago_s) // 900 * 900, self.office.server.settings.domain
        return TestMeter(meter_id, SigningKey(key.to_bytes(32, "big")), start_unix_s, domain)

    def _meters(self) -> None:
        do, admin = self.do, self._admin
        roof, cellar = self._meter("roof", 101), self._meter("cellar", 102)
        answer = do("/meters", admin, roof.registration(), other=cellar.registration()).json()
        self.secrets.add(answer["broker"]["password"])
        seal = roof.seal([(roof.valid_from_unix_s + 900, 100, 50)])
        do("/readings/seals", self._nobody, seal, path="/readings/seals?meter_id=roof")
        report = "/agent/report?meter_id=roof"
        with httpx.Client(base_url=self._nobody.base_url, auth=("roof", answer["broker"]["password"])) as agent:
            do("/agent/report", agent, b'{"state":"online"}', path=report)
        do("/agent/credentials", self._nobody, {"request": request_of(roof).hex()})
        command = {"kind": "restart"}
        do("/meters/{meter_id}/commands", admin, command, path="/meters/roof/commands", other=command | {"first": 1})
        for verb in ("suspend", "resume"):
            path = f"/meters/roof/{verb}"
            do(f"/meters/{{meter_id}}/{verb}", admin, {"reason": "x"}, path=path, other={"reason": "y"})
        minting = {"allowed": False, "reason": "x"}
        path = "/meters/roof/minting"
        do("/meters/{meter_id}/minting", admin, minting, path=path, other=minting | {"allowed": True})
        path = "/meters/roof/broker-password"
        route, why = "/meters/{meter_id}/broker-password", {"reason": "x"}
        answer = do(route, admin, why, path=path, other={"reason": "y"}).json()
        self.secrets.add(answer["broker"]["password"])
        rotation = {"rotation": rotation_of(roof, NEW_KEY).hex(), "replacements": []}
        do("/meters/{meter_id}/keys", self._nobody, rotation, path="/meters/roof/keys")
        revocation = {"from": iso(datetime.now(UTC).replace(microsecond=0)), "reason": "x"}
        do(
            "/meters/{meter_id}/keys/{key_epoch}/revoke",
            admin,
            revocation,
            path="/meters/roof/keys/2/revoke",
            other=revocation | {"reason": "y"},
        )
        path = "/meters/roof/retire"
        do("/meters/{meter_id}/retire", admin, {"reason": "x"}, path=path, other={"reason": "y"})

    def _quarantine(self) -> None:
        do, admin, server = self.do, self._admin, self.office.server
        shed = self._meter("shed", 103, 3 * DAY_S)
        server.register(shed)
        strict = Policy(server.settings.community_id, server.settings.domain, 3_600)
        for number in (1, 2, 3):
            seal = shed.seal([(shed.valid_from_unix_s + 900 * number, 10 * number, 10 * number)])
            posted = readings.receive_posted(server.engine, strict, "shed", seal, datetime.now(UTC))
            assert posted.reason == "too_old"
        entries = admin.get("/quarantine").json()["entries"]
        first, second = sorted(entry["quarantine_id"] for entry in entries)[:2]
        for verb, entry in (("release", first), ("reject", second)):
            path = f"/quarantine/{entry}/{verb}"
            do(f"/quarantine/{{quarantine_id}}/{verb}", admin, {"note": "x"}, path=path, other={"note": "y"})
        garden = self._meter("garden", 104, 3 * DAY_S)
        server.register(garden)
        seal = garden.seal([(garden.valid_from_unix_s + 900, 10, 10)])
        readings.receive_posted(server.engine, strict, "garden", seal, datetime.now(UTC))
        attic = self._meter("attic", 105)
        server.register(attic)
        seals = [attic.seal([(attic.valid_from_unix_s + 900 * number, 10 * number, 0)]) for number in range(1, 6)]
        for seal in seals[::2]:
            server.post_seal(attic, seal)
        route, path = "/meters/{meter_id}/gaps/{key_epoch}/{first_sequence}/declare-lost", "/meters/attic/gaps/1"
        do(route, admin, {"note": "x"}, path=f"{path}/2/declare-lost", other={"note": "y"})
        with transaction(server.engine) as connection:
            hold_minting(connection, "attic", datetime.now(UTC))
        path = "/meters/attic/minting/retry"
        do("/meters/{meter_id}/minting/retry", admin, {"reason": "x"}, path=path, other={"reason": "y"})
        path = "/meters/garden/backlog/release"
        do("/meters/{meter_id}/backlog/release", admin, {"note": "x"}, path=path, other={"note": "y"})

    def _members(self) -> None:
        do, admin = self.do, self._admin
        member = self.office.server.member()
        self.secrets.add(member.api_key)
        body = {"role": Role.INVESTOR.value, "reason": "x"}
        for verb in ("give", "take"):
            path = f"/members/{member.member_id}/roles/{verb}"
            do(f"/members/{{member_id}}/roles/{verb}", admin, body, path=path, other=body | {"reason": "y"})
        for verb in ("suspend", "reinstate"):
            path = f"/members/{member.member_id}/{verb}"
            do(f"/members/{{member_id}}/{verb}", admin, {"reason": "x"}, path=path, other={"reason": "y"})
        profile = {"name": "Ada", "phone": "+49 30 1234", "postal_address": None}
        with self.office.server.signed_in(member.member_id) as client:
            do("/me", client, profile, other=profile | {"name": "Bo"})

    def _wallets(self) -> tuple[SigningWallet, Mapping[str, Any]]:
        do, nobody = self.do, self._nobody
        first, second = SigningWallet.new(), SigningWallet.new("dogecoin")
        challenge = do("/auth/wallet/challenge", nobody, {**first.named, "purpose": "register"}).json()
        newcomer = {**first.answer(challenge), "type": "prosumer", "name": "Bo"}
        self._client(do("/auth/wallet/register", nobody, newcomer).json()).close()
        tokens = do("/auth/wallet/sign-in", nobody, first.answer(first.challenge(nobody, "sign_in"))).json()
        with self._client(tokens) as client:
            challenge = do("/me/wallets/challenge", client, second.named).json()
            act = {"kind": "link_wallet", **second.named}
            asked = do("/me/proofs/challenge", client, {**first.named, "act": act}).json()
            proof = {"kind": "wallet", **first.answer(asked)}
            do("/me/wallets", client, {"new": second.answer(challenge), "existing": proof})
            proof = first.proof(client, {"kind": "unlink_wallet", **second.named})
            do("/me/wallets/unlink", client, {**second.named, "existing": proof})
        return first, tokens

    def _sessions(self, wallet: SigningWallet, tokens: Mapping[str, Any]) -> None:
        do, nobody = self.do, self._nobody
        others = [wallet.sign_in(nobody).json() for _ in range(3)]
        for each in others:
            self._client(each).close()
        with self._client(tokens) as client:
            scopes = {"scopes": [Permission.METERS_READ.value], "expires_in_s": 600}
            key = do("/me/api-keys", client, {"name": "a key", **scopes}, other={"name": "another", **scopes}).json()
            self.secrets.add(key["api_key"])
            do(
                "/me/api-keys/{key_id}/revoke",
                client,
                {},
                path=f"/me/api-keys/{key['key_id']}/revoke",
                other_path="/me/api-keys/00/revoke",
            )
            do(
                "/me/sessions/{session_id}/end",
                client,
                {},
                path=f"/me/sessions/{others[0]['session_id']}/end",
                other_path=f"/me/sessions/{others[1]['session_id']}/end",
            )
            do("/me/sessions/end-others", client, {})
        refreshed = do("/auth/refresh", nobody, {"refresh_token": tokens["refresh_token"]}).json()
        self._client(refreshed).close()
        do("/auth/sign-out", nobody, {"refresh_token": refreshed["refresh_token"]})

    def _email(self) -> None:
        do, nobody, office = self.do, self._nobody, self.office
        address, next_address = somebody(), somebody()
        do("/auth/register", nobody, {"email": address, "password": GOOD, "name": "Cy", "type": "consumer"})
        office.deliver()
        token = office.token(address)
        self.secrets.add(token)
        self._client(do("/auth/verify", nobody, {"token": token, "password": GOOD}).json()).close()
        tokens = do("/auth/sign-in", nobody, {"email": address, "password": GOOD}).json()
        with self._client(tokens) as client:
            do("/me/password", client, {"current": GOOD, "new": BETTER})
            do("/me/email", client, {"email": next_address, "existing": {"kind": "password", "password": BETTER}})
            office.deliver()
            self.secrets.add(office.token(next_address))
            do("/me/email/verify", client, {"token": office.token(next_address)})
        do("/auth/password/forgot", nobody, {"email": next_address})
        office.deliver()
        token = office.token(next_address)
        self.secrets.add(token)
        do("/auth/password/reset", nobody, {"token": token, "password": GOOD})

    def _notifications(self) -> None:
        do, server = self.do, self.office.server
        member = server.member(Role.OPERATOR)
        self.secrets.add(member.api_key)
        now = datetime.now(UTC)
        with transaction(server.engine) as connection:
            assert members_service.get_member(connection, member.member_id)
            notifications.notify(
                connection, member.member_id, "meter.suspended", {"meter_id": "roof", "reason": "x"}, now
            )
        with server.acting(member) as client:
            [told] = client.get("/me/notifications").json()["notifications"]
            read = {"notification_id": told["notification_id"]}
            do("/me/notifications/read", client, read, other=read | {"and_older": True})
            preference = {"group": "meters", "channel": "webhook", "enabled": False}
            do("/me/notification-preferences", client, preference, other=preference | {"enabled": True})
            endpoint = {"url": "https://hooks.example.org/a", "description": "here"}
            made = do("/me/webhooks", client, endpoint, other=endpoint | {"description": "there"}).json()
            self.secrets.add(made["secret"])
            template, path = "/me/webhooks/{endpoint_id}", f"/me/webhooks/{made['endpoint_id']}"
            nowhere = "/me/webhooks/00000000-0000-4000-8000-000000000000"
            for verb in ("disable", "enable", "rotate-secret", "test"):
                answer = do(f"{template}/{verb}", client, {}, path=f"{path}/{verb}", other_path=f"{nowhere}/{verb}")
                self.secrets |= {answer.json().get("secret", made["secret"])}
            [delivery, *_] = client.get(f"{path}/deliveries").json()["deliveries"]
            again = f"deliveries/{delivery['delivery_id']}/replay"
            do(
                f"{template}/deliveries/{{delivery_id}}/replay",
                client,
                {},
                path=f"{path}/{again}",
                other_path=f"{nowhere}/{again}",
            )
            since = {"since": iso((now - timedelta(hours=1)).replace(microsecond=0))}
            later = {"since": iso(now.replace(microsecond=0))}
            do(f"{template}/replay", client, since, path=f"{path}/replay", other=later)

    def _registrations(self) -> None:
        do, server = self.do, self.office.server
        chain = Chained(server.engine, server.settings, datetime.now(UTC))
        chain.show(chain.config())
        ada, bo = chain.person(), chain.person()
        with server.signed_in(ada.member_id) as client:
            wallet = {"wallet": ada.address}
            asked = do("/me/registrations/user", client, wallet, other={"wallet": bo.address}).json()
            path = f"/me/registrations/{asked['registration_id']}"
            message = chain.build(UUID(asked["registration_id"])).message
            signed = {
                "message": base64.b64encode(message).decode(),
                "signature": base58.b58encode(ada.key.sign(message)).decode(),
            }
            do(
                "/me/registrations/{registration_id}/signature",
                client,
                signed,
                path=f"{path}/signature",
                other=signed | {"message": "AAAA"},
            )
            chain.show(chain.user(ada.wallet))
            meter = chain.meter(ada.wallet)
            do("/me/registrations/meter", client, {"meter_id": meter.meter_id}, other={"meter_id": "another"})
