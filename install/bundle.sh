# shellcheck shell=bash disable=SC2034,SC2154 # the variables are those of install.sh
# install.sh --bundle: makes an archive with everything that a node without Python needs. Sourced by install.sh.
#
# It is unpacked at a node's `/`:
#   /opt/cni/bin/cni-bridge, cni-ipam   the executables
#   /opt/cni/lib/pycni/pycni            the node's program, see cni_node/__main__.py
#   /opt/cni/lib/pycni/ID/              named after its content: bin/python3, lib/ (standard library), code/

bundle_lib=opt/cni/lib/pycni # below the node's `/`

bundle() {
    trap clean_up EXIT
    make_bundle
    mkdir -p "$(dirname "$bundle")"
    cp "$stage/archive" "$bundle.$$"
    mv -f "$bundle.$$" "$bundle"
    echo "$bundle is made, $(($(stat -c %s "$bundle") / 1024)) KiB; unpack it at a node's / (tar -xzf ${bundle##*/} -C /)"
}

make_bundle() { # $stage/archive; the same sources and the same interpreter give the same bytes
    local tree id name path
    check_python
    require_patchelf
    stage=$(mktemp -d)
    gather_code
    tree=$stage/tree
    "$python" -ISBXutf8 "$here/install/bundle.py" "$stage/code" "$tree" ||
        die "the bundle cannot be made with $python"
    link_code "" "$tree/code/linked"
    (cd "$tree" && find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum) >"$stage/sums"
    mv "$stage/sums" "$tree/$mark"
    id=$(sha256sum "$tree/$mark" | cut -c1-16)
    mkdir -p "$stage/root/opt/cni/bin" "$stage/root/$bundle_lib"
    for name in "${executables[@]}"; do
        python=$tree/bin/python3 executable_text "$name" "$tree/code" >"$stage/$name"
        CNI_COMMAND=VERSION "$tree/bin/python3" -ISBXutf8 "$stage/$name" </dev/null >/dev/null ||
            die "$name does not run with the interpreter of the bundle"
        path=$stage/root/opt/cni/bin/$name
        python=/$bundle_lib/$id/bin/python3 executable_text "$name" "/$bundle_lib/$id/code" >"$path"
    done
    python=/$bundle_lib/$id/bin/python3 launcher_text pycni "/$bundle_lib/$id/code" >"$stage/root/$bundle_lib/pycni"
    chmod 755 "$stage"/root/opt/cni/bin/* "$stage/root/$bundle_lib/pycni"
    mv "$tree" "$stage/root/$bundle_lib/$id"
    chmod -R u=rwX,go=rX "$stage/root"
    # the executables come last, and no directory that a node has is named: its mode would be changed
    (cd "$stage/root" && tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --format=gnu -cf - \
        "$bundle_lib/$id" "$bundle_lib/pycni" opt/cni/bin/*) | gzip -9n >"$stage/archive"
}

find_bundle() { # set $bundle to an archive: the one that was named, or one made now
    if [ -n "$bundle" ]; then
        [ -f "$bundle" ] || die "no $bundle; make it with: install.sh --bundle $bundle"
    else
        make_bundle
        bundle=$stage/archive
    fi
}

require_patchelf() {
    command -v patchelf >/dev/null && return
    command -v apt-get >/dev/null || die "patchelf is not installed, and --bundle needs it"
    { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends patchelf; } >&2 ||
        die "patchelf cannot be installed; install the package patchelf"
}
