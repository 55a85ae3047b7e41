"""E-mail addresses: one spelling for each, or it is refused.

That spelling is the identity and also what mail is sent to, so that what a member proves is the very address that later
mails go to. It is ASCII: the local part in lower case, the domain as DNS writes it (IDNA). No DNS is asked.
"""

from __future__ import annotations

from typing import Annotated, Final

from email_validator import EmailNotValidError, validate_email
from pydantic import AfterValidator, Field

ADDRESS_LENGTH_MAX: Final = 254


def parse_email(text: str) -> str:
    """The address in its one spelling. Raises ValueError, which says what is wrong with it.

    Local parts beyond ASCII are refused: few servers take them, and no two people agree on how to fold their case.
    Quoted local parts, address literals and names that exist only on a local network are refused too, and what a
    mail program would read as an encoded word (RFC 2047) and show as another address.
    """
    if len(text) > ADDRESS_LENGTH_MAX:
        raise ValueError(f"an e-mail address has at most {ADDRESS_LENGTH_MAX} characters")
    try:
        address = validate_email(text, strict=True, allow_smtputf8=False, check_deliverability=False).ascii_email
    except EmailNotValidError as fault:
        raise ValueError(f"not an e-mail address: {fault}") from None
    if "=?" in text:
        raise ValueError("not an e-mail address that mail programs show as it is")
    assert address is not None, "an address without SMTPUTF8 has an ASCII spelling"
    return address.lower()


EmailText = Annotated[
    str,
    Field(min_length=3, max_length=ADDRESS_LENGTH_MAX, json_schema_extra={"format": "email"}),
    AfterValidator(parse_email),
]
"""An address in a request, in its one spelling from then on."""
