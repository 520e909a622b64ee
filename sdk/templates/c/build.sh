#!/bin/sh
# Builds {{name}}.wasm. CC is a C compiler for wasm32: ziglang's from PyPI (`pip install ziglang`) unless it is set.
# `component new` of wasm-tools serves as well as that of jco: COMPONENT="wasm-tools component new".
set -eu
cd "$(dirname "$0")"
mkdir -p build
wit-bindgen c wit --world policy --out-dir build
${CC:-python3 -m ziglang cc} -target wasm32-wasi -mexec-model=reactor -Os -Wl,-z,stack-size=131072 -Ibuild \
    app.c build/policy.c build/policy_component_type.o -o build/core.wasm
${COMPONENT:-npx --yes @bytecodealliance/jco new} build/core.wasm -o {{name}}.wasm
