//! The page's sections: evidence by topic.

mod history;
mod keys;
mod rows;

pub(super) use history::{history, processes, usage};
pub(super) use keys::{keks, rotation, settings, versions};
pub(super) use rows::{columns, shreddings};
