"""Whether to follow a command: signed by the hub's command key, for this meter, new, and in time. Pure."""

from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from edge.errors import CommandError
from protocol.command import Command, split_command
from protocol.errors import ProtocolError


def verify_command(
    message: bytes,
    *,
    command_public_key: bytes,
    domain: bytes,
    meter_id: str,
    last_counter: int,
    now_unix_s: int,
    clock_synchronised: bool,
) -> Command:
    """The command, if it is to be followed. Raises CommandError and nothing else, whatever the bytes."""
    try:
        command, signed, signature = split_command(message)
    except ProtocolError as error:
        raise CommandError("command_malformed", str(error)) from None
    try:
        VerifyKey(command_public_key).verify(signed, signature)
    except BadSignatureError:
        raise CommandError("command_signature", "not signed by the hub's command key") from None
    if command.domain != domain:
        raise CommandError("command_domain", "for another deployment")
    if command.meter_id != meter_id:
        raise CommandError("command_meter", f"for {command.meter_id}")
    if command.counter <= last_counter:
        raise CommandError("command_repeated", f"{command.counter} after {last_counter}")
    if not clock_synchronised:
        raise CommandError("command_clock", "cannot judge an expiry without the time")
    if command.expires_at_unix_s < now_unix_s:
        raise CommandError("command_expired", f"at {command.expires_at_unix_s}")
    return command
