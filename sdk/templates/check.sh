#!/usr/bin/env bash
# sdk/templates/check.sh [LANG ...]: writes a project of each template, as `safelmm plugin new` does, and builds it.
#
# A language whose tools are missing is skipped, and that is said. Components go to $OUT, or to a folder that is removed.
# With $SAFELMM, the path of a `safelmm`, each component is also checked with `safelmm plugin check`.
# With $JCO, what each imports is looked at.
# Tools: $COMPONENTIZE_PY (componentize-py), $JCO (jco, otherwise npm installs it), $CC and $COMPONENT (see c/build.sh).
set -euo pipefail
templates=$(cd "$(dirname "$0")" && pwd)
sdk=$(dirname "$templates")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
out=${OUT:-$work/components}
mkdir -p "$out"
languages=("$@")
[ $# -gt 0 ] || languages=(rust js python c)
skipped=0

# project LANG: the folder of a new project.
project() {
    local folder=$work/example-$1
    cp -R "$templates/$1" "$folder"
    if [ "$1" = rust ]; then
        cp -R "$sdk/plugin/src" "$folder/safelmm-plugin/src"
        cp "$sdk/toolchain.sh" "$folder/"
    else
        cp -R "$sdk/wit" "$folder/wit"
    fi
    find "$folder" -type f -exec sed -i "s/{{name}}/example-$1/g; s/{{snake}}/example_$1/g" {} +
    echo "$folder"
}
skip() {
    echo "$1: skipped, $2"
    skipped=$((skipped + 1))
}
have() { command -v "${1%% *}" >/dev/null 2>&1; }

for language in "${languages[@]}"; do
    cd "$work"
    case $language in
    rust)
        have cargo || { skip rust "there is no cargo"; continue; }
        rustc=$("$sdk/toolchain.sh") || { skip rust "there is no compiler for wasm32"; continue; }
        cd "$(project rust)"
        RUSTC=$rustc CARGO_TARGET_DIR=target cargo build -q --release --target wasm32-unknown-unknown
        cp target/wasm32-unknown-unknown/release/example_rust.wasm "$out/example-rust.wasm"
        ;;
    js)
        have "${JCO:-npm}" || { skip js "there is no npm"; continue; }
        cd "$(project js)"
        if [ -n "${JCO:-}" ]; then
            $JCO componentize app.js --wit wit --world-name policy --backend qjs --backend-qjs-stub-wasi \
                --backend-qjs-disable-async --out example-js.wasm >&2
        else
            npm install --silent && npm run --silent build >&2
        fi
        cp example-js.wasm "$out/"
        ;;
    python)
        componentize=${COMPONENTIZE_PY:-componentize-py}
        have "$componentize" || { skip python "there is no componentize-py: pip install componentize-py"; continue; }
        cd "$(project python)"
        "$componentize" -d wit -w policy componentize --stub-wasi app -o example-python.wasm >&2
        cp example-python.wasm "$out/"
        ;;
    c)
        have wit-bindgen || { skip c "there is no wit-bindgen: cargo install wit-bindgen-cli"; continue; }
        if [ -z "${CC:-}" ] && ! python3 -c 'import ziglang' 2>/dev/null; then
            skip c "there is no C compiler for wasm32: pip install ziglang, or set CC"
            continue
        fi
        cd "$(project c)"
        ./build.sh >&2
        cp example-c.wasm "$out/"
        ;;
    *)
        echo "There is no template $language; there are rust, js, python, c." >&2
        exit 2
        ;;
    esac
    echo "$language: $(wc -c <"$out/example-$language.wasm") bytes"
    if [ -n "${JCO:-}" ] && $JCO wit "$out/example-$language.wasm" | grep -E '^  import (wasi|env)' >&2; then
        echo "$language: the component imports more than the contract has" >&2
        exit 1
    fi
    if [ -n "${SAFELMM:-}" ]; then "$SAFELMM" plugin check "$out/example-$language.wasm"; fi
done
[ $skipped -eq 0 ] || echo "$skipped skipped"
