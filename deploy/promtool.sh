#!/usr/bin/env bash
# promtool.sh DIR: unpacks promtool, out of Debian's package of Prometheus, into DIR. Only unpacked: no server is started,
# and where apt knows its packages nobody needs to be root.
set -euo pipefail
mkdir -p "$1"
cd "$1"
fetch() { apt-get download -qq -o APT::Sandbox::User=root prometheus; }
fetch 2>/dev/null || { apt-get update -qq && fetch; }
dpkg-deb --extract prometheus_*.deb unpacked
mv unpacked/usr/bin/promtool .
touch promtool  # newer than this script, so that make is content
rm -rf unpacked prometheus_*.deb
