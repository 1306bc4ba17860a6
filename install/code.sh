# shellcheck shell=bash disable=SC2034,SC2154 # the variables are those of install.sh
# Gathers the code to install out of the checkout, and makes the text of the files that start it. Sourced by install.sh.

executables=(cni-bridge cni-ipam)
launchers=(pycni) # of programs that are no plugins
packages=(cni_protocol cni_kernel cni_bridge cni_ipam cni_node)
mark=.put-here-by-pycni # in a directory of code, with its checksums: only what carries it is ever removed
made_dirs=() stage=''   # what clean_up takes away

template() { # FILE [WORD REPLACEMENT]...: print a file of install/templates with each WORD replaced
    local text
    text=$(<"$here/install/templates/$1")
    shift
    while [ $# -gt 0 ]; do
        text=${text//"$1"/"$2"}
        shift 2
    done
    printf '%s\n' "$text"
}

executable_text() { # NAME CODE_DIR: of a plugin; the two differ only in the plugin's name, see cni_protocol/sibling.py
    template executable cni-bridge "$1" cni_bridge "${1//-/_}" @PYTHON@ "$python" @CODE@ "$2"
}

launcher_text() { # NAME CODE_DIR: of another program
    template "$1" @PYTHON@ "$python" @CODE@ "$2"
}

digest() { sha256sum "$1" | cut -d' ' -f1; }

check_python() {
    [ -x "$python" ] || die "no $python; install python3, or name one with PYTHON="
    python=$("$python" -c 'import sys; print(sys.executable)')
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || die "$python is older than 3.11"
}

fetch_wheel() { # print the path of pyroute2's wheel
    local requirement found
    if [ -n "$wheel_dir" ]; then
        found=$(find "$wheel_dir" -maxdepth 1 -name 'pyroute2-[0-9]*.whl' | sort -V | tail -n 1)
        [ -n "$found" ] || die "no pyroute2-*.whl in $wheel_dir; get one with: pip download --no-deps -d $wheel_dir pyroute2"
        printf '%s' "$found" && return
    fi
    if ! "$python" -m pip --version >/dev/null 2>&1; then
        command -v apt-get >/dev/null || die "$python has no pip; install it, or give --wheel-dir"
        { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3-pip; } >&2 ||
            die "pip cannot be installed; install python3-pip, or give --wheel-dir"
    fi
    requirement=$(sed -n 's/^ *\(pyroute2[<>=].*\)$/\1/p' "$here/setup.cfg")
    "$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
        --dest "$stage/wheel" "$requirement" >&2 || die "pip could not get $requirement; on a host without a network give --wheel-dir"
    find "$stage/wheel" -name '*.whl'
}

gather_code() { # fill $stage/code with the packages and their dependency
    local wheel
    mkdir "$stage/code"
    wheel=$(fetch_wheel)
    "$python" -m zipfile -e "$wheel" "$stage/code"
    rm -rf "$stage"/code/*.data
    (cd "$here" && find "${packages[@]}" -name '*.py' -exec cp --parents -t "$stage/code" {} +)
    chmod -R u=rwX,go=rX "$stage/code"
}

link_code() { # SHOWN TARGET: see install/link.py
    "$python" -ISBXutf8 -Xno_debug_ranges "$here/install/link.py" "$stage/code" "$1" "$2" ||
        die "the code cannot be linked with $python"
}

magic() { "$python" -ISBc 'import importlib.util; print(importlib.util.MAGIC_NUMBER.hex())'; }

clean_up() { # a directory that was made and got nothing goes again
    local i
    [ -z "$stage" ] || rm -rf "$stage"
    for ((i = ${#made_dirs[@]} - 1; i >= 0; i--)); do rmdir "${made_dirs[i]}" 2>/dev/null || true; done
}
