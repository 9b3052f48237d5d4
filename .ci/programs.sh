#!/usr/bin/env bash
# Installs the two programs that some tests need besides Python: a Chromium, which opens the page, and pdflatex, which compiles tables.
# Where they cannot be had it says why in a line and ends with status 0: the tests are skipped then.
set -uo pipefail

packages=()
for name in chromium chromium-browser google-chrome google-chrome-stable chrome; do
  if command -v "$name" > /dev/null; then browser=$name; break; fi
done
[ -n "${browser:-}" ] || packages+=(chromium)
command -v pdflatex > /dev/null || packages+=(texlive-latex-base texlive-latex-recommended) # booktabs is in the second
[ ${#packages[@]} -gt 0 ] || exit 0

cannot() {
  echo "programs: without ${packages[*]}, tests that need them are skipped: $1"
  exit 0
}
command -v apt-get > /dev/null || cannot "no apt-get"
[ "$(id -u)" = 0 ] || cannot "not root"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
export DEBIAN_FRONTEND=noninteractive
limit=${PROGRAMS_SECONDS:-90}
get() { timeout --kill-after=5 "$((SECONDS < limit ? limit - SECONDS : 1))" apt-get -qq -o Acquire::Retries=0 -o Acquire::http::Timeout=10 "$@" > "$log" 2>&1; }
why() { echo "apt-get $1: $(grep -m 1 '^E:' "$log" || echo "not done in $limit s")"; }
get update || cannot "$(why update)"
for package in "${packages[@]}"; do
  get install --yes --no-install-recommends "$package" || echo "programs: no $package: $(why install)"
done
