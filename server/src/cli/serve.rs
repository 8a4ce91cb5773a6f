//! `serve`: gathers the configuration, starts logging and runs the node.

use std::io::IsTerminal;
use std::path::PathBuf;

use campanile_server::config::{LogFormat, ServeConfig, Settings};
use clap::Args;
use tracing_subscriber::EnvFilter;

use super::failure::Failure;
use super::output::Output;

#[derive(Debug, Args)]
pub struct Serve {
    /// TOML file with settings; flags and CAMPANILE_* variables win over it
    #[arg(long, env = "CAMPANILE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,

    /// Print the settings in effect as TOML, for finding out where one comes from, and exit
    #[arg(long)]
    print_config: bool,

    #[command(flatten)]
    settings: Settings,
}

impl Serve {
    pub fn run(self, output: &mut Output) -> Result<(), Failure> {
        let file = self.config.as_deref().map(Settings::from_file).transpose();
        let settings =
            self.settings.over(file.map_err(|error| Failure::config(error.to_string()))?.unwrap_or_default());
        if self.print_config {
            let text = settings.over(Settings::defaults()).to_toml();
            return output.bytes(text.map_err(|error| Failure::failed(error.to_string()))?.as_bytes());
        }
        let config = settings.resolve().map_err(|error| Failure::config(error.to_string()))?;
        start_log(&config)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::failed(format!("the runtime cannot start: {error}")))?;
        let ended = runtime.block_on(campanile_server::serve(config));
        if let Err(error) = &ended {
            tracing::error!(%error, "stopped");
            eprintln!("campanile: {error}");
        }
        leave(i32::from(ended.is_err()))
    }
}

/// Ends the process without running destructors. What a node has acknowledged is on disk, so nothing needs them; and
/// those of the C++ library's globals would run while threads of RocksDB still use them.
fn leave(status: i32) -> ! {
    // SAFETY: `_exit` takes any status, touches no memory of ours, and does not return.
    unsafe { libc::_exit(status) }
}

/// The log goes to standard error; standard output is for what was asked for.
fn start_log(config: &ServeConfig) -> Result<(), Failure> {
    let filter = EnvFilter::builder()
        .parse(&config.log)
        .map_err(|error| Failure::config(format!("log {:?}: {error}", config.log)))?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match config.log_format {
        LogFormat::Text => log.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => log.json().try_init(),
    };
    started.map_err(|error| Failure::failed(error.to_string()))
}
