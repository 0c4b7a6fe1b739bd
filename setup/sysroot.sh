#!/usr/bin/env bash
# setup/sysroot.sh PYTHON VENV: what the system lacks to build messages (Python's headers) and to render without a
# display (EGL with a software renderer) is unpacked into VENV/sysroot, from the distribution's own packages and
# without root. Does nothing where they are installed.
set -euo pipefail
python=$1 venv=$2
sysroot=$venv/sysroot scratch=$venv/sysroot-scratch

has_headers() { "$python" -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))'; }

has_rendering() { "$python" -c 'import ctypes; [ctypes.CDLL(name) for name in ("libEGL.so.1", "libEGL_mesa.so.0", "libGL.so.1")]' 2>/dev/null; }

version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
missing=()
has_headers || missing+=("libpython$version-dev")
has_rendering || missing+=(libegl1 libegl-mesa0 libgl1 libgl1-mesa-dri)
# An NVIDIA machine renders with its driver's own EGL.
[[ -e /usr/share/glvnd/egl_vendor.d/10_nvidia.json ]] && has_headers && missing=()
[[ ${#missing[@]} == 0 ]] && exit 0

advice="Install them (sudo apt install ${missing[*]}), then run again."
command -v apt-get >/dev/null || { echo "setup: these system packages are missing: ${missing[*]}. $advice" >&2; exit 1; }

echo "setup: unpacking into $sysroot, since the system lacks them: ${missing[*]}"
rm -rf "$scratch"; mkdir -p "$scratch"/{lists/partial,cache/archives/partial} "$sysroot"
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
apt=(apt-get -qq -o Dir::State::Lists="$PWD/lists" -o Dir::Cache="$PWD/cache" -o Debug::NoLocking=1 -o APT::Sandbox::User="$(id -un)")
packages=$("${apt[@]}" update && "${apt[@]}" -s install --no-install-recommends "${missing[@]}" | sed -n 's/^Inst \([^ ]*\).*/\1/p') &&
    "${apt[@]}" download $packages ||
    { echo "setup: downloading ${missing[*]} failed. $advice" >&2; exit 1; }
for package in *.deb; do dpkg-deb -x "$package" "../sysroot"; done
