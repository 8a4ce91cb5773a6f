//! The one place where the command line meets the simulator, which only a build with `--cfg madsim` has.

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::order::{Order, Simulated};

/// A bug that can be planted, or a mark.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    pub name: String,
    pub about: String,
}

#[cfg(madsim)]
mod bound {
    use campanile_model::sim::{Bug, Mark};

    use super::*;

    pub fn simulate(order: &Order) -> Result<Simulated> {
        Ok(crate::world::simulate(order))
    }

    pub fn planted() -> Result<Vec<Named>> {
        Ok(Bug::ALL.iter().map(|bug| Named { name: bug.name().into(), about: bug.about().into() }).collect())
    }

    pub fn marks() -> Result<Vec<Named>> {
        Ok(Mark::ALL.iter().map(|mark| Named { name: mark.name().into(), about: mark.about().into() }).collect())
    }
}

#[cfg(not(madsim))]
mod bound {
    use super::*;

    pub const ABSENT: &str = "this build has no simulator: run `make sim-build` and use the program it names, \
        or name that program with --simulator";

    pub fn simulate(_order: &Order) -> Result<Simulated> {
        anyhow::bail!(ABSENT)
    }

    pub fn planted() -> Result<Vec<Named>> {
        anyhow::bail!(ABSENT)
    }

    pub fn marks() -> Result<Vec<Named>> {
        anyhow::bail!(ABSENT)
    }
}

pub use bound::*;

/// Whether this program can be its own child.
pub fn check_present() -> Result<()> {
    marks().map(drop)
}
