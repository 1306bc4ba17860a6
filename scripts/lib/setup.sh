# shellcheck shell=bash
# What scripts/* share: the packages, the virtual environment and the installation that they need. To be sourced.
# Nothing is fetched that is there already, so a second run starts at once and needs no network.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
python=/usr/bin/python3 # Debian's own: the plugins are installed for it, so they are tested with it
venv=$root/.venv
me=scripts/$(basename "$0")
scratch=''

say() { printf '==> %s\n' "$*"; }

die() {
    printf '%s: %s\n' "$me" "$*" >&2
    exit 1
}

require_root() {
    [ "$(id -u)" -eq 0 ] || die "needs root, for network namespaces; call it as: sudo $me"
}

require_packages() { # have these Debian packages installed
    local name missing=()
    for name in "$@"; do
        [ "$(dpkg-query --show --showformat '${db:Status-Status}' "$name" 2>/dev/null)" = installed ] || missing+=("$name")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    [ "$(id -u)" -eq 0 ] || die "these Debian packages are missing: ${missing[*]}; call it once as: sudo $me"
    say "apt-get install ${missing[*]}"
    # no daemon of theirs is started: docker's would change the machine's network
    [ -e /usr/sbin/policy-rc.d ] || {
        printf '#!/bin/sh\nexit 101\n' >"$scratch/policy-rc.d"
        install -m 755 "$scratch/policy-rc.d" /usr/sbin/policy-rc.d
        trap 'rm -rf "$scratch" /usr/sbin/policy-rc.d' EXIT
    }
    {
        apt-get update &&
            DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "${missing[@]}"
    } >"$scratch/apt.log" 2>&1 </dev/null || {
        tail -n 20 "$scratch/apt.log" >&2
        die "the packages cannot be installed"
    }
}

require_venv() { # a virtual environment with what setup.cfg asks for: the dependency, and the extras test and lint
    local wanted
    wanted=$("$python" - "$root/setup.cfg" <<'PYTHON'
import configparser
import sys

config = configparser.ConfigParser(interpolation=None)
config.read(sys.argv[1])
extras = config["options.extras_require"]
print("\n".join(line for text in (config["options"]["install_requires"], extras["test"], extras["lint"])
                for line in text.split("\n") if line))
PYTHON
    )
    if [ "$wanted" = "$(cat "$venv/wanted" 2>/dev/null)" ] && "$venv/bin/python" -c '' 2>/dev/null; then
        return
    fi
    require_packages python3-venv
    say "a virtual environment in $venv with ${wanted//$'\n'/, }"
    rm -rf "$venv"
    "$python" -m venv "$venv"
    printf '%s\n' "$wanted" >"$scratch/requirements"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$scratch/requirements"
    printf '%s\n' "$wanted" >"$venv/wanted" # last: one that was broken off is made anew
}

install_plugins() { # the plugins of this checkout into a directory that goes with the script; sets PYCNI_BIN
    local options=(--bin-dir "$scratch/bin" --lib-dir "$scratch/lib" "$@")
    say "install.sh ${options[*]}"
    chmod 755 "$scratch"
    PYTHON=$python "$root/install.sh" "${options[@]}" >"$scratch/install.log" 2>&1 || {
        cat "$scratch/install.log" >&2
        die "the plugins cannot be installed"
    }
    export PYCNI_BIN=$scratch/bin
}

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$root" || die "no directory $root"
