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
    /// Measures it once. An error is the outcome of all rows that have none yet.
    pub measure: fn(&World, &Candidate, &mut Sheet<'_>) -> Result<()>,
}

/// In the order in which they are measured.
pub const GROUPS: &[Group] = &[
    Group {
        name: "start",
        measure: start::measure,
    },
    Group {
        name: "onion",
        measure: onion::measure,
    },
    Group {
        name: "stream",
        measure: stream::measure,
    },
    Group {
        name: "rate",
        measure: rate::measure,
    },
    Group {
        name: "bulk",
        measure: bulk::measure,
    },
    Group {
        name: "memory",
        measure: memory::measure,
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
