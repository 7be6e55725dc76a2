//! The commands, one file each.

pub(crate) mod adopt;
pub(crate) mod audit;
pub(crate) mod census;
pub(crate) mod columns;
pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod doctor;
pub(crate) mod inspect;
pub(crate) mod keks;
pub(crate) mod keys;
pub(crate) mod local;
pub(crate) mod maintain;
pub(crate) mod man;
pub(crate) mod migrate;
pub(crate) mod reencrypt;
pub(crate) mod report;
pub(crate) mod rewrap;
pub(crate) mod rotate;
pub(crate) mod shred;
pub(crate) mod status;
pub(crate) mod validate;
pub(crate) mod verify;
