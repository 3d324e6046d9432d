"""The programs that a cluster needs, and the Debian packages that they come in."""

import os
import shutil

from harness.errors import UserError

PACKAGES = {
    "slurm-wlm": ("slurmctld", "slurmd", "sbatch", "scontrol", "sinfo", "sacctmgr"),
    "slurmdbd": ("slurmdbd",),
    "munge": ("munged",),
    "mariadb-server": ("mariadbd", "mariadb-install-db", "mariadb-admin"),
}
APT = f"apt-get install {' '.join(PACKAGES)}"


def search_path() -> str:
    """Return PATH with the sbin of each bin: on Debian a user's PATH lacks sbin, where the daemons are."""
    folders = [f for f in os.environ.get("PATH", "").split(os.pathsep) if f]
    folders += [f.rstrip("/")[:-3] + "sbin" for f in folders if f.rstrip("/").endswith("/bin")]
    return os.pathsep.join(dict.fromkeys(folders))


def missing() -> list[str]:
    path = search_path()
    return [name for names in PACKAGES.values() for name in names if shutil.which(name, path=path) is None]


def require() -> None:
    """Check that every program is installed.

    Raises:
        UserError: some are not.
    """
    if absent := missing():
        packages = sorted(package for package, names in PACKAGES.items() if not set(absent).isdisjoint(names))
        raise UserError(
            f"the loopback cluster needs {', '.join(absent)}, not found on PATH "
            f"(Debian: {', '.join(packages)}); as root: {APT}"
        )
