#!/bin/sh
# The topics of docs/streaming.md, once; topics that are there stay as they are.
set -eu

topic() { # name, settings
  name=$1
  shift
  set -- $(for setting in "$@"; do echo "--config $setting"; done)
  /opt/kafka/bin/kafka-topics.sh --bootstrap-server "$BROKER" --create --if-not-exists \
    --topic "$name" --partitions "$PARTITIONS" --replication-factor 1 "$@"
}

# The same number of partitions for both: partition k of each belongs to one member. The broker's clock
# says what is too far in the future. An event may have 1.2 MB, a dead letter its headers besides.
topic gref.exposures message.timestamp.type=LogAppendTime max.message.bytes=1258291 retention.ms=604800000
topic gref.feedback message.timestamp.type=LogAppendTime max.message.bytes=1258291 retention.ms=604800000
topic gref.dead-letters max.message.bytes=2097152 retention.ms=2592000000
