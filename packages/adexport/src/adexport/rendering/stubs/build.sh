#!/bin/sh
# Builds the stub shared objects beside this script: one per (architecture, library), from the .symbols lists.
# Needs gcc and gcc-aarch64-linux-gnu (Debian package names); both are needed only here, never at run time.
# Refresh a list after a new skia-python: nm -D --undefined-only skia*.so skia_python.libs/*, sorted, by prefix.
set -eu
cd "$(dirname "$0")"
build() { # compiler, architecture
    mkdir -p "$2"
    for list in *.symbols; do
        soname="${list%.symbols}"
        while read -r symbol; do echo "void *$symbol(void) { return 0; }"; done <"$list" |
            "$1" -x c -shared -fPIC -Os -nostdlib -fno-asynchronous-unwind-tables -fno-ident -fvisibility=default \
                -Wno-builtin-declaration-mismatch -Wl,-soname,"$soname" -Wl,--build-id=none -Wl,--hash-style=gnu \
                -Wl,-z,noseparate-code -s -o "$2/$soname" -
    done
}
build x86_64-linux-gnu-gcc x86_64
build aarch64-linux-gnu-gcc aarch64
