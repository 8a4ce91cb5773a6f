//! A node's configuration: flags over `CAMPANILE_*` variables over a TOML file over the defaults.
//!
//! [`Settings`] is the one table of all settings, each under one name: `--max-clock-skew` as a flag,
//! `CAMPANILE_MAX_CLOCK_SKEW` in the environment, `max_clock_skew` in the file. `docs/reference/configuration.md` is
//! made from it. [`ServeConfig`] is what a node runs with: complete and checked.
//!
//! Nothing else in this crate reads the environment or a configuration file.

mod values;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use campanile_model::{Millis, NodeId};
use serde::{Deserialize, Serialize};

use crate::secret;

pub use values::{ByteSize, Cluster, LogFormat};

/// What a node runs with.
#[derive(Clone, Debug, PartialEq)]
pub struct ServeConfig {
    pub node: NodeId,
    pub data: PathBuf,
    /// `host:port` of the API.
    pub listen: String,
    /// `host:port` for the other nodes.
    pub peer: String,
    /// Peer addresses of the nodes that form the cluster.
    pub cluster: BTreeMap<NodeId, String>,
    /// Wait to be taken into a cluster that exists, rather than form one.
    pub join: bool,
    /// The API address others are told, where it is not `listen`.
    pub advertise_api: Option<String>,
    /// What is logged, in `tracing`'s filter syntax.
    pub log: String,
    pub log_format: LogFormat,
    pub max_clock_skew: Millis,
    /// Overdue occurrences fired per second after an outage.
    pub catch_up_rate: u32,
    /// Deliveries this node has in flight at once.
    pub http_connections: usize,
    /// Of these, to one host.
    pub http_connections_per_host: usize,
    /// How long running attempts are waited for on shutdown.
    pub drain_timeout: Millis,
    /// With less free space under `data`, writes are refused.
    pub min_free_disk: u64,
    /// Signs webhooks whose task has no secret of its own.
    pub webhook_secret: Option<String>,
    /// A snapshot is taken after this much log, and half as much is kept behind it.
    pub snapshot_log_bytes: u64,
    /// A snapshot is taken this long after the last one, if anything was written.
    pub snapshot_interval: Millis,
    pub heartbeat: Millis,
    /// A follower that hears nothing stands for election after a random time between these two.
    pub election_min: Millis,
    pub election_max: Millis,
}

/// Every setting, each unset or set. Doc comments are the help of `campanile serve` and the rows of the reference.
#[derive(Clone, Debug, Default, PartialEq, clap::Args, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[command(next_help_heading = "Settings")]
pub struct Settings {
    /// Id of this node: a positive number that no node of the cluster has had before
    #[arg(long, env = "CAMPANILE_NODE", value_name = "ID")]
    pub node: Option<u64>,

    /// Directory of the node's data; made when absent
    #[arg(long, env = "CAMPANILE_DATA", value_name = "DIR")]
    pub data: Option<PathBuf>,

    /// Where the API listens
    #[arg(long, env = "CAMPANILE_LISTEN", value_name = "HOST:PORT")]
    pub listen: Option<String>,

    /// Where the node listens to the other nodes
    #[arg(long, env = "CAMPANILE_PEER", value_name = "HOST:PORT")]
    pub peer: Option<String>,

    /// The nodes that form the cluster, the same list on each: 1=host:port,2=host:port,3=host:port. In the file it may
    /// be a table as well
    #[arg(long, env = "CAMPANILE_CLUSTER", value_name = "ID=HOST:PORT,...")]
    pub cluster: Option<Cluster>,

    /// Wait to be taken into a cluster that exists (`campanile cluster add`) instead of forming one
    #[arg(long, env = "CAMPANILE_JOIN", value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_missing_value = "true")]
    pub join: Option<bool>,

    /// API address that others are told, where it is not the one listened on
    #[arg(long, env = "CAMPANILE_ADVERTISE_API", value_name = "HOST:PORT")]
    pub advertise_api: Option<String>,

    /// What is logged: error, warn, info, debug, trace, or a filter such as info,campanile_raft=debug
    #[arg(long, env = "CAMPANILE_LOG", value_name = "FILTER")]
    pub log: Option<String>,

    /// Form of the log
    #[arg(long, env = "CAMPANILE_LOG_FORMAT", value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,

    /// A leader whose clock is further than this from the other nodes' stops firing and hands over
    #[arg(long, env = "CAMPANILE_MAX_CLOCK_SKEW", value_name = "SPAN")]
    pub max_clock_skew: Option<Millis>,

    /// Overdue occurrences fired per second after an outage, beside those that are on time
    #[arg(long, env = "CAMPANILE_CATCH_UP_RATE", value_name = "PER_SECOND")]
    pub catch_up_rate: Option<u32>,

    /// Webhook deliveries that this node has in flight at once
    #[arg(long, env = "CAMPANILE_HTTP_CONNECTIONS", value_name = "COUNT")]
    pub http_connections: Option<usize>,

    /// Of these, the most to one host
    #[arg(long, env = "CAMPANILE_HTTP_CONNECTIONS_PER_HOST", value_name = "COUNT")]
    pub http_connections_per_host: Option<usize>,

    /// How long running attempts are waited for when the node is told to stop
    #[arg(long, env = "CAMPANILE_DRAIN_TIMEOUT", value_name = "SPAN")]
    pub drain_timeout: Option<Millis>,

    /// With less free space than this for its data, the node refuses writes
    #[arg(long, env = "CAMPANILE_MIN_FREE_DISK", value_name = "SIZE")]
    pub min_free_disk: Option<ByteSize>,

    /// Standard Webhooks secret (whsec_ and base64) for tasks that have none of their own. Other users of the machine
    /// can see flags: use the variable or the file
    #[arg(long, env = "CAMPANILE_WEBHOOK_SECRET", value_name = "SECRET", hide_env_values = true)]
    pub webhook_secret: Option<String>,

    /// A snapshot is taken after this much log; half as much is kept behind it, and on the leader four times as much
    /// while a follower needs it
    #[arg(long, env = "CAMPANILE_SNAPSHOT_LOG_BYTES", value_name = "SIZE")]
    pub snapshot_log_bytes: Option<ByteSize>,

    /// A snapshot is taken this long after the last one, if anything was written since
    #[arg(long, env = "CAMPANILE_SNAPSHOT_INTERVAL", value_name = "SPAN")]
    pub snapshot_interval: Option<Millis>,

    /// How often the leader is heard of
    #[arg(long, env = "CAMPANILE_HEARTBEAT", value_name = "SPAN")]
    pub heartbeat: Option<Millis>,

    /// The shortest silence after which a follower stands for election
    #[arg(long, env = "CAMPANILE_ELECTION_MIN", value_name = "SPAN")]
    pub election_min: Option<Millis>,

    /// The longest
    #[arg(long, env = "CAMPANILE_ELECTION_MAX", value_name = "SPAN")]
    pub election_max: Option<Millis>,
}

impl Settings {
    /// The defaults; what is unset here has none.
    pub fn defaults() -> Self {
        Self {
            listen: Some("127.0.0.1:7701".into()),
            peer: Some("127.0.0.1:7801".into()),
            join: Some(false),
            log: Some("info,openraft=warn".into()),
            log_format: Some(LogFormat::Text),
            max_clock_skew: Some(Millis(500)),
            catch_up_rate: Some(2000),
            http_connections: Some(1024),
            http_connections_per_host: Some(512),
            drain_timeout: Some(Millis::from_secs(30)),
            min_free_disk: Some(ByteSize(256 << 20)),
            snapshot_log_bytes: Some(ByteSize(128 << 20)),
            snapshot_interval: Some(Millis::from_mins(10)),
            heartbeat: Some(Millis(60)),
            election_min: Some(Millis(200)),
            election_max: Some(Millis(400)),
            ..Self::default()
        }
    }

    /// Reads a TOML file. An unknown key is an error that names it.
    pub fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.into(), reason: source.to_string() })?;
        Self::from_toml(&text).map_err(|error| ConfigError::Unreadable { path: path.into(), reason: error.to_string() })
    }

    fn from_toml(text: &str) -> Result<Self, toml::de::Error> {
        toml::from_str(text)
    }

    /// These settings, and where one is unset, that of `below`.
    pub fn over(self, below: Self) -> Self {
        macro_rules! merge {
            ($($field:ident),* $(,)?) => {
                // Without `..`: a setting that is missing here does not compile.
                Self { $($field: self.$field.or(below.$field)),* }
            };
        }
        merge!(
            node,
            data,
            listen,
            peer,
            cluster,
            join,
            advertise_api,
            log,
            log_format,
            max_clock_skew,
            catch_up_rate,
            http_connections,
            http_connections_per_host,
            drain_timeout,
            min_free_disk,
            webhook_secret,
            snapshot_log_bytes,
            snapshot_interval,
            heartbeat,
            election_min,
            election_max,
        )
    }

    /// As a file that would have the same effect, except that a secret is not shown.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        let secret = self.webhook_secret.as_ref().map(|_| "whsec_***".to_owned());
        toml::to_string(&Self { webhook_secret: secret, ..self.clone() })
    }

    /// Fills in the defaults and checks that a node can run with the result.
    pub fn resolve(self) -> Result<ServeConfig, ConfigError> {
        let Self { node, data, cluster, advertise_api, webhook_secret, .. } = self.clone();
        let all = self.over(Self::defaults());
        let config = ServeConfig {
            node: NodeId(required("node", node)?),
            data: required("data", data)?,
            listen: required("listen", all.listen)?,
            peer: required("peer", all.peer)?,
            join: required("join", all.join)?,
            cluster: match (cluster, all.join) {
                (None, Some(true)) => BTreeMap::new(),
                (cluster, _) => required("cluster", cluster)?.0,
            },
            advertise_api,
            log: required("log", all.log)?,
            log_format: required("log_format", all.log_format)?,
            max_clock_skew: required("max_clock_skew", all.max_clock_skew)?,
            catch_up_rate: required("catch_up_rate", all.catch_up_rate)?,
            http_connections: required("http_connections", all.http_connections)?,
            http_connections_per_host: required("http_connections_per_host", all.http_connections_per_host)?,
            drain_timeout: required("drain_timeout", all.drain_timeout)?,
            min_free_disk: required("min_free_disk", all.min_free_disk)?.0,
            webhook_secret,
            snapshot_log_bytes: required("snapshot_log_bytes", all.snapshot_log_bytes)?.0,
            snapshot_interval: required("snapshot_interval", all.snapshot_interval)?,
            heartbeat: required("heartbeat", all.heartbeat)?,
            election_min: required("election_min", all.election_min)?,
            election_max: required("election_max", all.election_max)?,
        };
        config.check()?;
        Ok(config)
    }
}

impl ServeConfig {
    /// What no single value shows: ranges, and settings that contradict each other.
    fn check(&self) -> Result<(), ConfigError> {
        ensure(self.node.0 > 0, "node", "must be positive")?;
        let addresses = [
            ("listen", Some(&self.listen)),
            ("peer", Some(&self.peer)),
            ("advertise_api", self.advertise_api.as_ref()),
        ];
        for (key, address) in addresses {
            if let Some(address) = address {
                values::check_address(address).map_err(|why| ConfigError::invalid(key, why))?;
            }
        }
        ensure(self.listen != self.peer || self.listen.ends_with(":0"), "peer", "must not be the same as listen")?;
        ensure(
            self.join || self.cluster.contains_key(&self.node),
            "cluster",
            &format!("does not list node {}; a node that joins later needs --join", self.node),
        )?;
        ensure(self.max_clock_skew.0 > 0, "max_clock_skew", "must be positive")?;
        ensure(self.catch_up_rate > 0, "catch_up_rate", "must be positive")?;
        ensure(self.http_connections > 0, "http_connections", "must be positive")?;
        ensure(self.http_connections_per_host > 0, "http_connections_per_host", "must be positive")?;
        if let Some(secret) = &self.webhook_secret {
            secret::key(secret).map_err(|why| ConfigError::invalid("webhook_secret", format!("cannot sign: {why}")))?;
        }
        ensure(self.snapshot_log_bytes >= 1 << 20, "snapshot_log_bytes", "must be at least 1MiB")?;
        ensure(self.snapshot_interval >= Millis::from_secs(1), "snapshot_interval", "must be at least 1s")?;
        ensure(self.heartbeat >= Millis(10), "heartbeat", "must be at least 10ms")?;
        let two_beats = Millis(self.heartbeat.0.saturating_mul(2));
        ensure(self.election_min >= two_beats, "election_min", "must be at least two heartbeats")?;
        ensure(self.election_max > self.election_min, "election_max", "must be greater than election_min")
    }
}

fn ensure(holds: bool, key: &'static str, why: &str) -> Result<(), ConfigError> {
    if holds { Ok(()) } else { Err(ConfigError::invalid(key, why)) }
}

fn required<T>(key: &'static str, value: Option<T>) -> Result<T, ConfigError> {
    value.ok_or(ConfigError::Missing { key })
}

/// Why a node cannot run with what it was given. Names the setting by its key in the file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("{path}: {reason}", path = path.display())]
    Unreadable { path: PathBuf, reason: String },
    #[error("{key} is not set: give --{flag}, {variable}, or {key} in the configuration file",
        flag = key.replace('_', "-"), variable = variable(key))]
    Missing { key: &'static str },
    #[error("{key} {why}")]
    Invalid { key: &'static str, why: String },
}

impl ConfigError {
    fn invalid(key: &'static str, why: impl Into<String>) -> Self {
        Self::Invalid { key, why: why.into() }
    }

    /// The setting at fault.
    pub fn key(&self) -> Option<&'static str> {
        match self {
            Self::Unreadable { .. } => None,
            Self::Missing { key } | Self::Invalid { key, .. } => Some(key),
        }
    }
}

/// The environment variable of a setting.
fn variable(key: &str) -> String {
    format!("CAMPANILE_{}", key.to_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use clap::{Args, FromArgMatches};

    use super::*;

    fn flags(args: &[&str]) -> Settings {
        let command = Settings::augment_args(clap::Command::new("serve").no_binary_name(true));
        // Whoever runs the tests may have variables of their own set.
        let command = command.mut_args(|arg| arg.env(None::<&str>));
        Settings::from_arg_matches(&command.try_get_matches_from(args).unwrap()).unwrap()
    }

    const ISSUE: [&str; 10] = [
        "--node",
        "1",
        "--data",
        "d",
        "--listen",
        "127.0.0.1:7701",
        "--peer",
        "127.0.0.1:7801",
        "--cluster",
        "1=127.0.0.1:7801,2=127.0.0.1:7802,3=127.0.0.1:7803",
    ];

    #[test]
    fn the_documented_flags_make_a_node() {
        let config = flags(&ISSUE).resolve().unwrap();
        assert_eq!((config.node, config.listen.as_str(), config.join), (NodeId(1), "127.0.0.1:7701", false));
        assert_eq!(config.cluster.len(), 3);
        assert_eq!(config.cluster[&NodeId(3)], "127.0.0.1:7803");
        assert_eq!((config.max_clock_skew, config.catch_up_rate), (Millis(500), 2000));
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let file = Settings::from_toml("node = 2\ncatch_up_rate = 10\nmin_free_disk = \"1GiB\"").unwrap();
        let config = flags(&ISSUE).over(file).resolve().unwrap();
        assert_eq!((config.node, config.catch_up_rate, config.min_free_disk), (NodeId(1), 10, 1 << 30));
        assert_eq!(config.http_connections, 1024);
    }

    #[test]
    fn a_cluster_is_text_or_a_table_in_the_file() {
        let text = Settings::from_toml("cluster = \"1=a:1,2=b:2\"").unwrap();
        let table = Settings::from_toml("[cluster]\n1 = \"a:1\"\n2 = \"b:2\"").unwrap();
        assert_eq!(text, table);
    }

    #[test]
    fn unknown_keys_and_wrong_types_are_named() {
        for (text, named) in [
            ("nod = 1", "unknown field `nod`"),
            ("[serve]\nnode = 1", "unknown field `serve`"),
            ("node = \"one\"", "invalid type"),
            ("drain_timeout = \"soon\"", "soon"),
            ("min_free_disk = \"1 elephant\"", "1 elephant"),
            ("[cluster]\none = \"a:1\"", "one"),
        ] {
            let error = Settings::from_toml(text).unwrap_err().to_string();
            assert!(error.contains(named), "{text}: {error}");
        }
    }

    #[test]
    fn what_is_missing_or_contradictory_is_named() {
        let base = || flags(&ISSUE);
        let cases: Vec<(Settings, &str)> = vec![
            (Settings { node: None, ..base() }, "node"),
            (Settings { node: Some(0), ..base() }, "node"),
            (Settings { node: Some(4), ..base() }, "cluster"),
            (Settings { data: None, ..base() }, "data"),
            (Settings { cluster: None, ..base() }, "cluster"),
            (Settings { peer: Some("127.0.0.1:7701".into()), ..base() }, "peer"),
            (Settings { listen: Some("127.0.0.1".into()), ..base() }, "listen"),
            (Settings { advertise_api: Some("http://a:1".into()), ..base() }, "advertise_api"),
            (Settings { election_max: Some(Millis(100)), ..base() }, "election_max"),
            (Settings { heartbeat: Some(Millis(150)), ..base() }, "election_min"),
            (Settings { catch_up_rate: Some(0), ..base() }, "catch_up_rate"),
            (Settings { webhook_secret: Some("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".into()), ..base() }, "webhook_secret"),
            (Settings { webhook_secret: Some("whsec_not base64".into()), ..base() }, "webhook_secret"),
            (Settings { webhook_secret: Some("whsec_c2hvcnQ=".into()), ..base() }, "webhook_secret"),
        ];
        for (settings, key) in cases {
            let error = settings.resolve().unwrap_err();
            assert_eq!(error.key(), Some(key), "{error}");
        }
    }

    #[test]
    fn a_webhook_secret_is_checked_and_not_shown() {
        let with = |secret: &str| Settings { webhook_secret: Some(secret.into()), ..flags(&ISSUE) }.resolve();
        assert!(with("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").is_ok());
        let error = with("hush").unwrap_err().to_string();
        assert_eq!(error, "webhook_secret cannot sign: a signing secret starts with whsec_");
    }

    #[test]
    fn a_node_that_joins_needs_no_list() {
        let settings = Settings { join: Some(true), cluster: None, node: Some(9), ..flags(&ISSUE) };
        assert!(settings.resolve().unwrap().cluster.is_empty());
        assert_eq!(flags(&["--join"]).join, Some(true));
        assert_eq!(flags(&["--join=false"]).join, Some(false));
    }

    #[test]
    fn printed_settings_read_back_without_the_secret() {
        let settings = Settings { webhook_secret: Some("whsec_c2VjcmV0".into()), ..flags(&ISSUE) };
        let text = settings.clone().over(Settings::defaults()).to_toml().unwrap();
        assert!(!text.contains("c2VjcmV0"), "{text}");
        let read = Settings { webhook_secret: settings.webhook_secret.clone(), ..Settings::from_toml(&text).unwrap() };
        assert_eq!(read, settings.over(Settings::defaults()));
    }
}
