"""An access token is what this hub signed for itself, for ten minutes, and nothing that looks like it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey, VerifyKey

from hub.auth.tokens import ACCESS_LIFE, ACCESS_LIFE_MAX, CLOCK_SKEW_MAX, issue_access_token, read_access_token
from hub.errors import AccessTokenExpired, Unauthorized
from hub.permissions import Role
from hub.token_keys import TokenKeys

ISSUER, AUDIENCE = "https://hub.example", "urn:commonwatt:test-community:hub"
SEED, RETIRED_SEED, STRANGERS_SEED = b"\x01" * 32, b"\x02" * 32, b"\x03" * 32
KEYS = TokenKeys(ISSUER, AUDIENCE, SEED, [RETIRED_SEED])
NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
NOW_UNIX_S = int(NOW.timestamp())
MEMBER_ID, SESSION_ID = UUID(int=1), UUID(int=2)
TOKEN = issue_access_token(KEYS, MEMBER_ID, SESSION_ID, [Role.CONSUMER, Role.ADMIN], NOW, NOW + ACCESS_LIFE)
HEADER = {"alg": "EdDSA", "kid": KEYS.key_id, "typ": "at+jwt"}
CLAIMS = {
    "iss": ISSUER,
    "aud": AUDIENCE,
    "client_id": "commonwatt",
    "sub": str(MEMBER_ID),
    "sid": str(SESSION_ID),
    "jti": "a-token",
    "iat": NOW_UNIX_S,
    "exp": NOW_UNIX_S + 600,
    "roles": ["consumer"],
}
NODE = Path(sys.executable).parent / "node"


def b64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def written(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def signed(header: object, claims: object, seed: bytes = SEED) -> str:
    """A token as somebody makes it who has the seed and needs no library."""
    content = f"{b64(written(header).encode())}.{b64(written(claims).encode())}"
    return f"{content}.{b64(SigningKey(seed).sign(content.encode()).signature)}"


def public_bytes(seed: bytes) -> bytes:
    return bytes(SigningKey(seed).verify_key)


def is_refused(token: str, keys: TokenKeys = KEYS, now: datetime = NOW) -> bool:
    try:
        read_access_token(keys, token, now)
    except Unauthorized as refusal:
        assert refusal.challenge == 'Bearer realm="commonwatt", error="invalid_token"'
        assert refusal.detail == ""
        return True
    return False


def test_a_token_says_whose_session_it_belongs_to_and_until_when():
    claims = read_access_token(KEYS, TOKEN, NOW)
    assert (claims.member_id, claims.session_id) == (MEMBER_ID, SESSION_ID)
    assert (claims.issued_at, claims.expires_at) == (NOW, NOW + timedelta(minutes=10))
    assert ACCESS_LIFE <= ACCESS_LIFE_MAX == timedelta(minutes=15)


def test_a_token_has_the_header_and_the_claims_of_rfc_9068():
    header, claims, _ = (unb64(part) for part in TOKEN.split("."))
    assert json.loads(header) == HEADER
    assert json.loads(claims) == CLAIMS | {"jti": json.loads(claims)["jti"], "roles": ["admin", "consumer"]}
    assert not is_refused(signed(HEADER, CLAIMS)), "the hand that makes the forgeries below can make a good one"


def test_no_two_tokens_have_one_id():
    issued = [issue_access_token(KEYS, MEMBER_ID, SESSION_ID, [], NOW, NOW + ACCESS_LIFE) for _ in range(50)]
    assert len({read_access_token(KEYS, token, NOW).token_id for token in issued}) == 50


def test_a_token_ends_with_its_last_second_and_says_so_only_if_all_else_is_good():
    end = NOW + ACCESS_LIFE
    read_access_token(KEYS, TOKEN, end - timedelta(seconds=1))
    with pytest.raises(AccessTokenExpired) as refusal:
        read_access_token(KEYS, TOKEN, end)
    assert 'error="invalid_token"' in refusal.value.challenge
    later = end + timedelta(days=1)
    assert is_refused(signed(HEADER, CLAIMS, STRANGERS_SEED), now=later)
    assert is_refused(signed(HEADER, CLAIMS | {"aud": "urn:commonwatt:another:hub"}), now=later)


def test_a_hub_issues_nothing_that_lives_longer_than_a_quarter_of_an_hour():
    with pytest.raises(AssertionError):
        issue_access_token(KEYS, MEMBER_ID, SESSION_ID, [], NOW, NOW + timedelta(minutes=16))


# ---- RFC 8725: what a forger tries with the header


def _hmac_token(secret: bytes, algorithm: str = "HS256", **header: object) -> str:
    content = f"{b64(written(HEADER | {'alg': algorithm} | header).encode())}.{b64(written(CLAIMS).encode())}"
    return f"{content}.{b64(hmac.new(secret, content.encode(), hashlib.sha256).digest())}"


def _public_pem() -> bytes:
    der = bytes.fromhex("302a300506032b6570032100") + public_bytes(SEED)
    return b"-----BEGIN PUBLIC KEY-----\n" + base64.encodebytes(der) + b"-----END PUBLIC KEY-----\n"


def test_the_library_itself_would_take_the_public_key_for_a_secret():
    """So that the next test proves something: this forgery works where the algorithm is the token's to choose."""
    forged = _hmac_token(public_bytes(SEED))
    assert jwt.decode(
        forged, public_bytes(SEED), algorithms=["HS256"], audience=AUDIENCE, options={"verify_exp": False}
    )


@pytest.mark.parametrize(
    "token",
    [
        _hmac_token(public_bytes(SEED)),
        _hmac_token(_public_pem()),
        _hmac_token(b64(public_bytes(SEED)).encode()),
        _hmac_token(json.dumps(KEYS.jwks["keys"][0]).encode()),
        _hmac_token(b""),
        *(
            f"{b64(written(HEADER | {'alg': alg}).encode())}.{b64(written(CLAIMS).encode())}."
            for alg in ("none", "None", "")
        ),
        *(
            signed(HEADER | {"alg": alg}, CLAIMS)
            for alg in ("none", "NONE", "Ed25519", "eddsa", "ES256", "RS256", "", None, 7)
        ),
        f"{TOKEN.rsplit('.', 1)[0]}.",
        TOKEN.rsplit(".", 1)[0],
    ],
)
def test_the_token_does_not_choose_its_algorithm(token):
    assert is_refused(token)


STRANGERS_JWK = {"kty": "OKP", "crv": "Ed25519", "x": b64(public_bytes(STRANGERS_SEED))}
STRANGERS_KID = TokenKeys(ISSUER, AUDIENCE, STRANGERS_SEED).key_id


@pytest.mark.parametrize(
    "header",
    [
        HEADER,
        HEADER | {"kid": STRANGERS_KID},
        HEADER | {"jwk": STRANGERS_JWK},
        HEADER | {"kid": STRANGERS_KID, "jwk": STRANGERS_JWK},
        HEADER | {"jku": "https://thief.example/jwks.json", "kid": STRANGERS_KID},
        HEADER | {"x5u": "https://thief.example/chain.pem"},
        HEADER | {"x5c": ["MIIB"]},
        HEADER | {"kid": "../../../dev/null"},
        HEADER | {"kid": ""},
        HEADER | {"kid": None},
        HEADER | {"kid": [KEYS.key_id]},
        {"alg": "EdDSA", "typ": "at+jwt"},
    ],
)
def test_a_strangers_key_signs_nothing_wherever_the_header_says_it_is(header):
    assert is_refused(signed(header, CLAIMS, STRANGERS_SEED))


@pytest.mark.parametrize(
    "header",
    [
        *(HEADER | {"typ": typ} for typ in ("JWT", "jwt", "AT+JWT", "application/at+jwt", "id+jwt", "", None)),
        {"alg": "EdDSA", "kid": KEYS.key_id},
        HEADER | {"crit": ["exp"], "exp": NOW_UNIX_S},
        HEADER | {"crit": []},
        HEADER | {"b64": False, "crit": ["b64"]},
        HEADER | {"b64": True},
        HEADER | {"cty": "JWT"},
        HEADER | {"zip": "DEF"},
        HEADER | {"jku": "https://hub.example/.well-known/jwks.json"},
        HEADER | {"another": 1},
        f'{{"alg":"none","alg":"EdDSA","kid":"{KEYS.key_id}","typ":"at+jwt"}}',
        f'{{"alg":"EdDSA","kid":"{STRANGERS_KID}","kid":"{KEYS.key_id}","typ":"at+jwt"}}',
        f'{{"kid":"{KEYS.key_id}","alg":"EdDSA","typ":"at+jwt"}}',
        f'{{"alg": "EdDSA", "kid": "{KEYS.key_id}", "typ": "at+jwt"}}',
        "[]",
        "null",
        "",
        "{" * 1_000,
    ],
)
def test_even_with_our_signature_a_header_that_we_do_not_write_is_none(header):
    assert is_refused(signed(header, CLAIMS))


def test_the_signature_is_by_the_key_that_the_header_names():
    assert is_refused(signed(HEADER, CLAIMS, RETIRED_SEED))
    retired = TokenKeys(ISSUER, AUDIENCE, RETIRED_SEED)
    assert is_refused(signed(HEADER | {"kid": retired.key_id}, CLAIMS, SEED))


# ---- what a forger tries with the bytes


def test_no_character_of_a_token_can_be_another():
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    for place, letter in enumerate(TOKEN):
        for other in (alphabet[(alphabet.find(letter) + 1) % 64], ".", "="):
            if other != letter:
                assert is_refused(TOKEN[:place] + other + TOKEN[place + 1 :]), place


def test_the_last_character_carries_no_spare_bits():
    others = [TOKEN[:-1] + letter for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"]
    assert [token for token in others if not is_refused(token)] == [TOKEN]


@pytest.mark.parametrize(
    "token",
    [
        "",
        ".",
        "..",
        "a.b.c",
        TOKEN + "=",
        TOKEN + "\n",
        TOKEN + " ",
        " " + TOKEN,
        TOKEN + ".",
        "." + TOKEN,
        TOKEN + "." + TOKEN.rsplit(".", 1)[1],
        TOKEN.replace(".", "=.", 1),
        TOKEN.replace(".", "..", 1),
        TOKEN.replace("-", "+").replace("_", "/") + "+",
        "ä" * 100,
        "\ud800",
        "\x00",
        TOKEN * 4,
        signed(HEADER, CLAIMS | {"roles": ["x" * 3_000]}),
        json.dumps(
            {"payload": TOKEN.split(".")[1], "protected": TOKEN.split(".")[0], "signature": TOKEN.split(".")[2]}
        ),
    ],
)
def test_what_is_no_compact_token_is_refused(token):
    assert is_refused(token)


@given(st.text(max_size=300) | st.lists(st.binary(max_size=80).map(b64), max_size=5).map(".".join))
def test_any_text_at_all_is_refused_and_never_breaks_the_reader(text):
    assert is_refused(text)


@given(st.data())
def test_a_token_of_ours_that_was_cut_and_glued_is_refused(data):
    parts = TOKEN.split(".")
    part = data.draw(st.integers(0, 2))
    begin, end = sorted(data.draw(st.tuples(*[st.integers(0, len(parts[part]))] * 2)))
    parts[part] = parts[part][:begin] + data.draw(st.text("AZaz09-_", max_size=4)) + parts[part][end:]
    token = ".".join(parts)
    assert token == TOKEN or is_refused(token)


# ---- what is in it


def _without(claim: str) -> dict[str, object]:
    return {name: value for name, value in CLAIMS.items() if name != claim}


@pytest.mark.parametrize(
    "claims",
    [
        *(_without(claim) for claim in CLAIMS if claim != "roles"),
        *(CLAIMS | {"iss": value} for value in ("https://hub.example/", "https://thief.example", "", None, [ISSUER])),
        *(CLAIMS | {"aud": value} for value in ("urn:commonwatt:another:hub", AUDIENCE + " ", [AUDIENCE], [], None)),
        CLAIMS | {"client_id": "another"},
        *(
            CLAIMS | {name: value}
            for name in ("sub", "sid")
            for value in (
                "",
                "1",
                f"{{{MEMBER_ID}}}",
                f"urn:uuid:{MEMBER_ID}",
                MEMBER_ID.hex,
                1,
                None,
                [str(MEMBER_ID)],
            )
        ),
        *(CLAIMS | {"jti": value} for value in ("", 1, None)),
        *(
            CLAIMS | {"exp": value}
            for value in (None, "", str(NOW_UNIX_S + 600), NOW_UNIX_S + 600.0, True, -1, 0, 10**30)
        ),
        *(CLAIMS | {"iat": value} for value in (None, "", str(NOW_UNIX_S), float(NOW_UNIX_S), False, -1, 0, 10**30)),
        CLAIMS | {"exp": NOW_UNIX_S + 901},
        CLAIMS | {"exp": 4_000_000_000},
        CLAIMS | {"iat": NOW_UNIX_S + 61},
        CLAIMS | {"iat": NOW_UNIX_S + 601, "exp": NOW_UNIX_S + 600},
        CLAIMS | {"nbf": NOW_UNIX_S + 61},
        CLAIMS | {"nbf": "soon"},
        CLAIMS | {"nbf": None},
        [],
        "null",
        '"text"',
        "",
        "{",
        written(CLAIMS).replace("}", ',"a":NaN}'),
        written(CLAIMS).replace("}", ',"a":-Infinity}'),
        *(written(CLAIMS)[:-1] + f',"{name}":{written(json.dumps(CLAIMS[name]))}}}' for name in CLAIMS),
        '{"sub":"' + str(UUID(int=9)) + '",' + written(CLAIMS)[1:],
    ],
)
def test_even_with_our_signature_claims_that_are_not_of_a_token_for_us_are_refused(claims):
    assert is_refused(signed(HEADER, claims))


def test_a_clock_may_be_a_minute_ahead_and_a_later_hub_may_say_more():
    ahead = int(CLOCK_SKEW_MAX.total_seconds())
    assert not is_refused(signed(HEADER, CLAIMS | {"iat": NOW_UNIX_S + ahead, "nbf": NOW_UNIX_S + ahead}))
    assert not is_refused(signed(HEADER, CLAIMS | {"amr": ["pwd"]}))


# ---- keys


def test_a_retired_key_verifies_until_it_is_taken_away_and_never_signs():
    before = TokenKeys(ISSUER, AUDIENCE, RETIRED_SEED)
    token = issue_access_token(before, MEMBER_ID, SESSION_ID, [], NOW, NOW + ACCESS_LIFE)
    assert not is_refused(token)
    assert is_refused(token, TokenKeys(ISSUER, AUDIENCE, SEED))
    assert json.loads(unb64(TOKEN.split(".")[0]))["kid"] == KEYS.key_id != before.key_id


def test_a_key_that_is_named_twice_is_one_key():
    assert len(TokenKeys(ISSUER, AUDIENCE, SEED, [SEED, RETIRED_SEED]).jwks["keys"]) == 2


def test_the_id_of_a_key_is_its_thumbprint_as_rfc_8037_computes_it():
    seed = unb64("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A")
    [key] = TokenKeys(ISSUER, AUDIENCE, seed).jwks["keys"]
    assert key["x"] == "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
    assert key["kid"] == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


def test_published_keys_are_public_and_complete():
    assert [key["kid"] for key in KEYS.jwks["keys"]] == [
        KEYS.key_id,
        TokenKeys(ISSUER, AUDIENCE, RETIRED_SEED).key_id,
    ]
    for key, seed in zip(KEYS.jwks["keys"], (SEED, RETIRED_SEED), strict=True):
        assert key.keys() == {"kty", "crv", "x", "kid", "alg", "use"}
        assert (key["kty"], key["crv"], key["alg"], key["use"]) == ("OKP", "Ed25519", "EdDSA", "sig")
        assert unb64(key["x"]) == public_bytes(seed)


def test_another_library_verifies_a_token_by_the_published_keys():
    """libsodium, by hand: what is signed is the text before the last dot."""
    content, signature = TOKEN.rsplit(".", 1)
    [key] = [key for key in KEYS.jwks["keys"] if key["kid"] == json.loads(unb64(TOKEN.split(".")[0]))["kid"]]
    VerifyKey(unb64(key["x"])).verify(content.encode(), unb64(signature))


JUDGE = """
const { jwks, tokens } = JSON.parse(require("node:fs").readFileSync(0, "utf8"));
const decoded = (part) => Buffer.from(part, "base64url");
async function judge(token) {
  const [header, claims, signature] = token.split(".");
  const { alg, kid, typ } = JSON.parse(decoded(header));
  if (alg !== "EdDSA" || typ !== "at+jwt") return null;
  const jwk = jwks.keys.find((key) => key.kid === kid);
  const key = await crypto.subtle.importKey("jwk", jwk, { name: "Ed25519" }, false, ["verify"]);
  const content = new TextEncoder().encode(`${header}.${claims}`);
  const good = await crypto.subtle.verify({ name: "Ed25519" }, key, decoded(signature), content);
  return good ? JSON.parse(decoded(claims)) : null;
}
Promise.all(tokens.map(judge)).then((answers) => console.log(JSON.stringify(answers)));
"""


def test_a_browsers_web_crypto_verifies_tokens_by_the_published_keys():
    old = issue_access_token(
        TokenKeys(ISSUER, AUDIENCE, RETIRED_SEED), MEMBER_ID, SESSION_ID, [], NOW, NOW + ACCESS_LIFE
    )
    tampered = f"{TOKEN.split('.')[0]}.{b64(written(CLAIMS).encode())}.{TOKEN.split('.')[2]}"
    question = json.dumps({"jwks": KEYS.jwks, "tokens": [TOKEN, old, tampered]})
    answer = subprocess.run([NODE, "-e", JUDGE], input=question, capture_output=True, text=True, timeout=60, check=True)
    current, retired, none = json.loads(answer.stdout)
    assert (current["sub"], current["sid"], current["roles"]) == (
        str(MEMBER_ID),
        str(SESSION_ID),
        ["admin", "consumer"],
    )
    assert (retired["sub"], none) == (str(MEMBER_ID), None)
