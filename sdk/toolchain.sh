#!/usr/bin/env bash
# sdk/toolchain.sh [DIR]: a Rust compiler for policies (wasm32-unknown-unknown), without root.
#
# Prints the path of a rustc: RUSTC=$(sdk/toolchain.sh) cargo build --release --target wasm32-unknown-unknown
#
# Where rustup has the target (`rustup target add wasm32-unknown-unknown`), that is the compiler in use already. Elsewhere
# one is put together in DIR from Debian's packages (rustc-web and the sources of its standard library, which is built
# here once) and the linker of the Rust toolchain in use: about three minutes, 1 GB. DIR is
# $SAFELMM_WASM_TOOLCHAIN, or safelmm/wasm-toolchain in the user's cache, unless it is named. With `--debian` first, it
# is put together even where rustup has the target: components have the same bytes only if one compiler made them.
set -euo pipefail

debian=false
if [ "${1:-}" = --debian ]; then debian=true; shift; fi
dir=$(realpath -m "${1:-${SAFELMM_WASM_TOOLCHAIN:-${XDG_CACHE_HOME:-$HOME/.cache}/safelmm/wasm-toolchain}}")
target=wasm32-unknown-unknown
say() { echo "toolchain: $*" >&2; }
fail() { say "$*"; exit 1; }

command -v rustc >/dev/null && command -v cargo >/dev/null || fail "rustc and cargo are not on the path: install Rust 1.90 or newer."
if ! $debian && compgen -G "$(rustc --print sysroot)/lib/rustlib/$target/lib/libstd-*.rlib" >/dev/null; then
    command -v rustc
    exit
fi
if [ -x "$dir/rustc" ] && [ -e "$dir/complete" ] && "$dir/rustc" -V >/dev/null 2>&1; then
    echo "$dir/rustc"
    exit
fi

host=$(rustc -vV | sed -n 's/^host: //p')
linker=$(rustc --print sysroot)/lib/rustlib/$host/bin
for tool in rust-lld wasm-component-ld; do
    [ -x "$linker/$tool" ] || fail "$linker/$tool is missing: a Rust toolchain of rustup 1.82 or newer brings it."
done
for tool in apt-get apt-cache dpkg-deb; do
    command -v "$tool" >/dev/null || fail "$tool is missing: without it, \`rustup target add $target\` is the way."
done
depends() { apt-cache depends "$1" 2>/dev/null | sed -n "s/.*Depends: \($2[^ ]*\)$/\1/p" | head -n 1; }
std=$(depends libstd-rust-web-dev libstd-rust-web-)
[ -n "$std" ] || fail "apt knows no libstd-rust-web-dev: run \`apt-get update\` as root, or use Debian 12 or newer."
llvm=$(depends "$std" libllvm)

say "downloading Debian's packages into $dir"
root=$dir/root
rm -rf "$dir/complete" "$root" "$dir/packages"
mkdir -p "$root" "$dir/packages"
(cd "$dir/packages" && apt-get download -qq rustc-web libstd-rust-web-dev rust-web-src "$std" ${llvm:+"$llvm"} >&2)
for package in "$dir"/packages/*.deb; do
    case $(basename "$package") in
    rust-web-src_*) dpkg-deb --fsys-tarfile "$package" \
        | tar -x -C "$root" --wildcards './usr/src/rustc-*/library' ./usr/lib/rustlib/src ;;
    *) dpkg-deb -x "$package" "$root" ;;
    esac
done
mkdir -p "$root/usr/lib/rustlib/$host/bin"
ln -sf "$linker"/{rust-lld,wasm-component-ld,gcc-ld} "$root/usr/lib/rustlib/$host/bin/"
libraries=$(dirname "$(find "$root/usr/lib" -name 'librustc_driver-*.so' | head -n 1)")
printf '#!/bin/sh\nLD_LIBRARY_PATH=%s exec %s "$@"\n' "$libraries" "$root/usr/bin/rustc" >"$dir/rustc"
chmod +x "$dir/rustc"
"$dir/rustc" -V >&2

# The standard library as an ordinary target of the compiler. The workspace is the root of all its sources, and paths are
# remapped: the same bytes come out wherever DIR is.
say "building the standard library for $target"
mkdir -p "$root/src"
: >"$root/src/lib.rs"
printf '%s\n' '[package]' 'name = "seed"' 'version = "0.0.0"' 'edition = "2021"' '[workspace]' \
    '[profile.release]' 'panic = "abort"' >"$root/Cargo.toml"
sources=$(realpath "$root"/usr/src/rustc-*/library)
(
    cd "$root"
    flags=(-Cembed-bitcode=yes "--remap-path-prefix=$root/usr/lib/rustlib/src/rust/library=/rust/library"
        "--remap-path-prefix=$sources=/rust/library" "--remap-path-prefix=$root=/rust"
        "--remap-path-prefix=$(echo "${CARGO_HOME:-$HOME/.cargo}"/registry/src)=/registry")
    RUSTC_BOOTSTRAP=1 RUSTC=$dir/rustc CARGO_ENCODED_RUSTFLAGS=$(IFS=$'\x1f'; echo "${flags[*]}") \
        CARGO_TARGET_DIR=$root/target cargo build -q --release --target "$target" -Zbuild-std=std,panic_abort >&2
)
library=$root/usr/lib/rustlib/$target/lib
mkdir -p "$library"
cp "$root/target/$target"/release/deps/*.rlib "$library/"
rm -rf "$library"/libseed* "$root"/{target,src,Cargo.toml,Cargo.lock} "$root/usr/src" "$dir/packages"
touch "$dir/complete"
echo "$dir/rustc"
