//! Which cluster a command speaks to.

use campanile_client::Client;
use clap::Args;

use super::failure::Failure;

#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub struct Connection {
    /// The nodes' API addresses; a bare port is on the host before it
    #[arg(
        short,
        long,
        global = true,
        env = "CAMPANILE_ENDPOINT",
        value_name = "URL,...",
        default_value = "http://127.0.0.1:7701,7702,7703"
    )]
    endpoint: String,

    /// The namespace of tasks and runs
    #[arg(short, long, global = true, env = "CAMPANILE_NAMESPACE", value_name = "NAME", default_value = "default")]
    namespace: String,
}

impl Connection {
    /// Runs one command against the cluster, on this thread.
    pub fn block_on(&self, command: impl AsyncFnOnce(&Client) -> Result<(), Failure>) -> Result<(), Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::failed(format!("the runtime cannot start: {error}")))?;
        runtime.block_on(async {
            let client = Client::builder(endpoints(&self.endpoint)?).namespace(&self.namespace).build()?;
            command(&client).await
        })
    }
}

/// `http://a:1,2,b:3` is `http://a:1`, `http://a:2` and `b:3`.
fn endpoints(list: &str) -> Result<Vec<String>, Failure> {
    let mut endpoints: Vec<String> = Vec::new();
    for item in list.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        let is_port = item.bytes().all(|byte| byte.is_ascii_digit());
        let endpoint = match (is_port, endpoints.last().and_then(|last| last.rsplit_once(':'))) {
            (false, _) => item.to_owned(),
            (true, Some((host, _))) => format!("{host}:{item}"),
            (true, None) => {
                return Err(Failure::usage(format!("the port {item} in --endpoint has no host before it")));
            }
        };
        endpoints.push(endpoint);
    }
    if endpoints.is_empty() {
        return Err(Failure::usage("--endpoint names no node"));
    }
    Ok(endpoints)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_port_is_on_the_host_before_it() {
        let list = endpoints("http://127.0.0.1:7701,7702, node-9:7701,7702").unwrap();
        assert_eq!(list, ["http://127.0.0.1:7701", "http://127.0.0.1:7702", "node-9:7701", "node-9:7702"]);
        assert!(endpoints("7701").is_err());
        assert!(endpoints(" , ").is_err());
    }
}
