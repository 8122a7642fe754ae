#!/bin/sh
# Runs one Apache Kafka node (KRaft, no ZooKeeper) in the foreground, until SIGTERM.
#
#   deploy/kafka/start.sh [server.properties]
#
# Without an argument the properties are written from these variables:
#   KAFKA_PORT             client port               (9092)
#   KAFKA_CONTROLLER_PORT  controller port           (9093)
#   KAFKA_HOST             address clients are told  (127.0.0.1)
#   KAFKA_LOG_DIR          where the data lives      (./kafka-data)
# Always read:
#   KAFKA_LIBS             folder of jars            (libs beside this script; fetched with Maven when absent)
#   KAFKA_JVM_OPTS         options of the JVM        (-Xms256m -Xmx1g)
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
libs=${KAFKA_LIBS:-"$here/libs"}

if [ ! -e "$libs/.complete" ]; then
    mvn -q -B -f "$here/pom.xml" dependency:copy-dependencies "-DoutputDirectory=$libs"
    touch "$libs/.complete"
fi

if [ $# -ge 1 ]; then
    properties=$1
else
    port=${KAFKA_PORT:-9092}
    controller=${KAFKA_CONTROLLER_PORT:-9093}
    host=${KAFKA_HOST:-127.0.0.1}
    data=${KAFKA_LOG_DIR:-"$PWD/kafka-data"}
    mkdir -p "$data"
    properties="$data/server.properties"
    # One node: whatever Kafka replicates three times by default is kept once. Topics are never made by accident, and
    # never cleaned by age unless they say so themselves: a replay carries timestamps of years ago.
    cat >"$properties" <<EOF
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$controller
listeners=PLAINTEXT://:$port,CONTROLLER://127.0.0.1:$controller
advertised.listeners=PLAINTEXT://$host:$port
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
log.dirs=$data/log
auto.create.topics.enable=false
log.retention.ms=-1
group.initial.rebalance.delay.ms=0
offsets.topic.replication.factor=1
offsets.topic.num.partitions=8
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=8
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=8
EOF
fi

# An id of our own choosing. What is formatted already is left alone, which saves a restart the start of a JVM.
logs=$(sed -n 's/^log\.dirs=//p' "$properties")
if [ ! -e "$logs/meta.properties" ]; then
    java -Xmx128m -cp "$libs/*" kafka.tools.StorageTool \
        format --ignore-formatted --cluster-id skutrend-single-node0 --config "$properties"
fi

# shellcheck disable=SC2086  # the options are meant to be split
exec java ${KAFKA_JVM_OPTS:--Xms256m -Xmx1g} -cp "$libs/*" kafka.Kafka "$properties"
