#!/usr/bin/env bash
# The targets of crates/fuzz under libFuzzer, one after the other: coverage leads the way where the
# driver on stable Rust goes by shapes (docs/design/0027-fuzzing.md).
#
#   scripts/fuzz.sh DIRECTORY    `make fuzz-lib` does this
#
# SECONDS_EACH (60) is for each target, TARGETS are names with spaces between (all). The directory
# keeps corpus/NAME, from which the next run goes on, crashes/NAME, what broke a target, and what
# libFuzzer said. Seeds are only read. ENGINE is a built `any`, where there is one already.
set -euo pipefail
cd "$(dirname "$0")/.."

out=$1
each=${SECONDS_EACH:-60}
# libFuzzer's own limits: seconds for an input, MiB for the process, bytes of an input. A second of
# processor time is the target's (any.rs).
patience=${PATIENCE:-20}
memory=3072
longest=65536
list=crates/fuzz/libfuzzer

missing() {
  echo "fuzz: $1" >&2
  echo "fuzz: $2" >&2
  exit 2
}

# What cargo fuzz needs is no part of what the rest is built with.
build() {
  cargo +nightly --version >/dev/null 2>&1 ||
    missing "no nightly toolchain of Rust" "rustup toolchain install nightly --profile minimal"
  cargo fuzz --version >/dev/null 2>&1 ||
    missing "cargo-fuzz is not there" "cargo install cargo-fuzz --locked"
  command -v c++ >/dev/null ||
    missing "no C++ compiler, which libFuzzer is built with" "apt-get install g++"
  # The same third-party code as in the product.
  cp Cargo.lock "$list/Cargo.lock"
  local flags=(--fuzz-dir "$list" --sanitizer none --target-dir "$CARGO_TARGET_DIR/libfuzzer")
  cargo +nightly fuzz build "${flags[@]}" any
  engine=$(find "$CARGO_TARGET_DIR/libfuzzer" -type f -name any -path '*/release/any' | head -n1)
}

# Seeds as they are read: digits of `.hex` as bytes, texts without their last newline.
seeds_of() {
  local file
  for file in "crates/fuzz/seeds/$1"/*; do
    case $file in
    *.hex) perl -0777 -ne 's/[^0-9a-fA-F]//g; print pack("H*", $_)' "$file" ;;
    *) perl -0777 -pe 's/\n\z//' "$file" ;;
    esac >"$2/$(basename "$file" .hex)"
  done
}

# The number behind a word in what libFuzzer says at the end.
last() {
  grep -oE "$1:? +[0-9]+" "$2" | tail -n1 | grep -oE '[0-9]+$' || echo 0
}

run() {
  local name=$1 log="$out/$1.log" status=0 spent
  local corpus="$out/corpus/$name" crashes="$out/crashes/$name" seeds="$scratch/seeds-$name"
  mkdir -p "$corpus" "$crashes" "$seeds"
  seeds_of "$name" "$seeds"
  {
    time EVENKEEL_FUZZ_TARGET=$name TMPDIR=$scratch "$engine" "$corpus" "$seeds" \
      -artifact_prefix="$crashes/" -max_total_time="$each" -timeout="$patience" \
      -rss_limit_mb="$memory" -malloc_limit_mb=1024 -max_len="$longest" \
      -print_final_stats=1 >"$log" 2>&1 || status=$?
  } 2>"$scratch/time"
  spent=$(awk '{printf "%d of %d s", $2 + $3, $1}' "$scratch/time")
  local broken
  broken=$(find "$crashes" -type f | wc -l)
  printf '%-20s %9d inputs in %-13s %6d edges %6d features %5d kept %5d MiB  %d broke it\n' \
    "$name" "$(last 'stat::number_of_executed_units' "$log")" "$spent" "$(last cov "$log")" \
    "$(last ft "$log")" "$(find "$corpus" -type f | wc -l)" "$(last 'stat::peak_rss_mb' "$log")" "$broken"
  if [ "$status" != 0 ] || [ "$broken" != 0 ]; then
    echo "  BROKE: see $log and $crashes" >&2
    failed=1
  fi
}

TIMEFORMAT='%R %U %S'
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}
engine=${ENGINE:-}
[ -n "$engine" ] || build
# Layers are unpacked there, in memory where that can be.
scratch=$(mktemp -d -p "$([ -w /dev/shm ] && echo /dev/shm || echo "${TMPDIR:-/tmp}")")
trap 'rm -rf "$scratch"' EXIT
mkdir -p "$out"
failed=0
for name in ${TARGETS:-$(ls crates/fuzz/seeds)}; do
  run "$name"
done
exit "$failed"
