//! The report for auditors: gathered facts, the evidence for each control, and the HTML page.

mod charts;
mod checks;
mod controls;
mod data;
mod evidence;
mod gather;
mod history;
mod keys;
mod page;
mod parts;
mod receipts;
mod sections;
mod told;
mod verified;

pub(crate) use data::{Level, Report};
pub(crate) use gather::{Asked, gather};
pub(crate) use page::page;
