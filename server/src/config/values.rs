//! The kinds of value a setting can have beyond numbers and text, each with one text form for flags, variables and the
//! file.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use campanile_model::NodeId;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The nodes of a cluster and their peer addresses: `1=host:port,2=host:port`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cluster(pub BTreeMap<NodeId, String>);

impl Cluster {
    fn insert(&mut self, id: &str, address: &str) -> Result<(), String> {
        let node = id.trim().parse().map_err(|_| format!("{id:?} is not a node's number"))?;
        let address = address.trim();
        check_address(address)?;
        if node == 0 {
            return Err("a node's number must be positive".into());
        }
        if self.0.values().any(|other| other == address) {
            return Err(format!("{address} is listed twice"));
        }
        match self.0.insert(NodeId(node), address.into()) {
            None => Ok(()),
            Some(_) => Err(format!("node {node} is listed twice")),
        }
    }
}

impl FromStr for Cluster {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut cluster = Self::default();
        for item in text.split(',') {
            let (id, address) = item.split_once('=').ok_or_else(|| format!("{item:?} is not ID=HOST:PORT"))?;
            cluster.insert(id, address)?;
        }
        Ok(cluster)
    }
}

impl Serialize for Cluster {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(node, address)| (node.to_string(), address)))
    }
}

impl<'de> Deserialize<'de> for Cluster {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = Cluster;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"1=host:port,2=host:port\", or a table of node numbers and addresses")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Cluster, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Cluster, A::Error> {
                let mut cluster = Cluster::default();
                while let Some((id, address)) = map.next_entry::<String, String>()? {
                    cluster.insert(&id, &address).map_err(de::Error::custom)?;
                }
                Ok(cluster)
            }
        }

        deserializer.deserialize_any(Either)
    }
}

/// A number of bytes: `4096`, `64KiB`, `256MiB`, `1GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteSize(pub u64);

const UNITS: [(&str, u32); 4] = [("GiB", 30), ("MiB", 20), ("KiB", 10), ("B", 0)];

impl fmt::Display for ByteSize {
    /// In the largest unit that divides it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match UNITS.iter().find(|(_, bits)| self.0.trailing_zeros() >= *bits && self.0 != 0) {
            Some((unit, bits)) => write!(f, "{}{unit}", self.0 >> bits),
            None => write!(f, "{}B", self.0),
        }
    }
}

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unit = UNITS.iter().find_map(|(unit, bits)| Some((text.strip_suffix(unit)?, *bits)));
        let (digits, bits) = unit.unwrap_or((text, 0));
        let count: Option<u64> = digits.trim().parse().ok();
        count
            .and_then(|count| count.checked_mul(1 << bits))
            .map(Self)
            .ok_or_else(|| format!("{text:?} is not a size such as 4096, 64KiB, 256MiB or 1GiB"))
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "expected a size such as 4096, \"64KiB\", \"256MiB\" or \"1GiB\"")]
        enum Form {
            Number(u64),
            Text(String),
        }
        match Form::deserialize(deserializer)? {
            Form::Number(bytes) => Ok(Self(bytes)),
            Form::Text(text) => text.parse().map_err(de::Error::custom),
        }
    }
}

/// The log's form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// Lines for people
    Text,
    /// One JSON object a line
    Json,
}

/// Checks the shape of `host:port`; whether the host exists shows when it is used.
pub fn check_address(text: &str) -> Result<(), String> {
    let shaped = text.rsplit_once(':').is_some_and(|(host, port)| {
        // A bare IPv6 address would be ambiguous, so it stands in brackets.
        let bracketed = host.starts_with('[') && host.ends_with(']');
        !host.is_empty() && (bracketed || !host.contains([':', '/', '@'])) && port.parse::<u16>().is_ok()
    });
    if shaped { Ok(()) } else { Err(format!("{text:?} is not host:port")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_print_what_they_parse() {
        for (text, bytes, printed) in [
            ("4096", 4096, "4KiB"),
            ("64KiB", 65_536, "64KiB"),
            ("1GiB", 1 << 30, "1GiB"),
            ("1000", 1000, "1000B"),
            ("0", 0, "0B"),
        ] {
            let size: ByteSize = text.parse().unwrap();
            assert_eq!((size.0, size.to_string().as_str()), (bytes, printed));
            assert_eq!(printed.parse(), Ok(size));
        }
        for bad in ["", "GiB", "-1", "1.5GiB", "1TB", "99999999999GiB"] {
            assert!(bad.parse::<ByteSize>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_cluster_lists_each_node_and_address_once() {
        assert_eq!("1=a:1, 2=[::1]:2".parse::<Cluster>().unwrap().0.len(), 2);
        for bad in ["", "1", "1=a", "1=a:x", "0=a:1", "x=a:1", "1=a:1,1=b:1", "1=a:1,2=a:1", "1=a:1,", "1=::1:7"] {
            assert!(bad.parse::<Cluster>().is_err(), "{bad}");
        }
    }
}
