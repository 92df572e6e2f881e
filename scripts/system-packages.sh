#!/bin/sh
# System packages that the tests need and this machine lacks. Says which before it installs any.
set -eu

missing=""
python3 -c 'import ensurepip' 2>/dev/null || missing="$missing python3-venv"
# a microphone without a sound card: PortAudio, PulseAudio, and ALSA's way from one to the other
python3 -c 'import ctypes; ctypes.CDLL("libportaudio.so.2")' 2>/dev/null || missing="$missing libportaudio2"
command -v pulseaudio >/dev/null || missing="$missing pulseaudio"
{ command -v pactl && command -v pacat; } >/dev/null || missing="$missing pulseaudio-utils"
[ -n "$(find /usr/lib* -maxdepth 3 -name libasound_module_pcm_pulse.so 2>/dev/null)" ] ||
    missing="$missing libasound2-plugins"
# a browser that looks at the pages
{ command -v chromium || command -v chromium-browser || command -v google-chrome; } >/dev/null ||
    missing="$missing chromium"
# an older processor: INT8 must be right on it
command -v qemu-x86_64 >/dev/null || missing="$missing qemu-user"

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
