#!/usr/bin/env bash
# Writes the example images: images.sh DIRECTORY TARGET-TRIPLE
set -euo pipefail
out=$1 triple=$2
here=$(cd "$(dirname "$0")/.." && pwd)
assemble=$here/examples/images/assemble.sh
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$out"

# The shop is one static file: its image holds nothing else.
RUSTFLAGS='-C target-feature=+crt-static -C strip=symbols' \
  cargo build --quiet --release --locked --manifest-path "$here/Cargo.toml" -p shop --target "$triple"
mkdir "$work/shop"
chmod 755 "$work/shop"
cp "$CARGO_TARGET_DIR/$triple/release/shop" "$work/shop/"
"$assemble" "$work/shop" shop:latest "$out/shop.tar" /shop

# Redis is Debian's, with the libraries it needs. It is assembled once.
if [ ! -e "$out/redis.tar" ]; then
  echo "assembling the redis image from Debian's packages"
  "$here/examples/images/redis-root.sh" "$work/redis"
  "$assemble" "$work/redis" redis:debian "$out/redis.tar" \
    /usr/bin/redis-server --protected-mode no --save "" --dir /data
fi
