#!/bin/sh
# Puts together what runs Python programs for 64-bit ARM on another processor; installs nothing, needs no root.
#
#     sysroot.sh FOLDER PYTHON REQUIREMENT...
#
# FOLDER/qemu-aarch64   the emulator: this machine's, or else the one of the package qemu-user-static
# FOLDER/root           Python for arm64 and the libraries it needs, of this machine's Debian release
# FOLDER/wheels         the requirements from PyPI for that Python, fetched by PYTHON's pip
#
# Ends with 77, and the reason, where something cannot be had: no apt-get, no network, no such package.
set -eu

unavailable() {
    echo "$1" >&2
    exit 77
}

mkdir -p "$1"
folder=$(cd "$1" && pwd)
python=$2
shift 2
for tool in apt-get apt-cache dpkg dpkg-deb; do
    command -v "$tool" >/dev/null || unavailable "$tool is not installed"
done

# A package list and a cache of its own: this machine's architectures, lists and packages stay as they are.
mkdir -p "$folder/apt/state/lists/partial" "$folder/apt/cache/archives/partial" "$folder/debs" "$folder/root"
own=$(dpkg --print-architecture)
apt() {
    tool=$1
    shift
    "$tool" -q -o APT::Architectures::="$own" -o APT::Architectures::=arm64 -o APT::Sandbox::User= \
        -o Dir::State="$folder/apt/state" -o Dir::State::status=/dev/null -o Dir::Cache="$folder/apt/cache" "$@"
}
apt apt-get update >/dev/null || unavailable "apt-get update fails"

packages=$(apt apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces \
    --no-enhances python3-minimal:arm64 libpython3-stdlib:arm64 libstdc++6:arm64 | grep '^[a-z].*:arm64$' | sort -u) ||
    unavailable "apt-get knows no arm64 packages"
emulator=$(command -v qemu-aarch64 || command -v qemu-aarch64-static || true)
[ -n "$emulator" ] || packages="$packages qemu-user-static:$own"
# shellcheck disable=SC2086 # one argument for each package
(cd "$folder/debs" && apt apt-get download $packages >/dev/null) || unavailable "apt-get download fails"

if [ -n "$emulator" ]; then
    ln -sf "$emulator" "$folder/qemu-aarch64"
else
    dpkg-deb --fsys-tarfile "$folder"/debs/qemu-user-static_*.deb |
        tar -x -O ./usr/bin/qemu-aarch64-static >"$folder/qemu-aarch64"
    chmod +x "$folder/qemu-aarch64"
fi
for package in "$folder"/debs/*_arm64.deb; do
    dpkg-deb -x "$package" "$folder/root"
done
[ -e "$folder/root/lib" ] || ln -s usr/lib "$folder/root/lib"
rm -r "$folder/apt" "$folder/debs"

# An emulator that shows the /proc/cpuinfo of the machine it runs on makes the runtime crash, which reads ARM's fields
# there. This is a plain core; what else the emulated one can do, the runtime asks the kernel.
mkdir -p "$folder/root/proc"
printf '%s\n' 'processor : 0' 'Features : fp asimd' 'CPU implementer : 0x41' 'CPU architecture: 8' \
    'CPU variant : 0x0' 'CPU part : 0xd03' 'CPU revision : 4' '' >"$folder/root/proc/cpuinfo"

version=$(readlink "$folder/root/usr/bin/python3" | sed 's/^python//')
"$python" -m pip install --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
    --target "$folder/wheels" --python-version "$version" --implementation cp \
    --platform manylinux2014_aarch64 --platform manylinux_2_27_aarch64 --platform manylinux_2_28_aarch64 "$@" ||
    unavailable "PyPI has no aarch64 wheels of $* for Python $version, or cannot be reached"
