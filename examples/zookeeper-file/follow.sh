#!/bin/sh
# Keeps a list of endpoints equal to what a registry says: follow.sh SECONDS TARGET COMMAND [ARGUMENT...]
#   COMMAND prints one endpoint a line, host:port, with weight=N and priority=N behind it if need be
#   TARGET is a file, or configmap/NAME, whose key is 'endpoints'
# A registry that fails or says nothing changes nothing.
set -u
[ $# -ge 3 ] || { echo "usage: $0 SECONDS TARGET COMMAND [ARGUMENT...]" >&2; exit 2; }
seconds=$1 target=$2
shift 2

publish() { # the new list
  case $target in
    configmap/*)
      kubectl create configmap "${target#configmap/}" --from-file=endpoints="$1" --dry-run=client -o yaml | kubectl apply -f - ;;
    *) # in one step: nobody reads half a list
      cp "$1" "$target.new" && mv "$target.new" "$target" ;;
  esac
}

dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
trap 'exit 0' INT TERM
: > "$dir/old"
while :; do
  if "$@" > "$dir/found"; then
    LC_ALL=C sort "$dir/found" | grep . > "$dir/new"
    if [ -s "$dir/new" ] && ! cmp -s "$dir/new" "$dir/old" && publish "$dir/new"; then
      mv "$dir/new" "$dir/old"
      echo "endpoints: $(tr '\n' ' ' < "$dir/old")"
    fi
  else
    echo "the registry cannot be asked, the list stays as it is" >&2
  fi
  sleep "$seconds" &
  wait $!
done
