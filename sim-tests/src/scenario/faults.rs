//! The faults by name: what they take, what they do. Read by the scenario reader and printed in the documentation; a
//! test holds the table to [`crate::plan::Fault`].

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    pub name: &'static str,
    pub group: &'static str,
    pub fields: &'static [&'static str],
    pub about: &'static str,
}

const fn kind(group: &'static str, name: &'static str, fields: &'static [&'static str], about: &'static str) -> Kind {
    Kind { name, group, fields, about }
}

/// Every kind, in the order of the documentation.
pub const KINDS: &[Kind] = &[
    kind("network", "partition", &["side"], "the nodes of `side` and the others do not hear each other"),
    kind("network", "one_way", &["from", "to"], "what `from` sends does not reach `to`; the other way works"),
    kind("network", "isolate", &["node"], "one node hears no other node; clients and receivers still reach it"),
    kind("network", "inbound_cut", &["node"], "nothing that other nodes send reaches the node; what it sends arrives"),
    kind("network", "outbound_cut", &["node"], "nothing that the node sends reaches another; what they send arrives"),
    kind("network", "peer_port_closed", &["node"], "no other node can connect to the node; it connects to them"),
    kind(
        "network",
        "wrong_address",
        &["node"],
        "the node is restarted where its peers do not look for it; at the end it is put right",
    ),
    kind("network", "leader_in_minority", &[], "the leader with fewer than half of the others, against the rest"),
    kind("network", "leader_in_majority", &[], "the leader with a bare majority, against the rest"),
    kind("network", "flap", &["node", "every"], "isolated and back again, over and over"),
    kind("network", "swizzle", &["every"], "nodes are isolated one after another and come back in another order"),
    kind("network", "loss", &["per_mille"], "this share of messages is lost, of a thousand"),
    kind("network", "delay", &["min", "max"], "messages take between `min` and `max`"),
    kind("network", "replay", &["per_mille"], "this share of peer calls, of a thousand, arrives a second time, late"),
    kind("network", "clog", &["node"], "a node's messages are held back in both directions and arrive at the end"),
    kind("process", "kill", &["node"], "the process dies, its disk keeps what was written; it comes back at the end"),
    kind("process", "power_cut", &["node"], "the power goes: what was not synced is lost, kept or cut at random"),
    kind("process", "power_cut_all", &[], "the power of all nodes goes at once"),
    kind("process", "rolling_restart", &["every"], "every node is killed and restarted, one after another"),
    kind(
        "process",
        "rolling_upgrade",
        &["every"],
        "every node is restarted as a build that speaks another peer protocol",
    ),
    kind("process", "restart_storm", &["node", "every"], "one node is killed over and over"),
    kind("process", "pause", &["node"], "the process stands still, then goes on as if nothing had been"),
    kind("process", "terminate", &["node"], "the node is told to stop: it drains and hands over"),
    kind("process", "lose_node", &["node"], "the process dies and never comes back, not even when the faults end"),
    kind("disk", "slow_disk", &["node", "sync"], "every sync takes this long"),
    kind("disk", "fail_sync", &["node"], "the next sync fails"),
    kind("disk", "disk_errors", &["node"], "every write fails"),
    kind("disk", "disk_full", &["node"], "no space is left"),
    kind("disk", "bit_flip", &["node"], "a bit on the disk changes; found at the latest when the node starts again"),
    kind("disk", "wipe_disk", &["node"], "the disk is lost; the node comes back under a new id"),
    kind("clock", "clock_jump", &["node", "by_ms"], "the wall clock jumps, either way, and back at the end"),
    kind("clock", "clock_drift", &["node", "ppm"], "both clocks run fast, or slow, by so many of a million"),
    kind("clock", "clock_freeze", &["node"], "the wall clock stands still"),
    kind("membership", "add_node", &[], "a node joins"),
    kind("membership", "remove_node", &["node"], "a node is taken out"),
    kind("membership", "transfer_leader", &[], "leadership is handed to another node"),
    kind("receiver", "receiver_hangs", &[], "the receiver takes requests and never answers"),
    kind("receiver", "receiver_answers", &["status"], "the receiver answers this HTTP status"),
    kind("receiver", "receiver_slow", &["by"], "the receiver answers this much later"),
    kind("receiver", "receiver_gone", &[], "nobody listens"),
    kind(
        "receiver",
        "receiver_moody",
        &["per_mille"],
        "this share of requests, of a thousand, is answered with an error, late, or never",
    ),
];

/// The fields that every fault has.
pub const COMMON: [&str; 3] = ["fault", "at", "for"];

pub fn by_name(name: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.name == name)
}

#[cfg(test)]
mod tests {
    use campanile_model::{Millis, NodeId};

    use super::*;
    use crate::plan::{Fault, RoleOf, Who};

    /// One of each. The match has no wildcard: a new fault does not compile until it stands here, and then in the table.
    fn one_of_each() -> Vec<Fault> {
        let node = Who::Role(RoleOf::Any);
        let every = Millis(1);
        let all = vec![
            Fault::Partition { side: vec![NodeId(1)] },
            Fault::OneWay { from: vec![NodeId(1)], to: vec![NodeId(2)] },
            Fault::Isolate { node },
            Fault::InboundCut { node },
            Fault::OutboundCut { node },
            Fault::PeerPortClosed { node },
            Fault::WrongAddress { node },
            Fault::LeaderInMinority,
            Fault::LeaderInMajority,
            Fault::Flap { node, every },
            Fault::Swizzle { every },
            Fault::Loss { per_mille: 1 },
            Fault::Delay { min: every, max: every },
            Fault::Replay { per_mille: 1 },
            Fault::Clog { node },
            Fault::Kill { node },
            Fault::PowerCut { node },
            Fault::PowerCutAll,
            Fault::RollingRestart { every },
            Fault::RollingUpgrade { every },
            Fault::RestartStorm { node, every },
            Fault::Pause { node },
            Fault::Terminate { node },
            Fault::LoseNode { node },
            Fault::SlowDisk { node, sync: every },
            Fault::FailSync { node },
            Fault::DiskErrors { node },
            Fault::DiskFull { node },
            Fault::BitFlip { node },
            Fault::WipeDisk { node },
            Fault::ClockJump { node, by_ms: 1 },
            Fault::ClockDrift { node, ppm: 1 },
            Fault::ClockFreeze { node },
            Fault::AddNode,
            Fault::RemoveNode { node },
            Fault::TransferLeader,
            Fault::ReceiverHangs,
            Fault::ReceiverAnswers { status: 500 },
            Fault::ReceiverSlow { by: every },
            Fault::ReceiverGone,
            Fault::ReceiverMoody { per_mille: 1 },
        ];
        for fault in &all {
            match fault {
                Fault::Partition { .. } | Fault::OneWay { .. } | Fault::Isolate { .. } => {}
                Fault::InboundCut { .. } | Fault::OutboundCut { .. } => {}
                Fault::PeerPortClosed { .. } | Fault::WrongAddress { .. } => {}
                Fault::LeaderInMinority | Fault::LeaderInMajority | Fault::Flap { .. } => {}
                Fault::Swizzle { .. } | Fault::Loss { .. } | Fault::Delay { .. } | Fault::Replay { .. } => {}
                Fault::Clog { .. } | Fault::Kill { .. } | Fault::PowerCut { .. } | Fault::PowerCutAll => {}
                Fault::RollingRestart { .. } | Fault::RollingUpgrade { .. } => {}
                Fault::RestartStorm { .. } | Fault::Pause { .. } => {}
                Fault::Terminate { .. } | Fault::LoseNode { .. } | Fault::SlowDisk { .. } | Fault::FailSync { .. } => {}
                Fault::DiskErrors { .. } | Fault::DiskFull { .. } | Fault::BitFlip { .. } => {}
                Fault::WipeDisk { .. } | Fault::ClockJump { .. } | Fault::ClockDrift { .. } => {}
                Fault::ClockFreeze { .. } | Fault::AddNode | Fault::RemoveNode { .. } => {}
                Fault::TransferLeader | Fault::ReceiverHangs | Fault::ReceiverAnswers { .. } => {}
                Fault::ReceiverSlow { .. } | Fault::ReceiverGone | Fault::ReceiverMoody { .. } => {}
            }
        }
        all
    }

    #[test]
    fn the_table_is_the_enum() {
        let of_the_enum: Vec<(String, Vec<String>)> = one_of_each()
            .iter()
            .map(|fault| {
                let json = serde_json::to_value(fault).unwrap();
                let fields = json.as_object().unwrap().keys().filter(|field| *field != "fault").cloned().collect();
                assert_eq!(json["fault"], fault.name());
                (fault.name().to_string(), fields)
            })
            .collect();
        let of_the_table: Vec<(String, Vec<String>)> = KINDS
            .iter()
            .map(|kind| (kind.name.to_string(), kind.fields.iter().map(ToString::to_string).collect()))
            .collect();
        assert_eq!(of_the_table, of_the_enum);
    }
}
