#!/bin/sh
# The endpoints of a service in ZooKeeper, the children host:port of a node: zookeeper.sh SERVER PATH
[ $# -eq 2 ] || { echo "usage: $0 SERVER PATH" >&2; exit 2; }
answer=$(zkCli.sh -server "$1" ls "$2" 2> /dev/null) || exit 1
# The last line is [host:port, host:port].
list=$(printf '%s\n' "$answer" | sed -n 's/^\[\(.*\)\]$/\1/p' | tail -n 1)
printf '%s\n' "$list" | tr -d ' ' | tr ',' '\n'
