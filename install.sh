#!/usr/bin/env bash
# Puts the plugins cni-bridge and cni-ipam on this host, from the checkout that this script stands in.
#
# The code goes into a directory of its own below --lib-dir, named after its content and never changed afterwards; the
# executables name that directory and are put in place by rename. So a runtime sees the old plugin or the new one,
# whole, and a call that is running keeps the code that it began with.
set -euo pipefail
umask 022

usage() {
    cat <<'EOF'
usage: sudo ./install.sh [options]

  --bin-dir DIR    where the runtime looks for plugins                [/opt/cni/bin]
  --lib-dir DIR    where the code goes                                [/opt/cni/lib/pycni]
  --conf FILE      also put this network configuration in place
  --conf-dir DIR   where the runtime looks for configurations         [/etc/cni/net.d]
  --warm           also the warm service, which answers faster: pycni-warm in the --lib-dir, and its systemd units
  --unit-dir DIR   where systemd looks for units                      [/etc/systemd/system]
  --wheel-dir DIR  take pyroute2 from a wheel in DIR, not from the package index (hosts without a network)
  --uninstall      remove what an installation with the same directories put there
  --help           this text

For nodes without Python, and for clusters (docs/cluster.md):

  --bundle FILE    make an archive that brings a node everything, interpreter included; nothing is installed
  --node ...       put the bundle on this machine and set it up as a node of a cluster; --node --help has its options
  --kind NAME ...  do that on every node of a kind cluster; --kind NAME --help has its options
  --root DIR       with --node: the node's root directory            [/]

With --node and --kind, --bundle names an archive that was made before; without it one is made on the spot.

Needs Python 3.11 or later; $PYTHON names another one than /usr/bin/python3.
EOF
}

die() {
    echo "install.sh: $*" >&2
    exit 1
}

here=$(cd "$(dirname "$0")" && pwd)
bin_dir=/opt/cni/bin lib_dir=/opt/cni/lib/pycni conf_dir=/etc/cni/net.d conf='' wheel_dir='' action=install
bundle='' root='' kind='' further=() # of --bundle, --node and --kind
unit_dir=/etc/systemd/system warm=''
python=${PYTHON:-/usr/bin/python3}
executables=(cni-bridge cni-ipam)
packages=(cni_protocol cni_kernel cni_bridge cni_ipam cni_warm cni_node)
units=(pycni-warm.socket pycni-warm.service)
mark=.put-here-by-pycni # in a directory of code, with its checksums: only what carries it is ever removed

while [ $# -gt 0 ]; do
    case $1 in
    --bin-dir | --lib-dir | --conf | --conf-dir | --unit-dir | --wheel-dir | --bundle | --root | --kind)
        [ -n "${2:-}" ] || die "$1 needs a value"
        name=${1#--}
        printf -v "${name//-/_}" '%s' "$2"
        shift 2
        ;;
    --uninstall) action=uninstall && shift ;;
    --node) action=node && shift ;;
    --warm) warm=1 && shift ;;
    --help)
        [ "$action$kind" != install ] || { usage && exit 0; }
        further+=("$1") && shift
        ;;
    *)
        if [ "$action" != node ] && [ -z "$kind" ]; then
            usage >&2
            die "unknown option $1"
        fi
        further+=("$1") && shift # options of the node's own program, which judges them
        ;;
    esac
done
[ -z "$kind" ] || action=kind
[ -z "$bundle" ] || [ "$action" != install ] || action=bundle

absolute() { case $1 in /*) printf '%s' "$1" ;; *) printf '%s/%s' "$PWD" "$1" ;; esac }
bin_dir=$(absolute "$bin_dir") lib_dir=$(absolute "$lib_dir") conf_dir=$(absolute "$conf_dir")
unit_dir=$(absolute "$unit_dir")
manifest=$lib_dir/manifest # what --uninstall removes: "dir PATH" or "file SHA256 PATH", oldest first

make_dir() { # make a directory and note those that were not there
    [ -d "$1" ] && return
    make_dir "$(dirname "$1")"
    mkdir "$1" || die "cannot make $1; run as root, or choose another directory"
    made_dirs+=("$1")
}

digest() { sha256sum "$1" | cut -d' ' -f1; }

# PATH and content (stdin) with a mode; by rename, so nobody sees half of it
put_file() {
    local path=$1 mode=$2 temporary
    temporary=$(dirname "$path")/.$(basename "$path").$$
    cat >"$temporary"
    chmod "$mode" "$temporary"
    mv -f "$temporary" "$path"
    put_files+=("file $(digest "$path") $path")
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

executable_text() { # NAME CODE_DIR
    cat <<EOF
#!$python -ISBXutf8
# Put here by pycni's install.sh; the code stands in $2.
import posix
import sys

sys.path.insert(0, "$2")
try:
    try:
        posix.lstat("/run/pycni/warm.socket")
    except OSError:  # no warm service, so it is served here
        pass
    else:
        from cni_protocol.warm_client import hand_over

        hand_over("$2", "$1")
    import gc

    gc.disable()  # the process ends before there is anything to collect
    from ${1//-/_}.__main__ import main
except Exception as error:
    sys.exit('{"cniVersion": "1.1.0", "code": 199, "msg": "$1 is not installed whole (%s); run install.sh again"}' % error)
posix._exit(main())  # all is written; taking the interpreter down would take a tenth of the time
EOF
}

warm_executable_text() { # CODE_DIR
    cat <<EOF
#!$python -ISBXutf8
# Put here by pycni's install.sh; the code stands in $1.
import sys

sys.path.insert(0, "$1")
from cni_warm.__main__ import main

sys.exit(main())
EOF
}

unit_text() { # NAME
    echo "# Put here by pycni's install.sh."
    case $1 in
    *.socket)
        cat <<'EOF'
[Unit]
Description=Where pycni's CNI plugins hand over their calls

[Socket]
ListenSequentialPacket=/run/pycni/warm.socket
SocketMode=0600
DirectoryMode=0755
Backlog=128
RemoveOnStop=yes

[Install]
WantedBy=sockets.target
EOF
        ;;
    *.service)
        # KillMode: a call under way is never broken off, the service waits for it. No sandboxing: whoever is not in the
        # runtime's namespaces, or may do less, gets no calls.
        cat <<EOF
[Unit]
Description=Warm service of pycni's CNI plugins
Requires=pycni-warm.socket

[Service]
ExecStart="${lib_dir//%/%%}/pycni-warm"
KillMode=process
EOF
        ;;
    esac
}

systemd_runs() { [ -d /run/systemd/system ]; } # sd_booted(3)

put_warm_service() { # its executable; the units are put there by --warm alone, they do not change with the code
    local unit
    put_file "$lib_dir/pycni-warm" 755 < <(warm_executable_text "$code")
    if [ -n "$warm" ]; then
        make_dir "$unit_dir"
        for unit in "${units[@]}"; do put_file "$unit_dir/$unit" 644 < <(unit_text "$unit"); done
    fi
}

start_warm_service() {
    if ! systemd_runs; then
        echo "install.sh: systemd does not run here; start $lib_dir/pycni-warm by other means, and anew after an update" >&2
        return
    fi
    if [ -n "$warm" ]; then
        systemctl daemon-reload
        systemctl enable --now pycni-warm.socket
    fi
    systemctl try-restart pycni-warm.service # the one that runs has the code of before, and takes no call of the new one
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

build_code() { # the same, byte-compiled
    gather_code
    # unchecked: the directory never changes, so no call has to compare a source file with its .pyc
    "$python" -m compileall -q -j 0 --invalidation-mode unchecked-hash -s "$stage/code" "$stage/code" ||
        die "the code does not compile with $python"
    (cd "$stage/code" && find . -type f -print0 | sort -z | xargs -0 sha256sum) >"$stage/sums"
    mv "$stage/sums" "$stage/code/$mark"
}

put_code() { # unless the same code stands there already, whole
    if [ -e "$code" ]; then
        [ -f "$code/$mark" ] || die "$code is in the way and was not put there by install.sh; remove it"
        (cd "$code" && sha256sum --check --status "$mark" 2>/dev/null) && return
        mv -T "$code" "$stage/damaged"
    fi
    mv -T "$stage/code" "$code"
}

clean_up() { # a directory that was made and got nothing goes again
    local i
    [ -z "$stage" ] || rm -rf "$stage"
    for ((i = ${#made_dirs[@]} - 1; i >= 0; i--)); do rmdir "${made_dirs[i]}" 2>/dev/null || true; done
}

check_python() {
    [ -x "$python" ] || die "no $python; install python3, or name one with PYTHON="
    python=$("$python" -c 'import sys; print(sys.executable)')
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || die "$python is older than 3.11"
}

install() {
    local id code name old
    made_dirs=() put_files=() stage=''
    check_python
    [ -z "$conf" ] || "$python" -m json.tool "$conf" >/dev/null || die "$conf is no JSON"
    trap clean_up EXIT
    make_dir "$lib_dir"
    make_dir "$bin_dir"
    stage=$(mktemp -d "$lib_dir/.stage.XXXXXX")
    build_code
    for name in "${executables[@]}"; do
        executable_text "$name" "$stage/code" >"$stage/$name"
        chmod 755 "$stage/$name"
        CNI_COMMAND=VERSION "$stage/$name" </dev/null >/dev/null || die "$name does not run with $python; nothing was changed"
    done
    warm_executable_text "$stage/code" >"$stage/pycni-warm"
    chmod 755 "$stage/pycni-warm"
    "$stage/pycni-warm" --help >/dev/null || die "pycni-warm does not run with $python; nothing was changed"
    id=$(cd "$stage/code" && find . -name '*.py' -print0 | sort -z | xargs -0 sha256sum | sha256sum | cut -c1-16)
    code=$lib_dir/$id
    put_code
    for name in "${executables[@]}"; do put_file "$bin_dir/$name" 755 < <(executable_text "$name" "$code"); done
    if [ -n "$conf" ]; then
        make_dir "$conf_dir"
        put_file "$conf_dir/$(basename "$conf")" 644 <"$conf"
    fi
    if [ -n "$warm" ] || [ -e "$lib_dir/pycni-warm" ]; then put_warm_service; fi
    write_manifest
    # the code of the installation before this one stays: calls may still be running with it
    touch "$code"
    list_code | tail -n +3 | while read -r old; do rm -rf "$old"; done
    echo "${executables[*]} are in $bin_dir, their code is in $code"
    if [ -e "$lib_dir/pycni-warm" ]; then start_warm_service; fi
}

list_code() { # the directories that carry our mark, newest first
    find "$lib_dir" -mindepth 2 -maxdepth 2 -name "$mark" -printf '%h\n' | xargs -r -d '\n' ls -dt
}

write_manifest() {
    local old=''
    [ ! -f "$manifest" ] || old=$(cat "$manifest")
    {
        [ -z "$old" ] || printf '%s\n' "$old"
        [ ${#made_dirs[@]} -eq 0 ] || printf 'dir %s\n' "${made_dirs[@]}"
        printf '%s\n' "${put_files[@]}"
    } | awk '{ key = $1 == "file" ? substr($0, 71) : $0 } !(key in line) { order[++n] = key } { line[key] = $0 }
             END { for (i = 1; i <= n; i++) print line[order[i]] }' >"$stage/manifest"
    mv -f "$stage/manifest" "$manifest"
}

uninstall() {
    local kind rest path put_there reload=''
    if [ ! -f "$manifest" ]; then
        echo "nothing of pycni is installed in $lib_dir"
        return
    fi
    put_there=$(tac "$manifest")
    if systemd_runs && grep -q '/pycni-warm\.socket$' <<<"$put_there"; then
        reload=1
        systemctl disable --now "${units[@]}" || echo "install.sh: the units of the warm service could not be stopped" >&2
    fi
    while read -r kind rest; do
        path=${rest#* }
        [ "$kind" = file ] && [ -f "$path" ] || continue
        if [ "$(digest "$path")" = "${rest%% *}" ]; then
            rm -f "$path"
        else
            echo "install.sh: $path was changed since and stays" >&2
        fi
    done <<<"$put_there"
    list_code | while read -r path; do rm -rf "$path"; done
    rm -f "$manifest"
    while read -r kind rest; do # newest first; what others use by now is not empty and stays
        [ "$kind" != dir ] || rmdir "$rest" 2>/dev/null || true
    done <<<"$put_there"
    [ -z "$reload" ] || systemctl daemon-reload
    echo "pycni is removed"
}

case $action in bundle | node | kind)
    [ "$bin_dir$lib_dir" = /opt/cni/bin/opt/cni/lib/pycni ] || die "a bundle has its place: no --bin-dir or --lib-dir with it"
    # shellcheck source=scripts/lib/install-bundle.sh
    source "$here/scripts/lib/install-bundle.sh"
    # shellcheck source=scripts/lib/install-node.sh
    source "$here/scripts/lib/install-node.sh"
    # shellcheck source=scripts/lib/install-kind.sh
    source "$here/scripts/lib/install-kind.sh"
    ;;
esac
"$action"
