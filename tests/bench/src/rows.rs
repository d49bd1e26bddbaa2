//! The measurements, a file for each group of rows.
//!
//! Each group starts its program anew, some of them more than once, so that what one leaves behind
//! changes nothing for the next.

use anyhow::Result;

use crate::proxy::Candidate;
use crate::record::Sheet;
use crate::world::World;

mod bulk;
pub mod codes;
mod far;
mod flood;
mod memory;
mod onion;
mod rate;
mod start;
mod stream;

/// The name of the group that is not in [`GROUPS`]: it has a network of its own.
pub const CODES: &str = "codes";

/// Rows that are measured together.
pub struct Group {
    /// The first word of the names of its rows.
    pub name: &'static str,
    /// In which network.
    pub links: Links,
    /// Measures it once. An error is the outcome of all rows that have none yet.
    pub measure: fn(&World, &Candidate, &mut Sheet<'_>) -> Result<()>,
}

/// What a network's links are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    /// Those of loopback: no time passes on them.
    Near,
    /// Each takes a while ([`Amounts::distance`](crate::options::Amounts::distance)).
    Far,
}

/// In the order in which they are measured.
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

/// How many streams are opened before others are counted: the first ones build circuits.
const WARM_UP: usize = 3;

/// Notes a figure, or that there is none and why.
fn note(sheet: &mut Sheet<'_>, id: &'static str, measured: Result<f64>) {
    match measured {
        Ok(value) => sheet.put(id, value),
        Err(why) => sheet.fail(id, &why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::ROWS;

    #[test]
    fn every_row_belongs_to_a_group() {
        for row in ROWS {
            let group = row.id.split('.').next().expect("a first word");
            assert!(
                group == CODES || GROUPS.iter().any(|known| known.name == group),
                "{}",
                row.id
            );
        }
    }
}
