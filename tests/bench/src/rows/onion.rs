//! The first connection to an onion service by a program that has just been started: descriptor,
//! introduction, rendezvous, and one byte there and back.

use anyhow::{Context as _, Result};

use super::note;
use crate::client::visit;
use crate::proxy::Candidate;
use crate::record::Sheet;
use crate::stats::{median, milliseconds};
use crate::world::World;

pub(super) fn measure(world: &World, candidate: &Candidate, sheet: &mut Sheet<'_>) -> Result<()> {
    note(sheet, "onion.cold", first(world, candidate));
    Ok(())
}

/// What a first connection takes, in milliseconds; the middle of some starts.
pub(super) fn first(world: &World, candidate: &Candidate) -> Result<f64> {
    let mut answers = Vec::new();
    for _ in 0..world.amounts.cold_starts {
        let proxy = world.start_settled(candidate)?;
        let took = world.runtime.block_on(visit(proxy.socks(), &world.onion))?;
        answers.push(milliseconds(took.answer));
    }
    median(&answers).context("the program was not started")
}
