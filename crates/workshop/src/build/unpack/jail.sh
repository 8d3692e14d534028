# A root with the machine's programs and one folder that can be written to; then what is to be run in it.
# $1 is that folder, $2 one that becomes the root, $3 a separator. The mounts end with the program. This shell is the
# first process of its name space and stays so: limits do not end the first one, and would be mere errors to it.
set -eu
tree=$1 jail=$2
shift 3
mount -t tmpfs -o mode=0755,size=1m,nosuid,nodev jail "$jail"
for it in usr bin lib lib64; do
  if [ -L "/$it" ]; then
    cp -P "/$it" "$jail/$it"
  elif [ -d "/$it" ]; then
    mkdir "$jail/$it"
    mount --bind "/$it" "$jail/$it"
    mount -o remount,bind,ro,nosuid,nodev "$jail/$it"
  fi
done
mkdir "$jail/tree"
mount --bind "$tree" "$jail/tree"
mount -o remount,bind,nosuid,nodev "$jail/tree"
mount -o remount,ro "$jail"
chroot "$jail" "$@"
