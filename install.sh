#!/usr/bin/env bash
# Puts the plugins cni-bridge and cni-ipam on this host, from the checkout that this script stands in.
# The options and what they call; what is then done stands in install/, what is put there in install/templates/.
set -euo pipefail
umask 022

usage() {
    cat <<'EOF'
usage: sudo ./install.sh [options]

  --bin-dir DIR    where the runtime looks for plugins                [/opt/cni/bin]
  --lib-dir DIR    where the code goes                                [/opt/cni/lib/pycni]
  --conf FILE      also put this network configuration in place
  --conf-dir DIR   where the runtime looks for configurations         [/etc/cni/net.d]
  --unit-dir DIR   where systemd looks for units                      [/etc/systemd/system]
  --wheel-dir DIR  take pyroute2 from a wheel in DIR, not from the package index (hosts without a network)
  --uninstall      remove what an installation with the same directories put there
  --help           this text

For nodes without Python, and for clusters (docs/cluster.md):

  --bundle FILE    make an archive that brings a node everything, interpreter included; nothing is installed
  --image FILE     make an image of that bundle, for containers: conf/pycni.yaml runs it; nothing is installed
  --node ...       put the bundle on this machine and set it up with `pycni agent --once`; --node --help has its options.
                   --node --service ...: the agent runs from now on, as a unit of systemd
  --kind NAME ...  the agent on every node of a kind cluster; --kind NAME --help has its options
  --root DIR       with --node: the node's root directory            [/]

With --image, --node and --kind, --bundle names an archive that was made before, with --kind --image likewise; without
it one is made on the spot.

Needs Python 3.11 or later; $PYTHON names another one than /usr/bin/python3.
EOF
}

die() {
    echo "install.sh: $*" >&2
    exit 1
}

here=$(cd "$(dirname "$0")" && pwd)
bin_dir=/opt/cni/bin lib_dir=/opt/cni/lib/pycni conf_dir=/etc/cni/net.d conf='' wheel_dir='' action=install
bundle='' image='' root='' kind='' further=() # of --bundle and what follows it in the usage
unit_dir=/etc/systemd/system
python=${PYTHON:-/usr/bin/python3}

while [ $# -gt 0 ]; do
    case $1 in
    --bin-dir | --lib-dir | --conf | --conf-dir | --unit-dir | --wheel-dir | --bundle | --image | --root | --kind)
        [ -n "${2:-}" ] || die "$1 needs a value"
        name=${1#--}
        printf -v "${name//-/_}" '%s' "$2"
        shift 2
        ;;
    --uninstall) action=uninstall && shift ;;
    --node) action=node && shift ;;
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
[ -z "$image" ] || [ "$action" != install ] || action=image
[ -z "$bundle" ] || [ "$action" != install ] || action=bundle

absolute() { case $1 in /*) printf '%s' "$1" ;; *) printf '%s/%s' "$PWD" "$1" ;; esac }
bin_dir=$(absolute "$bin_dir") lib_dir=$(absolute "$lib_dir") conf_dir=$(absolute "$conf_dir")
unit_dir=$(absolute "$unit_dir")

# shellcheck source=install/code.sh
source "$here/install/code.sh"
case $action in
install | uninstall)
    # shellcheck source=install/put.sh
    source "$here/install/put.sh"
    ;;
*)
    [ "$bin_dir$lib_dir" = /opt/cni/bin/opt/cni/lib/pycni ] || die "a bundle has its place: no --bin-dir or --lib-dir with it"
    # shellcheck source=install/bundle.sh
    source "$here/install/bundle.sh"
    # shellcheck source=install/image.sh
    source "$here/install/image.sh"
    # shellcheck source=install/node.sh
    source "$here/install/node.sh"
    # shellcheck source=install/kind.sh
    source "$here/install/kind.sh"
    ;;
esac
"$action"
