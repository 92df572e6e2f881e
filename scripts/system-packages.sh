#!/bin/sh
# System packages that the tests need and this machine lacks. Says which before it installs any.
set -eu

missing=""
python3 -c 'import ensurepip' 2>/dev/null || missing="$missing python3-venv"

if [ -z "$missing" ]; then
    echo "system packages: nothing to install"
    exit 0
fi
echo "system packages to install:$missing"
if ! command -v apt-get >/dev/null; then
    echo "error: no apt-get here; install the equivalents of:$missing" >&2
    exit 1
fi
sudo=""
[ "$(id -u)" -eq 0 ] || sudo="sudo"
$sudo apt-get update -q
# shellcheck disable=SC2086
$sudo apt-get install -y --no-install-recommends $missing
