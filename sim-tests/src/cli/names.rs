//! `planted` and `marks`: lists of names, from this program or from the one that simulates for it.

use std::path::PathBuf;

use anyhow::Result;

use super::End;
use super::child::Simulator;
use super::output::Output;
use super::simulator::{self, Named};
use crate::scenario::nearest;

pub fn planted(other: Option<PathBuf>, out: Output) -> Result<End> {
    let names = match other {
        Some(program) => Simulator::new(Some(program))?.names("planted")?,
        None => simulator::planted()?,
    };
    list(&names, out)
}

pub fn marks(other: Option<PathBuf>, out: Output) -> Result<End> {
    let names = match other {
        Some(program) => Simulator::new(Some(program))?.names("marks")?,
        None => simulator::marks()?,
    };
    list(&names, out)
}

fn list(names: &[Named], out: Output) -> Result<End> {
    let width = names.iter().map(|named| named.name.len()).max().unwrap_or(0);
    out.print(names, |names| names.iter().map(|Named { name, about }| format!("{name:width$}  {about}\n")).collect())?;
    Ok(End::Held)
}

/// Refuses the name of a bug that nobody can plant.
pub fn check_planted(given: &str, known: &[Named]) -> Result<()> {
    if known.iter().any(|named| named.name == given) {
        return Ok(());
    }
    match nearest(given, known.iter().map(|named| named.name.as_str())) {
        Some(near) => anyhow::bail!("unknown planted bug {given:?}; did you mean {near:?}?"),
        None => anyhow::bail!("unknown planted bug {given:?}; `campanile-sim planted` lists them"),
    }
}
