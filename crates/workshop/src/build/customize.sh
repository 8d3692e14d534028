# mmdebstrap runs this when everything is installed; $1 is the new system. What must differ between machines goes,
# what makes it boot comes. The lines before this one say what it is, id=debian|ubuntu and name=…, and what it boots from, bios=true|false and
# uefi=true|false; and sources=…, the lines of its apt where those that it was built from are nothing for a guest.
set -eu
root=$1
rm -f "$root"/etc/ssh/ssh_host_*_key "$root"/etc/ssh/ssh_host_*_key.pub "$root"/vmlinuz.old "$root"/initrd.img.old
# The first that is there: distributions have them in one of several places.
first() { for path; do [ ! -e "$root$path" ] || { echo "$path"; return; }; done; echo "there is no $*" >&2; return 1; }
kernel=$(first /vmlinuz /boot/vmlinuz)
initrd=$(first /initrd.img /boot/initrd.img)
if [ -n "$sources" ]; then
  rm -f "$root"/etc/apt/sources.list.d/*
  echo "$sources" >"$root/etc/apt/sources.list"
fi
# How apt was to behave during the building is nothing for a guest.
rm -f "$root/etc/apt/apt.conf.d/99mmdebstrap"
echo localhost >"$root/etc/hostname"
ln -sfn ../run/systemd/resolve/stub-resolv.conf "$root/etc/resolv.conf"
echo 'LABEL=root / ext4 defaults,errors=remount-ro 0 1' >"$root/etc/fstab"
mkdir -p "$root/etc/default/grub.d" "$root/boot/grub"
# For the configuration that a later kernel makes anew.
cat >"$root/etc/default/grub.d/50-serial.cfg" <<'END'
GRUB_TIMEOUT=0
GRUB_CMDLINE_LINUX="console=tty0 console=ttyS0,115200"
END
cat >"$root/boot/grub/grub.cfg" <<END
set timeout=0
search --no-floppy --label root --set root
menuentry $name {
  linux $kernel root=LABEL=root ro console=tty0 console=ttyS0,115200
  initrd $initrd
}
END
if $bios; then
  mkdir "$root/boot/grub/i386-pc"
  cp "$root"/usr/lib/grub/i386-pc/*.mod "$root"/usr/lib/grub/i386-pc/*.lst "$root"/usr/lib/grub/i386-pc/boot.img \
    "$root/boot/grub/i386-pc/"
  chroot "$root" grub-mkimage -O i386-pc -o /boot/grub/i386-pc/core.img -p '(,gpt1)/boot/grub' \
    biosdisk part_gpt ext2 normal search search_label configfile linux echo test ls minicmd
fi
if $uefi; then
  # What the firmware starts without an entry of its own; shim looks for GRUB beside it, and GRUB for its
  # configuration where its signed image says.
  mkdir -p "$root/boot/efi/EFI/BOOT" "$root/boot/efi/EFI/$id"
  shim=$(first /usr/lib/shim/shimx64.efi.signed.latest /usr/lib/shim/shimx64.efi.signed)
  keys=$(first /usr/lib/shim/mmx64.efi.signed /usr/lib/shim/mmx64.efi)
  cp "$root$shim" "$root/boot/efi/EFI/BOOT/BOOTX64.EFI"
  cp "$root$keys" "$root/boot/efi/EFI/BOOT/mmx64.efi"
  cp "$root/usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed" "$root/boot/efi/EFI/BOOT/grubx64.efi"
  cat >"$root/boot/efi/EFI/$id/grub.cfg" <<'END'
search --no-floppy --label root --set root
set prefix=($root)/boot/grub
configfile $prefix/grub.cfg
END
  echo 'LABEL=UEFI /boot/efi vfat umask=0077,nofail 0 1' >>"$root/etc/fstab"
fi
chroot "$root" systemctl enable -q systemd-networkd systemd-resolved
