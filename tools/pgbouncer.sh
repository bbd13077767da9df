#!/bin/sh
# Finds a PgBouncer for the pooler tests, or in CI as root installs one; the Makefile calls it before the tests.
# Without one the tests still run and name at their end what was not run; in CI (CI=true) that is a failure.
set -u

PATH="$PATH:/usr/sbin:/usr/local/sbin"
command -v pgbouncer >/dev/null 2>&1 && exit 0

if [ "${CI:-}" = true ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "Installing PgBouncer from the system's packages"
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq pgbouncer >/dev/null && exit 0
fi

echo "No PgBouncer here: the tests through a pooler will not run." >&2
[ "${CI:-}" != true ]
