# shellcheck shell=bash disable=SC2034,SC2154 # the variables are those of install.sh
# install.sh without --bundle and the like: installs the plugins on this host, or removes them. Sourced by install.sh.
#
# The code goes into a directory below --lib-dir that is named after its content and never changed afterwards. The
# executables name that directory and are put in place by rename. So a runtime sees the complete old plugin or the
# complete new one, and a running call keeps the code that it began with.

manifest=$lib_dir/manifest # what --uninstall removes: "dir PATH" or "file SHA256 PATH", oldest first

make_dir() { # make a directory and note those that were not there
    [ -d "$1" ] && return
    make_dir "$(dirname "$1")"
    mkdir "$1" || die "cannot make $1; run as root, or choose another directory"
    made_dirs+=("$1")
}

# PATH and content (stdin) with a mode; by rename, so nobody sees half of it
put_file() {
    local path=$1 mode=$2 temporary
    temporary=$(dirname "$path")/.$(basename "$path").$$
    cat >"$temporary"
    chmod "$mode" "$temporary"
    mv -f "$temporary" "$path"
    put_files+=("file $(digest "$path") $path")
}

build_code() { # the same, byte-compiled and linked
    # unchecked: the directory never changes, so no call has to compare a source file with its .pyc
    "$python" -m compileall -q -j 0 --invalidation-mode unchecked-hash -s "$stage/code" "$stage/code" ||
        die "the code does not compile with $python"
    link_code "$code" "$stage/code/linked"
    (cd "$stage/code" && find . -type f -print0 | sort -z | xargs -0 sha256sum) >"$stage/sums"
    mv "$stage/sums" "$stage/code/$mark"
}

put_code() { # move the code to its place, unless it is there already and complete
    if [ -e "$code" ]; then
        [ -f "$code/$mark" ] || die "$code is in the way and was not put there by install.sh; remove it"
        (cd "$code" && sha256sum --check --status "$mark" 2>/dev/null) && return
        mv -T "$code" "$stage/damaged"
    fi
    mv -T "$stage/code" "$code"
}

install() {
    local id code name old
    put_files=()
    check_python
    [ -z "$conf" ] || "$python" -m json.tool "$conf" >/dev/null || die "$conf is no JSON"
    trap clean_up EXIT
    make_dir "$lib_dir"
    make_dir "$bin_dir"
    stage=$(mktemp -d "$lib_dir/.stage.XXXXXX")
    gather_code
    # of its sources, and of what is compiled: an interpreter that reads that otherwise gets a directory of its own
    id=$(cd "$stage/code" && { find . -name '*.py' -print0 | sort -z | xargs -0 sha256sum && magic; } | sha256sum | cut -c1-16)
    code=$lib_dir/$id
    build_code
    for name in "${executables[@]}"; do
        executable_text "$name" "$stage/code" >"$stage/$name"
        chmod 755 "$stage/$name"
        CNI_COMMAND=VERSION "$stage/$name" </dev/null >/dev/null || die "$name does not run with $python; nothing was changed"
    done
    for name in "${launchers[@]}"; do
        launcher_text "$name" "$stage/code" >"$stage/$name"
        chmod 755 "$stage/$name"
        "$stage/$name" --help >/dev/null || die "$name does not run with $python; nothing was changed"
    done
    "$stage/pycni" manual >"$stage/pycni.1" || die "pycni manual does not run with $python; nothing was changed"
    "$stage/pycni" completion bash >"$stage/pycni.bash" || die "pycni completion does not run; nothing was changed"
    put_code
    put_file "$lib_dir/pycni" 755 < <(launcher_text pycni "$code")
    for name in pycni.1 pycni.bash; do put_file "$lib_dir/$name" 644 <"$stage/$name"; done
    for name in "${executables[@]}"; do put_file "$bin_dir/$name" 755 < <(executable_text "$name" "$code"); done
    if [ -n "$conf" ]; then
        make_dir "$conf_dir"
        put_file "$conf_dir/$(basename "$conf")" 644 <"$conf"
    fi
    write_manifest
    # the code of the installation before this one stays: calls may still be running with it
    touch "$code"
    list_code | tail -n +3 | while read -r old; do rm -rf "$old"; done
    echo "${executables[*]} are in $bin_dir, their code is in $code"
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
    local kind rest path put_there
    if [ ! -f "$manifest" ]; then
        echo "nothing of pycni is installed in $lib_dir"
        return
    fi
    put_there=$(tac "$manifest")
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
    echo "pycni is removed"
}
