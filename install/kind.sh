# shellcheck shell=bash disable=SC2034,SC2154 # the variables are those of install.sh
# install.sh --kind: the agent on every node of a kind cluster, also on later ones. Sourced by install.sh.
#
# It loads the image onto the nodes with `kind load`, adds the given options of the agent to the manifest conf/pycni.yaml,
# and applies that with `kubectl apply`.

kind() {
    local dry='' arguments=() kubectl=(kubectl --context "kind-$kind") tool
    set -- "${further[@]}"
    while [ $# -gt 0 ]; do
        case $1 in
        --help) kind_usage && exit ;;
        --dry-run) dry=1 && shift ;;
        --mtu=* | --overlay=*) arguments+=("$1") && shift ;;
        --direct) arguments+=("$1") && shift ;;
        --mtu | --overlay) arguments+=("$1=${2:?install.sh: $1 needs a value}") && shift 2 ;;
        *) kind_usage >&2 && die "unknown option $1" ;;
        esac
    done
    for tool in kind kubectl; do
        type -P "$tool" >/dev/null || die "$tool is not in PATH; install it first"
    done
    trap 'clean_up; rm -f "$loaded"' EXIT
    loaded=''
    if [ -z "$image" ] && [ -z "$dry" ]; then
        loaded=$(mktemp --suffix=.tar)
        image=$loaded
        make_image
    fi
    step command kind load image-archive "${image:-pycni.tar}" --name "$kind"
    step "${kubectl[@]}" apply -f - < <(manifest)
    step "${kubectl[@]}" -n kube-system rollout restart daemonset/pycni # an image of the same name is not noticed
    step "${kubectl[@]}" -n kube-system rollout status daemonset/pycni --timeout=120s
    step "${kubectl[@]}" wait --for=condition=Ready nodes --all --timeout=120s
}

kind_usage() {
    cat <<'TEXT'
usage: install.sh --kind NAME [--image FILE] [--dry-run] [--mtu N] [--overlay vxlan] [--direct]

  --image FILE   an image that was made before; without it one is made on the spot
  --dry-run      print what would be done to the cluster, and do nothing
  --mtu, --overlay, --direct   options of the agent, as pycni agent --help has them
TEXT
}

step() { # COMMAND...: run it, or print it; it has to succeed
    [ "$1" != command ] || [ -z "$dry" ] || shift
    if [ -z "$dry" ]; then
        "$@" || die "this failed: $*"
    else
        echo "$*"
    fi
}

manifest() { # conf/pycni.yaml with the agent's further options
    local each lines=''
    for each in "${arguments[@]}"; do lines+="\\n            - $each"; done
    sed "s|^ *- --source=kubernetes\$|&$lines|" "$here/conf/pycni.yaml"
}
