"""Whether a register is believed: meters say zero while they start, and now and then plain nonsense.

Pure. What is believed once is sealed and stays for ever, so the rules lean one way: energy may come later, or
need a person, but it is never invented.

- A rise beyond what the home can draw is refused, and so is every later value as high: waiting proves nothing.
- A fall is believed when it has lasted RESET_CONFIRM_S over RESET_READINGS_MIN readings, and only if it is one that
  meters make: a wrap, if the register can wrap and was about to; or a reset, which begins again near zero and adds
  nothing. A fall to anywhere else is another meter, nonsense, or the end of a rise that never was: it is refused until
  the register has passed the value it had, which loses nothing and counts nothing twice, or until a person accepts it.
- A register that returns within a day to where it was before a reset had not been reset: the rebase is undone, so
  that all that is ever counted is the difference of its true values.
"""

from dataclasses import dataclass, replace

REGISTER_FELL = "register_fell"
REGISTER_JUMPED = "register_jumped"
RESET_CONFIRM_S = 600
RESET_READINGS_MIN = 3
RETURN_MAX_S = 86_400
"""A register that returns later than this is judged like any other: a reset must not open a door for nonsense."""
WRAP_MARGIN = 10
"""A fall is a wrap only from the last tenth of the range into the first; otherwise it is a reset."""
RESET_MARGIN = 10
"""A reset begins below a tenth of where the register was."""
JUMP_ALLOWANCE_WH = 1_000
"""What a register may rise at once beside power × time: coarse registers step, and clocks have seconds."""
SECONDS_PER_HOUR = 3_600


@dataclass(frozen=True)
class Fall:
    """A fall that is not believed yet: since when, to what, and in how many readings it was seen."""

    since_unix_s: int
    to_wh: int
    readings: int


@dataclass(frozen=True)
class Rebase:
    """What a register was before a fall that is believed, and the value from which it went on."""

    before_wh: int
    before_offset_wh: int
    before_unix_s: int
    after_wh: int


@dataclass(frozen=True)
class RegisterState:
    """A register's last believed value, what to add to it so that it has been continuous since enrolment, and
    what was seen of it that is not believed: the lowest value refused as a jump, and a fall."""

    last_wh: int
    offset_wh: int
    rebase: Rebase | None = None
    refused_wh: int | None = None
    fall: Fall | None = None


@dataclass(frozen=True)
class Verdict:
    """The register after a poll; `refused` names why the poll is not believed, and is empty if it is."""

    register: RegisterState
    refused: str = ""
    reset: bool = False
    wrapped: bool = False


def judge_register(
    before: RegisterState,
    now_wh: int,
    modulus_wh: int | None,
    before_unix_s: int,
    now_unix_s: int,
    power_max_w: int,
) -> Verdict:
    """What to think of a register that says `now_wh`, when it was last believed at `before_unix_s`."""
    if before.rebase is not None and now_unix_s - before.rebase.before_unix_s > RETURN_MAX_S:
        before = replace(before, rebase=None)
    if now_wh < before.last_wh:
        return _judge_fall(before, now_wh, modulus_wh, before_unix_s, now_unix_s, power_max_w)
    rebase, refused_wh = before.rebase, before.refused_wh
    rise_wh, since_unix_s, offset_wh = now_wh - before.last_wh, before_unix_s, before.offset_wh
    if rebase is not None and now_wh >= rebase.before_wh:
        grown = before.last_wh > rebase.after_wh
        if not grown or rise_wh > _possible_wh(now_unix_s - before_unix_s, power_max_w):
            rise_wh, since_unix_s = now_wh - rebase.before_wh, rebase.before_unix_s
            offset_wh = rebase.before_offset_wh
            if refused_wh is not None and refused_wh < rebase.before_wh:
                refused_wh = None  # it was refused as a jump of the register that was not
        rebase = None  # undone, or outgrown
    refused = refused_wh is not None and now_wh >= refused_wh
    if refused or rise_wh > _possible_wh(now_unix_s - since_unix_s, power_max_w):
        lowest_wh = now_wh if refused_wh is None else min(now_wh, refused_wh)
        return Verdict(replace(before, refused_wh=lowest_wh, fall=None), REGISTER_JUMPED)
    return Verdict(RegisterState(now_wh, offset_wh, rebase))


def shifted(register: RegisterState, by_s: int) -> RegisterState:
    """The register, its remembered instants told by a clock that has been set by so many seconds since."""
    fall, rebase = register.fall, register.rebase
    return replace(
        register,
        fall=fall and replace(fall, since_unix_s=fall.since_unix_s + by_s),
        rebase=rebase and replace(rebase, before_unix_s=rebase.before_unix_s + by_s),
    )


def rebased(before: RegisterState, now_wh: int) -> RegisterState:
    """The register going on from `now_wh`, with nothing added."""
    return RegisterState(now_wh, before.offset_wh + before.last_wh - now_wh)


def _judge_fall(
    before: RegisterState,
    now_wh: int,
    modulus_wh: int | None,
    before_unix_s: int,
    now_unix_s: int,
    power_max_w: int,
) -> Verdict:
    fall = before.fall
    if fall is None or not _goes_on(fall, now_wh, now_unix_s, power_max_w):
        fall = Fall(now_unix_s, now_wh, 0)
    fall = replace(fall, readings=fall.readings + 1)
    if now_unix_s - fall.since_unix_s < RESET_CONFIRM_S or fall.readings < RESET_READINGS_MIN:
        return Verdict(replace(before, fall=fall), REGISTER_FELL)
    possible_wh = _possible_wh(now_unix_s - before_unix_s, power_max_w)
    wraps = modulus_wh is not None and _wrapped(before.last_wh, now_wh, modulus_wh, possible_wh)
    if not wraps and not _begins_again(before.last_wh, fall, before_unix_s, power_max_w):
        return Verdict(replace(before, fall=fall), REGISTER_FELL)
    rebase = before.rebase
    if rebase is None or before.last_wh > rebase.after_wh:
        rebase = Rebase(before.last_wh, before.offset_wh, before_unix_s, now_wh)
    rebase = replace(rebase, after_wh=now_wh)
    if modulus_wh is not None and wraps:
        return Verdict(RegisterState(now_wh, before.offset_wh + modulus_wh, rebase), wrapped=True)
    return Verdict(replace(rebased(before, now_wh), rebase=rebase), reset=True)


def _goes_on(fall: Fall, now_wh: int, now_unix_s: int, power_max_w: int) -> bool:
    elapsed_s = now_unix_s - fall.since_unix_s
    return elapsed_s >= 0 and 0 <= now_wh - fall.to_wh <= _possible_wh(elapsed_s, power_max_w)


def _begins_again(before_wh: int, fall: Fall, before_unix_s: int, power_max_w: int) -> bool:
    """Whether the fall went to where a register that started from zero meanwhile can be."""
    possible_wh = _possible_wh(fall.since_unix_s - before_unix_s, power_max_w)
    return fall.to_wh * RESET_MARGIN < before_wh and fall.to_wh <= possible_wh


def _wrapped(before_wh: int, now_wh: int, modulus_wh: int, possible_wh: int) -> bool:
    margin_wh = modulus_wh // WRAP_MARGIN
    near = modulus_wh - margin_wh <= before_wh < modulus_wh and now_wh < margin_wh
    return near and modulus_wh - before_wh + now_wh <= possible_wh


def _possible_wh(elapsed_s: int, power_max_w: int) -> int:
    return power_max_w * max(0, elapsed_s) // SECONDS_PER_HOUR + JUMP_ALLOWANCE_WH
