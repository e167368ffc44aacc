#!/usr/bin/env bash
# Runs the tests that want more of a kernel than most machines of developers give: containers where
# there is cgroup v2 alone, and limits of directories by project quota. A virtual machine with
# Debian's cloud kernel, emulated in software. test-vm.sh [FILTER...]: of containers, those that match.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
work=$CARGO_TARGET_DIR/vm
[ "$(uname -m)" = x86_64 ] || { echo "test-vm knows only x86_64 machines" >&2; exit 1; }
filters=("$@")
sudo=""
[ "$(id -u)" -eq 0 ] || sudo=sudo

declare -A needs=(
  [qemu-system-x86_64]=qemu-system-x86
  [cpio]=cpio
  [busybox]=busybox-static
  [mkfs.ext4]=e2fsprogs
  [mkfs.xfs]=xfsprogs
  [depmod]=kmod
)
PATH=$PATH:/usr/sbin
missing=()
for command in "${!needs[@]}"; do
  command -v "$command" >/dev/null || missing+=("${needs[$command]}")
done
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
release=${kernel##*/vmlinuz-}
depmod -b "$work/kernel" "$release"
# Each after those that it needs.
mapfile -t modules < <(for module in overlay fuse loop quota_v2 crc32c_generic ext4 xfs; do
  modprobe -d "$work/kernel" -S "$release" --show-depends "$module" | sed -n 's/^insmod //p'
done | awk '!seen[$1]++ { print $1 }')

echo "building the tests"
built=$(cargo test --manifest-path "$here/Cargo.toml" --workspace --locked --lib --test containers --no-run \
  --message-format=json 2>"$work/build.log") || { tail -n 20 "$work/build.log" >&2; exit 1; }
program() { sed -n 's/.*"name":"'"$1"'".*"executable":"\([^"]*\)".*/\1/p' <<<"$built"; }
containers=$(program containers)
node=$(program evenkeel_node)
helper=$CARGO_TARGET_DIR/debug/runtime-helper

root=$work/root
rm -rf "$root"
mkdir -p "$root"/{bin,dev,etc,lib/modules,lib64,proc,sys,tmp,usr/bin,usr/sbin,new,root}
cp "$(command -v busybox)" "$root/bin/busybox"
cp "$(command -v busybox)" "$root/usr/bin/busybox"
number=100
for module in "${modules[@]}"; do
  cp "$module" "$root/lib/modules/$((number++))-${module##*/}"
done
printf 'root:x:0:0:root:/root:/bin/sh\n' >"$root/etc/passwd"
# A program, at the place where it is here (the tests look for the helper there), and its libraries.
put() {
  local file
  for file in "$1" $(ldd "$1" | grep -o '/[^ ]*'); do
    mkdir -p "$root$(dirname "$file")"
    cp -L "$file" "$root$file"
  done
}
for program in "$containers" "$node" "$helper"; do
  put "$program"
  objcopy --strip-debug "$program" "$root$program"
  chmod 755 "$root$program"
done
for command in mkfs.ext4 mkfs.xfs mount umount setpriv; do
  put "$(command -v "$command")"
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
export PATH=/usr/bin:/usr/sbin:/bin RUST_BACKTRACE=1 EVENKEEL_TEST_PATIENCE=10
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts -o ptmxmode=666 pts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t cgroup2 cgroup /sys/fs/cgroup
chmod 1777 /tmp
for module in /lib/modules/*.ko; do insmod "\$module"; done
ip link set lo up
EVENKEEL_TEST_QUOTA=required $node --nocapture volume::quota
echo "QUOTA-RESULT \$?"
echo "controllers: \$(cat /sys/fs/cgroup/cgroup.controllers)"
$containers --test-threads=1 ${filters[*]}
echo "V2-RESULT \$?"
ls /sys/fs/cgroup | grep -c evenkeel- && echo "V2-RESULT left"
poweroff -f
INIT
chmod 755 "$root/init" "$root/second"
(cd "$root" && find . -print0 | cpio --null --create --format=newc --quiet) >"$work/initramfs"

echo "booting (software emulation; some minutes)"
timeout 1200 qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp 2 -m 2560 -nographic -no-reboot \
  -kernel "$kernel" -initrd "$work/initramfs" -append "console=ttyS0 quiet panic=-1 rdinit=/init" \
  </dev/null | tr -d '\r' | tee "$work/console.log"
for wanted in '^QUOTA-RESULT 0$' '^V2-RESULT 0$'; do
  grep -q "$wanted" "$work/console.log" || { echo "test-vm: failed; see $work/console.log" >&2; exit 1; }
done
! grep -q '^V2-RESULT left' "$work/console.log" || { echo "test-vm: control groups are left" >&2; exit 1; }
