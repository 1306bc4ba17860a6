# shellcheck shell=bash disable=SC2034,SC2154 # the variables are those of install.sh
# install.sh --node: installs the bundle on this machine, or below --root, and sets the node up. Sourced by install.sh.
#
# The remaining options are the agent's. `pycni agent --once` sets the node up with them; with --service a systemd unit
# runs the agent with them instead.

agent_unit=pycni-agent.service

node() {
    local service='' options=() option lib=${root%/}/$bundle_lib
    unpacked=''
    trap 'clean_up; rm -rf "$unpacked"' EXIT
    for option in "${further[@]}"; do
        case $option in
        --help) pycni "$python" "$here" agent --help && exit ;;
        --service) service=1 ;;
        *) options+=("$option") ;;
        esac
    done
    find_bundle
    mkdir -p "$lib" || die "cannot make $lib; run as root, or give another --root"
    unpacked=$(mktemp -d "$lib/.stage.XXXXXX") # beside its place: it gets there by rename
    tar -xzf "$bundle" -C "$unpacked" || die "$bundle cannot be unpacked"
    set -- "$unpacked/$bundle_lib"/*/bin/python3
    pycni "$1" "${1%/bin/python3}/code" install-plugins --root "${root:-/}"
    if [ -n "$service" ]; then
        serve "${options[@]}"
    else
        pycni "$1" "${1%/bin/python3}/code" agent --once --root "${root:-/}" --conf-dir "$conf_dir" "${options[@]}"
    fi
}

pycni() { # PYTHON CODE WORD...: the program of that code
    "$1" -ISBXutf8 -c 'import sys; sys.path.insert(0, sys.argv.pop(1)); from cni_node.__main__ import main; sys.exit(main())' "${@:2}"
}

serve() { # OPTION...: the unit of an agent with these options, running
    local option
    for option in "$@"; do
        [[ $option != *[[:space:]\"\'\\]* ]] || die "$option: an option of a unit has no white space and no quotes"
    done
    mkdir -p "${root%/}$unit_dir" "${root%/}/etc/pycni"
    put "${root%/}/etc/pycni/agent.conf" <<<"PYCNI_AGENT=$*"
    put "${root%/}$unit_dir/$agent_unit" <"$here/conf/$agent_unit"
    if [ -n "$root" ] || [ ! -d /run/systemd/system ]; then # sd_booted(3)
        echo "install.sh: systemd does not run here; start it by other means: /$bundle_lib/pycni agent $*" >&2
        return
    fi
    systemctl daemon-reload
    systemctl enable "$agent_unit"
    systemctl restart "$agent_unit"
}

put() { # PATH, its content on stdin: by rename
    cat >"$(dirname "$1")/.$(basename "$1").$$"
    mv -f "$(dirname "$1")/.$(basename "$1").$$" "$1"
}
