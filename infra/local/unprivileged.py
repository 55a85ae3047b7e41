"""As whom PostgreSQL runs: it refuses root, and every user id that has no name in the passwd file.

Where we are one of those it runs as nobody: inside a user namespace, which changes nothing on the machine, or, if
that is forbidden and we are root, by becoming nobody, to whom its directory is then given.
"""

import os
import pwd
import subprocess
from collections.abc import Sequence
from pathlib import Path

from infra.local.processes import LaunchError

NOBODY = "nobody"

_HAS_A_NAME = "id -un"
_FIRST_REFUSED = 'for path; do [ -x "$path" ] || { echo "$path"; exit; }; done'


def find_prefix(directory: Path, programs: Sequence[Path]) -> tuple[str, ...]:
    """The command prefix under which PostgreSQL agrees to run `programs` over `directory`; empty if none is needed.

    May give `directory`, with all in it, to nobody. Raises LaunchError if there is no way.
    """
    user_id = os.geteuid()
    if user_id != 0 and _has_a_name(user_id):
        return ()
    nobody = _nobody()
    namespace = ("unshare", "--user", f"--map-user={nobody.pw_uid}", f"--map-group={nobody.pw_gid}")
    trial = _run(namespace, _HAS_A_NAME)
    if trial.returncode == 0 and directory.stat().st_uid == user_id:
        return namespace
    if user_id != 0:
        reason = trial.stderr.strip() or f"{directory} belongs to somebody else"
        raise LaunchError(
            f"PostgreSQL refuses user id {user_id}, which has no name in the passwd file, and a user namespace is no"
            f" way out ({reason}): start as a user with a name"
        )
    become = ("setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups")
    _refuse_barriers(become, (directory.parent, *programs))
    _give(directory, nobody)
    return become


def _has_a_name(user_id: int) -> bool:
    try:
        pwd.getpwuid(user_id)
    except KeyError:
        return False
    return True


def _nobody() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(NOBODY)
    except KeyError as error:
        raise LaunchError(
            f"PostgreSQL refuses user id {os.geteuid()} and this machine has no user `{NOBODY}` to run it as:"
            " start as another user"
        ) from error


def _refuse_barriers(become: Sequence[str], paths: Sequence[Path]) -> None:
    """Raise LaunchError naming the first directory or program on the way to `paths` that is closed to nobody."""
    way = [step for path in map(Path.resolve, paths) for step in (*reversed(path.parents), path)]
    walk = _run(become, _FIRST_REFUSED, *way)
    if walk.returncode != 0:
        raise LaunchError(f"PostgreSQL refuses to run as root, and we cannot become `{NOBODY}`: {walk.stderr.strip()}")
    barrier = walk.stdout.strip()
    if barrier:
        raise LaunchError(
            f"PostgreSQL refuses to run as root, user namespaces are forbidden here, and `{NOBODY}` may not enter"
            f" {barrier}: start as another user, or from where everybody may pass"
        )


def _give(directory: Path, owner: pwd.struct_passwd) -> None:
    """Make `owner` the owner of a directory and all in it, unless done before. The directory itself is last: while it
    is ours nobody else can have put a link into it, and what is interrupted is done again."""
    if directory.stat().st_uid != owner.pw_uid:
        for path in (*directory.rglob("*"), directory):
            os.chown(path, owner.pw_uid, owner.pw_gid, follow_symlinks=False)


def _run(prefix: Sequence[str], script: str, *arguments: Path) -> "subprocess.CompletedProcess[str]":
    command = [*prefix, "sh", "-c", script, "sh", *map(str, arguments)]
    try:
        return subprocess.run(command, check=False, cwd="/", stdin=subprocess.DEVNULL, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise LaunchError(f"{error.filename} is missing: Commonwatt runs locally on Linux with util-linux") from error
