//! The report for auditors: what is gathered, what it says of each control, and the page that shows it.

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
