# shellcheck shell=bash disable=SC2154 # the variables are those of install.sh
# install.sh --image: makes a container image out of the bundle. Sourced by install.sh.

image() {
    trap clean_up EXIT
    make_image
    echo "$image is made, $(($(stat -c %s "$image") / 1024)) KiB: pycni:$version, for ctr -n k8s.io images import and the like"
}

make_image() { # $image, out of the bundle
    find_bundle
    version=$(sed -n 's/^version = //p' "$here/setup.cfg")
    mkdir -p "$(dirname "$image")"
    "$python" -ISB "$here/install/image.py" "$bundle" "$version" "$image.$$" || die "the image cannot be made of $bundle"
    mv -f "$image.$$" "$image"
}
