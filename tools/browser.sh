#!/bin/sh
# Finds a Chromium for the browser tests, or installs one; the Makefile calls it before the tests.
# Without one the tests still run and name at their end what was not run; in CI (CI=true) that is a failure.
set -u
cd "$(dirname "$0")/.."

for name in chromium chromium-browser google-chrome google-chrome-stable; do
    command -v "$name" >/dev/null 2>&1 && exit 0
done

# As root in CI the system's package brings the libraries that a bare browser lacks.
if [ "${CI:-}" = true ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "Installing Chromium from the system's packages"
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium >/dev/null && exit 0
fi

# Playwright's own; at once where it is installed already.
PLAYWRIGHT_DOWNLOAD_CONNECTION_TIMEOUT=5000 .venv/bin/python -m playwright install chromium >/dev/null 2>&1 && exit 0
echo "No Chromium here, and none could be installed: the browser tests will not run." >&2
[ "${CI:-}" != true ]
