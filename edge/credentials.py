"""The broker password, renewed: the meter asks for the one in force and proves by its key that it is the meter."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

from edge.connection import read_password
from edge.errors import EdgeError, HubUnansweredError, IdentityError, SettingsError
from edge.hub_client import post
from edge.identity import Identity
from edge.secret_file import replace_secret_file
from edge.settings import Settings
from protocol.credential import CredentialRequest, encode_credential_request

PASSWORD_LENGTH_MAX = 256

log = logging.getLogger(__name__)


def signed_request(settings: Settings, identity: Identity, key_epoch: int, now_unix_s: int, nonce: bytes) -> bytes:
    """`request ‖ signature`, to be used once and soon."""
    request = encode_credential_request(
        CredentialRequest(settings.domain, settings.meter_id, key_epoch, now_unix_s, nonce)
    )
    return request + identity.sign(request)


def password_file(settings: Settings) -> Path | None:
    """Where the password of the chosen transport is; None if a certificate takes its place."""
    if settings.transport == "https":
        return settings.https.password_file if settings.https else None
    return settings.mqtt.password_file if settings.mqtt else None


def renew_password(settings: Settings, identity: Identity, key_epoch: int, now_unix_s: int, nonce: bytes) -> bool:
    """Fetch the password in force and keep it. Returns whether it is another than before.

    Raises SettingsError without a password file or a `hub.url`, HubRefusedError, HubUnansweredError, IdentityError.
    """
    file = password_file(settings)
    if file is None:
        raise SettingsError("settings_missing", "password_file: this transport has none to renew")
    request = signed_request(settings, identity, key_epoch, now_unix_s, nonce)
    answer = post(settings.hub, "/agent/credentials", {"request": request.hex()})
    username, password = answer.get("username"), answer.get("password")
    if username != settings.meter_id or not _is_password(password):
        raise HubUnansweredError("hub_unanswered", "its answer holds no password of this meter")
    try:
        if file.exists() and read_password(file) == password:
            return False
    except IdentityError as error:  # exposed or unreadable: one more reason to write it anew
        log.warning(error.code, extra={"why": error.detail})
    try:
        replace_secret_file(file, f"{password}\n")
    except OSError as error:
        raise IdentityError("password_unwritable", f"{file}: {error.strerror}") from None
    return True


def _is_password(text: object) -> bool:
    return isinstance(text, str) and 1 <= len(text) <= PASSWORD_LENGTH_MAX and text.isascii() and text.isprintable()


def credential_renewer(
    settings: Settings,
    identity: Identity,
    key_epoch: int,
    now_unix_s: Callable[[], int],
    nonce: Callable[[], bytes],
) -> Callable[[], Awaitable[bool]] | None:
    """What a transport calls after an answer of "not authorised": whether there is another password now.

    None if this agent has no password or knows no hub to ask. A failure is logged and means no.
    """
    if password_file(settings) is None or not settings.hub.url:
        return None

    async def renew() -> bool:
        try:
            changed = await asyncio.to_thread(renew_password, settings, identity, key_epoch, now_unix_s(), nonce())
        except EdgeError as error:
            log.warning("credentials_not_renewed", extra={"why": str(error)})
            return False
        if changed:
            log.info("credentials_renewed")
        return changed

    return renew
