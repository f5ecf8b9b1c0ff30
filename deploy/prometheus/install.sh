#!/usr/bin/env bash
# Puts promtool, of Debian's package prometheus, into a directory: no service is installed.
set -euo pipefail
dir=$1
rm -rf "$dir"
mkdir -p "$dir"
cd "$dir"
apt-get download -q prometheus 2>/dev/null || { apt-get update -q; apt-get download -q prometheus; }
dpkg -x prometheus_*.deb .
rm prometheus_*.deb
usr/bin/promtool --version
