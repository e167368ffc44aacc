#!/usr/bin/env bash
# Runs the runtime's tests on a machine with nothing but cgroup v2: a virtual one with Debian's
# cloud kernel, emulated in software. test-v2.sh [FILTER...]
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
work=$CARGO_TARGET_DIR/v2
[ "$(uname -m)" = x86_64 ] || { echo "test-v2 knows only x86_64 machines" >&2; exit 1; }
filters=("$@")
sudo=""
[ "$(id -u)" -eq 0 ] || sudo=sudo

missing=()
command -v qemu-system-x86_64 >/dev/null || missing+=(qemu-system-x86)
command -v cpio >/dev/null || missing+=(cpio)
command -v busybox >/dev/null || missing+=(busybox-static)
if [ ${#missing[@]} -gt 0 ]; then
  echo "installing Debian packages: ${missing[*]}"
  $sudo apt-get update -qq
  DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

# The kernel is unpacked here and installed nowhere.
mkdir -p "$work/kernel"
if ! ls "$work"/kernel/boot/vmlinuz-* >/dev/null 2>&1; then
  package=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: \(linux-image-[^ ]*\).*/\1/p' | head -n 1)
  echo "fetching $package"
  (cd "$work" && apt-get download -qq "$package" && dpkg -x "$package"_*.deb kernel && rm "$package"_*.deb)
fi
kernel=$(ls "$work"/kernel/boot/vmlinuz-*)
mapfile -t modules < <(find "$work/kernel" -name overlay.ko -o -name fuse.ko)

echo "building the tests"
tests=$(cargo test --manifest-path "$here/Cargo.toml" --workspace --locked --test containers --no-run \
  --message-format=json 2>"$work/build.log" |
  sed -n 's/.*"name":"containers".*"executable":"\([^"]*\)".*/\1/p') || { tail -n 20 "$work/build.log" >&2; exit 1; }
helper=$CARGO_TARGET_DIR/debug/runtime-helper

root=$work/root
rm -rf "$root"
mkdir -p "$root"/{bin,dev,etc,lib,lib64,proc,sys,tmp,usr/bin,usr/lib,new,root}
cp "$(command -v busybox)" "$root/bin/busybox"
cp "$(command -v busybox)" "$root/usr/bin/busybox"
cp "${modules[@]}" "$root/lib/"
printf 'root:x:0:0:root:/root:/bin/sh\n' >"$root/etc/passwd"
for program in "$tests" "$helper"; do
  # At the place where it was built: the tests look for the helper there.
  mkdir -p "$root$(dirname "$program")"
  objcopy --strip-debug "$program" "$root$program"
  chmod 755 "$root$program"
  for library in $(ldd "$program" | grep -o '/[^ ]*'); do
    mkdir -p "$root$(dirname "$library")"
    cp -L "$library" "$root$library"
  done
done
# A root that can be exchanged (pivot_root) must not be the first one.
cat >"$root/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox mount -t tmpfs -o size=80% tmpfs /new
for entry in /*; do
  case $entry in /new) ;; *) /bin/busybox cp -a "$entry" /new/ ;; esac
done
exec /bin/busybox switch_root /new /second
INIT
cat >"$root/second" <<INIT
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin:/usr/bin RUST_BACKTRACE=1 EVENKEEL_TEST_PATIENCE=10
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts -o ptmxmode=666 pts /dev/pts
mount -t cgroup2 cgroup /sys/fs/cgroup
chmod 1777 /tmp
for module in /lib/*.ko; do insmod "\$module"; done
ip link set lo up
echo "controllers: \$(cat /sys/fs/cgroup/cgroup.controllers)"
$tests --test-threads=1 ${filters[*]}
echo "V2-RESULT \$?"
ls /sys/fs/cgroup | grep -c evenkeel- && echo "V2-RESULT left"
poweroff -f
INIT
chmod 755 "$root/init" "$root/second"
(cd "$root" && find . -print0 | cpio --null --create --format=newc --quiet) >"$work/initramfs"

echo "booting (software emulation; some minutes)"
timeout 1200 qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp 2 -m 2048 -nographic -no-reboot \
  -kernel "$kernel" -initrd "$work/initramfs" -append "console=ttyS0 quiet panic=-1 rdinit=/init" \
  </dev/null | tr -d '\r' | tee "$work/console.log"
grep -q '^V2-RESULT 0$' "$work/console.log" && ! grep -q '^V2-RESULT left' "$work/console.log" ||
  { echo "test-v2: failed; see $work/console.log" >&2; exit 1; }
