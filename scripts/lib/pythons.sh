# shellcheck shell=bash disable=SC2154 # the variables are those of setup.sh
# The quick pure tests, which need neither root nor a kernel: on the Python of the virtual environment, on the real
# modules of the standard library instead of cni_protocol/light, and on newer Pythons. To be sourced after setup.sh.

pure=(tests/cni_protocol tests/cni_kernel tests/cni_bridge tests/cni_ipam tests/cni_node tests/test_sources.py tests/test_tests.py)
tree=${PYCNI_PYTHON_TREE:-/var/cache/pycni/python-trixie} # Debian 13 with its Python, for a machine without a newer one

pure_tests() { # COMMAND...: the interpreter to run pytest with; one process more than processors, since many tests wait
    say "pure tests: $* -m pytest"
    "$@" -m pytest -q -m "not kernel and not slow" -p suites.bytecode -p no:cacheprovider --numprocesses "$(($(nproc) + 1))" --dist worksteal "${pure[@]}"
}

newer_pythons() { # print the Pythons after 3.11 that the machine has, one of each version
    local minor each candidates
    for minor in 12 13 14 15; do
        mapfile -t candidates < <(
            type -ap "python3.$minor"
            find "${PYENV_ROOT:-$HOME/.pyenv}/versions" -path "*/3.$minor.*/bin/python3.$minor" 2>/dev/null
        )
        for each in "${candidates[@]}"; do
            if "$each" -c 'import venv, ensurepip' 2>/dev/null; then
                echo "$each"
                break
            fi
        done
    done
}

test_on() { # PYTHON: in a virtual environment of its own
    local name
    name=$("$1" -c 'import sys; print(".venv-%d.%d" % sys.version_info[:2])')
    if [ "$(cat "$root/$name/wanted" 2>/dev/null)" != "$pure_requirements" ]; then
        rm -rf "${root:?}/$name"
        "$1" -m venv "$root/$name"
        # shellcheck disable=SC2086 # words
        "$root/$name/bin/python" -m pip install --quiet --disable-pip-version-check $pure_requirements
        echo "$pure_requirements" >"$root/$name/wanted"
    fi
    pure_tests "$root/$name/bin/python"
}

test_in_tree() { # in Debian 13, which debootstrap makes once
    if [ "$(cat "$tree/opt/wanted" 2>/dev/null)" != "$pure_requirements" ]; then
        require_root
        say "a tree of Debian 13 in $tree"
        rm -rf "$tree"
        mkdir -p "$tree"
        debootstrap --variant=minbase --include=python3,iproute2 trixie "$tree" "$(mirror)" >"$scratch/debootstrap.log" 2>&1 || {
            tail -n 20 "$scratch/debootstrap.log" >&2
            die "Debian 13 cannot be unpacked"
        }
        # shellcheck disable=SC2086 # words
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --target "$tree/usr/local/lib/python3.13/dist-packages" $pure_requirements
        mkdir -p "$tree/checkout"
        echo "$pure_requirements" >"$tree/opt/wanted"
    fi
    unshare --mount --propagation private sh -c '
        mount --bind "$1" "$2/checkout" && mount -t proc proc "$2/proc" && mount --rbind /dev "$2/dev" &&
        mount -t tmpfs tmp "$2/tmp" && shift && tree=$1 && shift &&
        exec chroot "$tree" sh -c "cd /checkout && exec \"\$@\"" sh "$@"' sh "$root" "$tree" \
        python3 -m pytest -q -m "not kernel and not slow" -p suites.bytecode -p no:cacheprovider --numprocesses "$(($(nproc) + 1))" --dist worksteal "${pure[@]}"
}

mirror() { apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -m 1 '/debian/\?$'; }

test_on_newer_pythons() {
    local each found
    pure_requirements=$("$python" - "$root/setup.cfg" <<'PYTHON'
import configparser
import sys

config = configparser.ConfigParser(interpolation=None)
config.read(sys.argv[1])
texts = config["options"]["install_requires"], config["options.extras_require"]["test"]
lines = [line for text in texts for line in text.split("\n") if line]
print(*(line for line in lines if not line.startswith(("grpcio", "protobuf"))))
PYTHON
    )
    mapfile -t found < <(newer_pythons)
    for each in "${found[@]}"; do test_on "$each"; done
    [ ${#found[@]} -gt 0 ] || test_in_tree
}
