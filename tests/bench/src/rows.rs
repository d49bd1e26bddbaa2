//! The measurements, one file for each group of rows.
//!
//! Each group starts its program again, some of them more than once, so that leftovers of one group
//! (circuits, memory) do not affect the next.

use std::net::SocketAddr;

use anyhow::Result;

use crate::client::{Target, time_stream};
use crate::proxy::Candidate;
use crate::results::RunResults;
use crate::testbed::Testbed;

mod bulk;
pub mod codes;
mod far;
mod flood;
mod memory;
mod onion;
mod rate;
mod start;
mod stream;

/// The group that is not in [`GROUPS`], because it uses a separate network.
pub const CODES: &str = "codes";

/// Rows that are measured together.
pub struct Group {
    /// The first part of the names of its rows.
    pub name: &'static str,
    /// The network in which they are measured.
    pub links: Links,
    /// Measures the rows once. An error is a failure of all its rows that have no outcome yet.
    pub measure: fn(&Testbed, &Candidate, &mut RunResults<'_>) -> Result<()>,
}

/// The delay of a network's links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    /// Loopback without delay.
    Near,
    /// Each link has the delay [`Settings::distance`](crate::options::Settings::distance).
    Far,
}

/// The groups, in the order in which they are measured.
pub const GROUPS: &[Group] = &[
    Group {
        name: "start",
        links: Links::Near,
        measure: start::measure,
    },
    Group {
        name: "onion",
        links: Links::Near,
        measure: onion::measure,
    },
    Group {
        name: "stream",
        links: Links::Near,
        measure: stream::measure,
    },
    Group {
        name: "rate",
        links: Links::Near,
        measure: rate::measure,
    },
    Group {
        name: "bulk",
        links: Links::Near,
        measure: bulk::measure,
    },
    Group {
        name: "memory",
        links: Links::Near,
        measure: memory::measure,
    },
    Group {
        name: "flood",
        links: Links::Near,
        measure: flood::measure,
    },
    Group {
        name: "far",
        links: Links::Far,
        measure: far::measure,
    },
];

/// How many streams are opened before a measurement. The first streams wait for circuits.
const WARM_UP: usize = 3;

/// Opens the first streams, which are not measured.
async fn warm_up(proxy: SocketAddr, target: &Target) -> Result<()> {
    for _ in 0..WARM_UP {
        time_stream(proxy, target).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::ROWS;

    #[test]
    fn every_row_belongs_to_a_group() {
        for row in ROWS {
            let group = row.id.split('.').next().expect("a first part");
            assert!(
                group == CODES || GROUPS.iter().any(|known| known.name == group),
                "{}",
                row.id
            );
        }
    }
}
