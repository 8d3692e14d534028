#!/bin/sh
# mmdebstrap runs this when everything is installed; $1 is the new system. What must differ between machines goes,
# what makes it boot comes.
set -eu
root=$1
rm -f "$root"/etc/ssh/ssh_host_*_key "$root"/etc/ssh/ssh_host_*_key.pub "$root"/vmlinuz.old "$root"/initrd.img.old
echo localhost >"$root/etc/hostname"
ln -sfn ../run/systemd/resolve/stub-resolv.conf "$root/etc/resolv.conf"
echo 'LABEL=root / ext4 defaults,errors=remount-ro 0 1' >"$root/etc/fstab"
mkdir -p "$root/etc/default/grub.d" "$root/boot/grub/i386-pc"
# For the configuration that a later kernel makes anew.
cat >"$root/etc/default/grub.d/50-serial.cfg" <<'END'
GRUB_TIMEOUT=0
GRUB_CMDLINE_LINUX="console=tty0 console=ttyS0,115200"
END
cat >"$root/boot/grub/grub.cfg" <<'END'
set timeout=0
search --no-floppy --label root --set root
menuentry Debian {
  linux /vmlinuz root=LABEL=root ro console=tty0 console=ttyS0,115200
  initrd /initrd.img
}
END
cp "$root"/usr/lib/grub/i386-pc/*.mod "$root"/usr/lib/grub/i386-pc/*.lst "$root"/usr/lib/grub/i386-pc/boot.img \
  "$root/boot/grub/i386-pc/"
chroot "$root" grub-mkimage -O i386-pc -o /boot/grub/i386-pc/core.img -p '(,gpt1)/boot/grub' \
  biosdisk part_gpt ext2 normal search search_label configfile linux echo test ls minicmd
chroot "$root" systemctl enable -q systemd-networkd systemd-resolved
