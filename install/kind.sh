# shellcheck shell=bash disable=SC2034,SC2154 # the variables are those of install.sh
# install.sh --kind: set up every node of a kind cluster. To be sourced.

kind() {
    trap clean_up EXIT
    [[ " ${further[*]} " == *" --help "* ]] || [[ " ${further[*]} " == *" --dry-run "* ]] || find_bundle
    "$python" -ISB "$here/install/kind.py" --name "$kind" --bundle "${bundle:-pycni.tar.gz}" "${further[@]}"
}
