//! `demo`: the cluster at work, with its leader killed.

use std::path::PathBuf;

use campanile_bench::demo::{self, DemoOptions};
use campanile_model::Millis;
use clap::Args;

use super::definition::read_text;
use super::dev::{drive, failed, this_program};
use super::failure::Failure;

/// What is imported unless another file is named.
const CRONTAB: &str = include_str!("../../../examples/crontab");

#[derive(Debug, Args)]
pub struct Demo {
    /// End after this long, at least 10s, with a verdict; otherwise on Ctrl-C
    #[arg(long = "for", value_name = "SPAN")]
    duration: Option<Millis>,
    /// Crontab to import instead of examples/crontab; its webhooks to 127.0.0.1:9000 go to the demo's receiver
    #[arg(long, value_name = "FILE")]
    crontab: Option<String>,
    /// Directory of data and logs, kept afterwards; temporary when not given
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

impl Demo {
    pub fn run(self) -> Result<(), Failure> {
        let options = DemoOptions {
            binary: this_program()?,
            duration: self.duration.map(Millis::to_std),
            crontab: self.crontab.map_or_else(|| Ok(CRONTAB.to_owned()), |path| read_text(&path))?,
            data: self.data,
        };
        drive(async {
            match demo::run(options).await.map_err(failed)? {
                true => Ok(()),
                false => Err(Failure::failed("the demo did not end as promised")),
            }
        })
    }
}
