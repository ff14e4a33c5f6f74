# Runs as process 1 of new namespaces and becomes systemd in the directory $1, whose
# files are those of the layers $2 and changes in $1.upper.
set -eu
mount --make-rprivate /
mount -t overlay -o "lowerdir=$2,upperdir=$1.upper,workdir=$1.work" overlay "$1"
cd "$1"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs dev
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts dev/pts
mount -t tmpfs -o mode=1777 tmpfs dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
for device in null zero full random urandom tty; do
	: >"dev/$device"
	mount --bind "/dev/$device" "dev/$device"
done
ip link set lo up
mkdir -p .host
pivot_root . .host
umount -l .host
exec env -i container=other PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
	/lib/systemd/systemd systemd.unit=multi-user.target --log-target=journal --show-status=no </dev/null >/dev/null 2>&1
