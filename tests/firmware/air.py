"""A clinic's Wi-Fi: a slot's own kernel and units in a computer with two radios that hear each other, one an access point's.

The radios are the kernel's (mac80211_hwsim, from the same Debian package as the slot's modules), the access point is hostapd in a
network namespace, and nothing of the slot is replaced but the disks of its fstab.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from firmware import card
from tests.conftest import peer

SECONDS = 900
INIT = """#!/bin/sh
mkdir -p /proc /sys /dev
mount -t proc proc /proc && mount -t sysfs sysfs /sys && mount -t devtmpfs dev /dev
for one in virtio_pci virtio_blk squashfs; do modprobe $one; done
until [ -e /dev/vda3 ]; do sleep 1; done
mkdir /slot && mount -t squashfs -o ro /dev/vda3 /slot
for one in run var tmp; do mount -t tmpfs $one /slot/$one; done
mkdir -p /slot/run/systemd/system /slot/run/outpost-site
cp -a /air /slot/run/air
cp /air/*.service /air/*.target /slot/run/systemd/system/
cp /air/site.txt /slot/run/outpost-site/
mount --bind /dev/null /slot/etc/fstab
exec switch_root /slot /sbin/init
"""
TARGET = """[Unit]
Requires=basic.target
After=basic.target
Wants=point.service far.service iwd.service systemd-networkd.service outpost-intake.service
"""
POINT = """[Unit]
Description=The access point
Before=iwd.service
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -e /run/air/point
"""
FAR = """[Unit]
Description=An X-ray unit on the same Wi-Fi
After=point.service iwd.service systemd-networkd.service outpost-intake.service
[Service]
Type=oneshot
StandardOutput=journal+console
StandardError=journal+console
ExecStart=/bin/sh /run/air/far
"""
BEGIN = """modprobe mac80211
insmod /run/air/mac80211_hwsim.ko radios=2
ip netns add clinic
/run/air/run iw phy phy1 set netns name clinic
ip -n clinic link set lo up
ip -n clinic address add 192.168.9.1/24 dev wlan1
ip netns exec clinic /run/air/run hostapd -B /run/air/hostapd.conf
ip netns exec clinic busybox udhcpd /run/air/udhcpd.conf
"""
HEAR = """for i in $(seq 300); do
    ip netns exec clinic busybox ping -c 1 -W 1 ADDRESS > /dev/null 2>&1 && echo AIR ping ADDRESS && break
    sleep 1
done
for i in $(seq 60); do ip netns exec clinic python3 -P /run/air/echo && break; sleep 1; done
echo "AIR radio $(/run/air/run iw reg get | grep -m 1 -o 'country ..')"
for one in /var/lib/iwd /var/lib/iwd/*.*; do echo "AIR file $(stat -c '%U %a %n' "$one")"; done
echo "AIR nowhere else:" $(grep -rl horse /var /run/systemd /run/log 2> /dev/null)
echo AIR end
"""
ECHO = """from pynetdicom import AE
entity = AE()
entity.add_requested_context("1.2.840.10008.1.1")
link = entity.associate("ADDRESS", 11112, ae_title="KALENE")
print("AIR echo", link.send_c_echo().Status if link.is_established else exit(1))
link.release()
"""
LEASES = """interface wlan1
start 192.168.9.50
end 192.168.9.50
lease_file /run/leases
option subnet 255.255.255.0
"""
RUN = """#!/bin/sh
program=$1
shift
exec /run/air/lib/ld.so --library-path /run/air/lib /run/air/$program "$@"
"""


@dataclass(frozen=True)
class Point:
    """How an access point is set up."""

    ssid: str
    passphrase: str
    keys: str
    """WPA-PSK, which is WPA2, or SAE, which is WPA3."""

    def configuration(self) -> str:
        """As hostapd reads it."""
        return (
            f"interface=wlan1\ndriver=nl80211\nssid2={self.ssid.encode().hex()}\nhw_mode=g\nchannel=6\nwpa=2\n"
            f"wpa_key_mgmt={self.keys}\nrsn_pairwise=CCMP\nieee80211w={2 if self.keys == 'SAE' else 0}\n"
            f"wpa_passphrase={self.passphrase}\n"
        )


def told(image: Path, archives: Path, site: bytes, point: Point, address: str, folder: Path) -> str:
    """What the serial port says until an X-ray unit on the Wi-Fi has looked for the box at an address, its own lines with AIR."""
    with image.open("rb") as file:
        ((begin, _),) = [(begin, end) for name, begin, end in card.partitions(file.fileno()) if name == "outpost-a"]
    slot, start = folder / "slot", folder / "start"
    taken = [
        "-quiet",
        "-no-progress",
        "-offset",
        str(begin),
        "-d",
        slot,
        image,
        "boot",
        "usr/lib/modules/*/modules.order",
    ]
    subprocess.run([peer("unsquashfs", "squashfs-tools"), *taken], check=True, capture_output=True)
    air = start / "air"
    (air / "lib").mkdir(parents=True)
    (version,) = [path.name for path in (slot / "usr/lib/modules").iterdir()]
    (package,) = archives.glob(f"linux-image-{version}_*.deb")
    module = f"./lib/modules/{version}/kernel/drivers/net/wireless/mac80211_hwsim.ko"
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE) as unpacked:
        found = subprocess.run(["tar", "-xO", module], stdin=unpacked.stdout, capture_output=True, check=True).stdout
    (air / "mac80211_hwsim.ko").write_bytes(found)
    for program in (peer("hostapd", "hostapd"), peer("iw", "iw")):
        shutil.copy(program, air)
        needed = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
        for library in re.findall(r"(/\S+) \(0x", needed):
            shutil.copy(library, air / "lib" / ("ld.so" if "/ld-linux" in library else Path(library).name))
    files = {
        "air.target": TARGET, "point.service": POINT, "far.service": FAR, "point": BEGIN, "far": HEAR, "echo": ECHO, "run": RUN,
        "udhcpd.conf": LEASES, "hostapd.conf": point.configuration(),
    }  # fmt: skip
    for name, text in files.items():
        (air / name).write_text(text.replace("ADDRESS", address), encoding="utf-8")
    (air / "site.txt").write_bytes(site)
    (start / "init").write_text(INIT)
    for path in (air / "run", start / "init"):
        path.chmod(0o755)
    names = "\0".join(str(path.relative_to(start)) for path in sorted(start.rglob("*")))
    packed = subprocess.run(
        ["cpio", "--create", "--format=newc", "--null", "--quiet", "--owner=0:0"],
        cwd=start, input=names.encode(), capture_output=True, check=True,
    ).stdout  # fmt: skip
    before = (slot / "boot/initrd").read_bytes()
    (folder / "initrd").write_bytes(before + bytes(-len(before) % 4) + packed)
    return _started(image, slot / "boot/vmlinuz", folder / "initrd", folder / "serial")


def _started(image: Path, kernel: Path, initrd: Path, serial: Path) -> str:
    line = "console=ttyS0 no_timer_check systemd.unit=air.target systemd.mask=systemd-repart.service panic=-1"
    command = [
        peer("qemu-system-x86_64", "qemu-system-x86"), "-machine", "q35", "-cpu", "max", "-m", "1024", "-smp", "2",
        "-accel", "tcg,thread=multi", "-display", "none", "-monitor", "none", "-no-user-config", "-nodefaults", "-no-reboot",
        "-drive", f"file={image},format=raw,if=virtio,readonly=on", "-kernel", kernel, "-initrd", initrd, "-append", line,
        "-object", "rng-random,filename=/dev/urandom,id=noise", "-device", "virtio-rng-pci,rng=noise",
        "-chardev", f"file,id=serial,path={serial}", "-serial", "chardev:serial",
    ]  # fmt: skip
    end = time.monotonic() + SECONDS
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as computer:
        try:
            while True:
                said = serial.read_text("utf-8", "replace") if serial.exists() else ""
                if "AIR end" in said:
                    return said
                assert computer.poll() is None and time.monotonic() < end, said[-6000:]
                time.sleep(0.5)
        finally:
            computer.kill()
            if keep := os.environ.get("OUTPOST_KEEP_SERIAL"):
                shutil.copy(serial, keep)
