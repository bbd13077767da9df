#!/bin/sh
# Installs requirements/LOCK.lock into a virtual environment, made first where it is missing; the Makefile calls it.
#   sh tools/setup.sh LOCK [ENVIRONMENT]
# uses uv where it is on the PATH, else the venv and pip that come with Python. Every file is checked against the
# hashes of the lock, and nothing is compiled: a missing wheel is an error.
set -eu
cd "$(dirname "$0")/.."
lock=$1
venv=${2:-.venv}
supported='import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))'

has_uv() {
    command -v uv >/dev/null 2>&1
}

stop() {
    printf '%s\n' '' "$@" >&2
    exit 1
}

# An environment is kept when it still runs, has an installer, and was made in this folder (its scripts and links to
# the packages hold the folder's path, so a copied or moved one would quietly run the code of the old place).
usable() {
    [ -x "$venv/bin/python" ] && "$venv/bin/python" -c "$supported" 2>/dev/null || return 1
    [ ! -f "$venv/.folder" ] || [ "$(cat "$venv/.folder")" = "$(pwd -P)" ] || return 1
    has_uv || "$venv/bin/python" -m pip --version >/dev/null 2>&1
}

find_python() {
    incomplete=
    for name in python3 python3.14 python3.13 python3.12 python3.11; do
        command -v "$name" >/dev/null 2>&1 && "$name" -c "$supported" 2>/dev/null || continue
        if "$name" -c 'import ensurepip, venv' 2>/dev/null; then
            python=$name
            return
        fi
        incomplete=${incomplete:-$name}
    done
    if [ -n "$incomplete" ]; then
        version=$("$incomplete" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        stop "Cannot set up: Python $version is here, but without the venv and ensurepip modules that come with it." \
            "On Debian and Ubuntu they are a package of their own:  apt-get install python$version-venv" \
            "Or install uv, which needs neither. Then run make again."
    fi
    found=$(python3 --version 2>/dev/null || echo "no python3")
    stop "Cannot set up: this needs Python 3.11, 3.12, 3.13 or 3.14, and found $found." \
        "Install one of them with its venv module (Debian and Ubuntu:  apt-get install python3 python3-venv;" \
        "macOS:  brew install python@3.13), or install uv, which brings its own. Then run make again."
}

make_environment() {
    rm -rf "$venv"
    if has_uv; then
        uv venv --quiet --python '>=3.11,<3.15' "$venv"
    else
        find_python
        "$python" -m venv "$venv"
    fi
    pwd -P >"$venv/.folder"
}

install() {
    if has_uv; then
        uv pip install --quiet --python "$venv/bin/python" "$@"
    else
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@"
    fi
}

usable || make_environment
echo "Installing requirements/$lock.lock into $venv"
install --no-deps --require-hashes --only-binary :all: -r "requirements/$lock.lock" ||
    stop "Could not install requirements/$lock.lock: the reason stands above." \
        "It needs a package index that can be reached, and a platform that every package has a wheel for" \
        "(Linux x86_64 or aarch64 with glibc 2.28 or later, macOS on arm64)."

# The two packages themselves: links to their sources, made by the hatchling of the lock, without asking an index.
if [ "$lock" = run ]; then
    install --no-index --no-deps --no-build-isolation -e packages/tidings -e packages/adexport
fi
touch "$venv/.installed-$lock"
