#!/usr/bin/env bash
# Sees to what building needs beside a Rust toolchain: a C++ compiler and libclang, for RocksDB.
# As root it installs them with apt; otherwise it prints the line to run and fails. Silent when nothing is missing.
set -euo pipefail

if ! command -v cargo >/dev/null; then
    echo "setup: cargo is missing; install a Rust toolchain first (https://rustup.rs)" >&2
    exit 1
fi

has_libclang() {
    # The places bindgen looks in, and what the linker knows.
    [ -n "${LIBCLANG_PATH:-}" ] && return 0
    compgen -G '/usr/lib/llvm-*/lib/libclang*.so*' >/dev/null ||
        compgen -G '/usr/lib*/libclang*.so*' >/dev/null ||
        compgen -G '/usr/lib/*/libclang*.so*' >/dev/null
}

has_clang_headers() {
    # bindgen reads C headers with libclang, which needs clang's own stddef.h and the like.
    compgen -G '/usr/lib/llvm-*/lib/clang/*/include/stddef.h' >/dev/null ||
        compgen -G '/usr/lib*/clang/*/include/stddef.h' >/dev/null
}

packages=()
command -v g++ >/dev/null || command -v c++ >/dev/null || packages+=(g++)
command -v make >/dev/null || packages+=(make)
has_libclang || packages+=(libclang-dev)
has_clang_headers || packages+=(clang)
[ ${#packages[@]} -eq 0 ] && exit 0

install="apt-get update && apt-get install --yes --no-install-recommends ${packages[*]}"
if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
    echo "setup: installing ${packages[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update --quiet
    apt-get install --quiet --yes --no-install-recommends "${packages[@]}"
elif command -v apt-get >/dev/null; then
    echo "setup: ${packages[*]} missing; run: sudo sh -c '$install'" >&2
    exit 1
else
    echo "setup: ${packages[*]} (as Debian calls them) missing; install them with this system's package manager" >&2
    exit 1
fi
