# shellcheck shell=bash disable=SC2034,SC2154 # the variables are those of install.sh
# install.sh --node: put the bundle in place on this machine, or below --root, and set it up. To be sourced.

node() {
    local lib=${root%/}/$bundle_lib
    unpacked=''
    trap 'clean_up; rm -rf "$unpacked"' EXIT
    [[ " ${further[*]} " != *" --help "* ]] || exec "$python" -ISB "$here/scripts/lib/node.py" --help
    find_bundle
    mkdir -p "$lib" || die "cannot make $lib; run as root, or give another --root"
    unpacked=$(mktemp -d "$lib/.stage.XXXXXX") # beside its place: it gets there by rename
    tar -xzf "$bundle" -C "$unpacked" || die "$bundle cannot be unpacked"
    set -- "$unpacked/$bundle_lib"/*/bin/python3
    "$1" -ISBXutf8 "${1%/bin/python3}/code/node.pyc" \
        --root "${root:-/}" --conf-dir "$conf_dir" "${further[@]}"
}
