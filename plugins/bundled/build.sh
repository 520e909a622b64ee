#!/usr/bin/env bash
# plugins/bundled/build.sh [--check] [NAME ...]: the bundled policies as components, in plugins/bundled/components/.
#
# Without names, all of them. The same sources and compiler give the same bytes in any folder: paths are remapped, and
# each policy is built by itself, so that features of one do not reach another. digests.toml beside the components has the
# SHA-256 of each, and says which tools made them.
#
# --check builds a copy of the sources in another folder and compares the bytes with the committed components.
set -euo pipefail
cd "$(dirname "$0")/../.."
repository=$PWD
components=$repository/plugins/bundled/components
target=wasm32-unknown-unknown

check=false
if [ "${1:-}" = --check ]; then check=true; shift; fi
all=()
for manifest in plugins/bundled/*/Cargo.toml; do all+=("$(basename "$(dirname "$manifest")")"); done
names=("$@")
[ $# -gt 0 ] || names=("${all[@]}")
for name in "${names[@]}"; do
    [ -e "plugins/bundled/$name/Cargo.toml" ] || { echo "There is no policy $name; there are: ${all[*]}." >&2; exit 2; }
done

RUSTC=$("$repository/sdk/toolchain.sh" --debian)
export RUSTC
linker=$(dirname "$("$RUSTC" --print target-libdir)")/bin
tools="$("$RUSTC" -V); $("$linker/wasm-component-ld" --version); $("$linker/rust-lld" -flavor wasm --version)"

# build FOLDER TARGET_DIR NAME: prints the path of the component.
build() {
    local registry=${CARGO_HOME:-$HOME/.cargo}/registry/src
    local flags=("-Clink-arg=-zstack-size=131072" "--remap-path-prefix=$1=/safelmm")
    local folder
    for folder in "$registry"/*/; do flags+=("--remap-path-prefix=${folder%/}=/registry"); done
    (
        cd "$1"
        CARGO_ENCODED_RUSTFLAGS=$(IFS=$'\x1f'; echo "${flags[*]}") CARGO_TARGET_DIR=$2 \
            cargo build -q --locked --profile policy --target "$target" -p "safelmm-policy-$3" >&2
    )
    echo "$2/$target/policy/safelmm_policy_${3//-/_}.wasm"
}
# Writes into a component what it says of itself, so that this can be read without running it.
safelmm=${SAFELMM:-${CARGO_TARGET_DIR:-$repository/target}/release/safelmm}
describe() {
    [ -x "$safelmm" ] || env -u RUSTC cargo build -q --release --workspace --bin safelmm
    "$safelmm" plugin describe "$1" --write
}
digest() { sha256sum "$1" | cut -d ' ' -f 1; }

if $check; then
    made_by=$(sed -n 's/^# Made by: //p' "$components/digests.toml")
    if [ "$made_by" != "$tools" ]; then
        printf 'The components were made by other tools, so their bytes cannot be compared.\nthere: %s\nhere:  %s\n' \
            "$made_by" "$tools" >&2
        exit 3
    fi
    elsewhere=$(mktemp -d)
    trap 'rm -rf "$elsewhere"' EXIT
    mkdir "$elsewhere/sources"
    git ls-files -z -- '*.toml' '*.rs' '*.wit' Cargo.lock plugins/bundled sdk \
        | tar --null --files-from=- --ignore-failed-read -cf - | tar -xf - -C "$elsewhere/sources"
    wrong=0
    for name in "${names[@]}"; do
        component=$(build "$elsewhere/sources" "$elsewhere/target" "$name")
        describe "$component"
        built=$(digest "$component")
        committed=$(digest "$components/$name.wasm")
        written=$(sed -n "s/^$name = \"sha256:\(.*\)\"$/\1/p" "$components/digests.toml")
        if [ "$built" = "$committed" ] && [ "$built" = "$written" ]; then
            echo "$name: the same"
        else
            echo "$name: built $built, committed $committed, in digests.toml $written"
            wrong=1
        fi
    done
    exit $wrong
fi

mkdir -p "$components"
for name in "${names[@]}"; do
    cp "$(build "$repository" "${CARGO_TARGET_DIR:-$repository/target}/policies" "$name")" "$components/$name.wasm"
    chmod 644 "$components/$name.wasm"
    describe "$components/$name.wasm"
    printf '%-20s %7d bytes\n' "$name" "$(wc -c <"$components/$name.wasm")"
done
{
    echo "# Made by: $tools"
    for name in "${all[@]}"; do
        [ ! -e "$components/$name.wasm" ] || echo "$name = \"sha256:$(digest "$components/$name.wasm")\""
    done
} >"$components/digests.toml"
