//! The same program in a network whose links take time. What counts there is how
//! many round trips something takes, and how much may be under way in one.

use anyhow::Result;

use super::bulk::{Direction, Took, middle, transfer};
use super::stream::{Gap, latencies};
use super::{note, onion};
use crate::proxy::Candidate;
use crate::record::Sheet;
use crate::world::{Way, World};

/// The first byte of an answer, with streams right behind one another.
const STREAMS: [(Way, &str); 2] = [
    (Way::Exit, "far.exit.answer"),
    (Way::Onion, "far.onion.answer"),
];

const TRANSFERS: [(Way, Direction, u32, &str); 8] = {
    use Direction::{Down, Up};
    use Way::{Exit, Onion};
    [
        (Exit, Down, 1, "far.exit.down.1"),
        (Exit, Down, 8, "far.exit.down.8"),
        (Exit, Up, 1, "far.exit.up.1"),
        (Exit, Up, 8, "far.exit.up.8"),
        (Onion, Down, 1, "far.onion.down.1"),
        (Onion, Down, 8, "far.onion.down.8"),
        (Onion, Up, 1, "far.onion.up.1"),
        (Onion, Up, 8, "far.onion.up.8"),
    ]
};

pub(super) fn measure(world: &World, candidate: &Candidate, sheet: &mut Sheet<'_>) -> Result<()> {
    if sheet.wants("far.onion.cold") {
        note(sheet, "far.onion.cold", onion::first(world, candidate));
    }
    if STREAMS.iter().any(|(_, row)| sheet.wants(row)) {
        let proxy = world.start_settled(candidate)?;
        for (way, row) in STREAMS {
            let took = latencies(world, &proxy, way, world.amounts.far_streams, Gap::None);
            note(sheet, row, took.and_then(|took| took.answer(50)));
        }
    }
    for (way, direction, streams, row) in TRANSFERS {
        if sheet.wants(row) {
            let took = fresh_transfers(world, candidate, way, direction, streams);
            note(sheet, row, took.map(|took| took.megabytes_per_second));
        }
    }
    Ok(())
}

/// Transfers on circuits that have carried nothing before: what may be under way grows with what was.
fn fresh_transfers(
    world: &World,
    candidate: &Candidate,
    way: Way,
    direction: Direction,
    streams: u32,
) -> Result<Took> {
    let bytes = world.amounts.far_bytes;
    let mut all = Vec::new();
    for _ in 0..world.amounts.transfer_starts {
        let proxy = world.start_settled(candidate)?;
        let transfer = transfer(world, &proxy, way, direction, streams, bytes);
        all.push(world.runtime.block_on(transfer)?);
    }
    middle(&all)
}
