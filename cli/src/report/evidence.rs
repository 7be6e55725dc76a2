//! Evidence: sentences computed from the facts, each with a level.

mod keys;
mod line;
mod records;

pub(super) use keys::{
    cache, cipher, cryptoperiods, due, has_local_keks, kek_rotation, keks, places, rotation, rotations,
    states, wraps,
};
pub(super) use line::Line;
pub(super) use records::{
    audit, census, columns, destroyed, processes, receipts, refusals, transitions, verified,
};
