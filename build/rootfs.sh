#!/bin/sh
# Makes the root folder of an image from the files of Debian packages alone: nothing is configured, no script of theirs
# runs, and there is neither a shell nor a package manager in it. Needs apt-get with current lists, dpkg-deb and tar.
#
# usage: rootfs.sh FOLDER PACKAGE...     a PACKAGE with a + behind it comes with what it depends on
set -eu
root=$1
shift
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The folders of a merged /usr, which newer packages take for granted.
for name in bin sbin lib lib64; do
  mkdir -p "$root/usr/$name"
  ln -s "usr/$name" "$root/$name"
done
mkdir -p "$root/etc/ssl/certs" "$root/var/lib/dpkg/status.d" "$root/app" "$root/tmp"
chmod 1777 "$root/tmp"

# What only scripts of packages need, and what PostgreSQL compiles queries with (turn its setting jit off).
needless='adduser|cdebconf|debconf|dpkg|gcc-.*|init-system-helpers|install-info|locales.*|lsb-base|netbase|openssl|passwd|perl.*|ssl-cert|sysvinit-utils|tar|ucf|usrmerge|usr-is-merged|sensible-utils|lib.*-perl|libc-.*|libperl.*|libllvm.*|libz3-.*|libelogind0|libdebian-installer4|libnewt.*|libslang.*|libtextwrap1|libpam-modules.*|libsemanage.*|libsepol.*|postgresql-common|postgresql-client-common'
names=''
for package in "$@"; do
  case $package in
    *+) names="$names $(apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces \
      --no-enhances "${package%+}" | grep '^[a-z0-9]' | grep -vE "^($needless)\$|:" | tr '\n' ' ')" ;;
    *) names="$names $package" ;;
  esac
done
names=$(printf '%s\n' $names | LC_ALL=C sort -u)
(cd "$work" && apt-get -qq -o APT::Sandbox::User=root download $names)
for package in "$work"/*.deb; do
  dpkg-deb --fsys-tarfile "$package" | tar --extract --keep-directory-symlink --directory="$root" \
    --exclude='*/gconv/*' --exclude='*/share/gdb/*' --exclude='*/share/info/*' --exclude='*/share/lintian/*' \
    --exclude='*/share/locale/*' --exclude='*/share/man/*' --exclude='*/i18n/*'
  # Scanners read here what is installed.
  dpkg-deb --field "$package" > "$root/var/lib/dpkg/status.d/$(dpkg-deb --field "$package" Package)"
done
find "$root/usr/share/doc" -type f ! -name copyright -delete 2> /dev/null || true

if [ -d "$root/usr/share/ca-certificates" ]; then
  find "$root/usr/share/ca-certificates" -name '*.crt' | LC_ALL=C sort | xargs cat > "$root/etc/ssl/certs/ca-certificates.crt"
fi

cat > "$root/etc/passwd" << 'END'
root:x:0:0:root:/:/usr/sbin/nologin
ambassador:x:65532:65532:ambassador:/:/usr/sbin/nologin
END
cat > "$root/etc/group" << 'END'
root:x:0:
ambassador:x:65532:
END
printf '127.0.0.1 localhost\n::1 localhost\n' > "$root/etc/hosts"
echo 'hosts: files dns' > "$root/etc/nsswitch.conf"
. /etc/os-release
printf 'ID=%s\nVERSION_ID="%s"\nPRETTY_NAME="%s"\n' "$ID" "$VERSION_ID" "$PRETTY_NAME" > "$root/etc/os-release"
